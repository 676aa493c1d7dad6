"""The record: written in one step, private, versioned, and mended where its state remains."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bilbo.aws import caller_cidr
from bilbo.errors import AwsError, RecordError
from bilbo.model import Inventory, Node
from bilbo.record import NewerRecordError, Record, Store, from_json, now, to_json


def make(name: str = "test") -> Record:
    """A record with one node."""
    worker = Node(
        "worker",
        "worker",
        "i-1",
        "1.1.1.1",
        "10.0.0.1",
        "dns",
        "t3.micro",
        "ami",
        "key",
        "ubuntu",
        "~/key.pem",
    )
    return Record(
        name,
        "ready",
        "us-east-1",
        "dask",
        now(),
        {"instance": {}},
        "/folder",
        inventory=Inventory(workers=(worker,)),
        cidrs=("192.0.2.1/32",),
        token="t",
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A record comes back the same, from a file that only its owner may read."""
    store = Store(tmp_path)
    store.prepare()
    saved = store.save(make())
    assert store.load("test") == saved
    assert store.path("test").stat().st_mode & 0o777 == 0o600
    document = to_json(saved)
    assert document["instances"] == ["i-1"]
    assert "endpoint_url" not in document
    assert from_json(json.loads(json.dumps(document)), tmp_path) == saved
    assert store.names() == ["test"]


def test_a_wrong_record_is_named(tmp_path: Path) -> None:
    """Truncated, not an object, of another form, from a newer bilbo: each is a RecordError."""
    store = Store(tmp_path)
    store.save(make())
    for text in ('{"version": 1, "na', "[]", '{"version": 1}', '{"version": "x"}', "\udcff"):
        store.path("test").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(RecordError):
            store.load("test")
    store.path("test").write_text('{"version": 2}')
    with pytest.raises(NewerRecordError):
        store.known("test")


def test_a_lost_record_is_known_by_its_place(tmp_path: Path) -> None:
    """What lies beside the record names region and endpoint when it is lost or damaged."""
    store = Store(tmp_path)
    store.save(make().changed(endpoint_url="http://127.0.0.1:1"))
    store.path("test").unlink()
    found = store.known("test")
    assert found is not None
    assert (found.region, found.endpoint_url) == ("us-east-1", "http://127.0.0.1:1")
    store.path("test").write_text("{")
    assert store.known("test") == found
    assert store.known("other") is None


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """Who holds the lock is named; once that process is dead, nobody does."""
    store = Store(tmp_path)
    code = (
        "import sys, pathlib, time\n"
        "from bilbo.record import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).lock('test', 'create'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RecordError, match=f"pid {holder.pid}"), store.lock("test", "destroy"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with store.lock("test", "destroy"):
        pass


class _Address(BaseHTTPRequestHandler):
    answer = b"192.0.2.7\n"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        pass


def test_the_callers_address_is_asked(tmp_path: Path) -> None:
    """The check-ip service's answer is a range of one address; any other answer is an error."""
    server = HTTPServer(("127.0.0.1", 0), _Address)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert caller_cidr(url) == "192.0.2.7/32"
        _Address.answer = b"<html>"
        with pytest.raises(AwsError, match="access"):
            caller_cidr(url)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(AwsError):
        caller_cidr(url)
