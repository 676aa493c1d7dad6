"""Fuzzers: whatever is read of other people's is taken or refused by name, and does nothing.

Each calls the real readers, without Terraform and without an AWS.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import BYTES, EVIL, GARBAGE, Fuzzer, garbled, spoiled, written

from bilbo import bundle, ledger, plans, prices, services
from bilbo.addresses import of_resource, tainted
from bilbo.aws.price_list import MACHINES, _product, by_type, suits
from bilbo.aws.price_list import one as one_price
from bilbo.aws.s3_state import parsed_lock, parsed_state
from bilbo.bundle import Manifest
from bilbo.cli.console import Console
from bilbo.cli.pages import _PAGE
from bilbo.cli.reviews import read_prices
from bilbo.cluster import host_access
from bilbo.cluster.host_settings import taken
from bilbo.cluster.reviewed import Reviewed, home_id
from bilbo.cluster.shared_state import admitted, outputs_of, recorded
from bilbo.cluster.starting import with_nodes
from bilbo.cluster.work import Work
from bilbo.costs import bill, of_spec, shares, total
from bilbo.errors import TerraformError
from bilbo.held import Sighting
from bilbo.images import packer_output as packer
from bilbo.inventory import inventory, missing, stopped
from bilbo.ledger import begun
from bilbo.model import ClusterSpec, HostPlan, Inventory, SharedState, Target
from bilbo.plans import drift_digests, open_to_world
from bilbo.present import report
from bilbo.present.cost_text import (
    Account,
    account_document,
    account_text,
    bill_text,
    cost_rows,
    spent_word,
)
from bilbo.present.document import plan_document
from bilbo.present.markdown import plan_markdown
from bilbo.present.review_text import drift_text
from bilbo.present.state_listing import state_document, state_text
from bilbo.profile import building, checking, loading
from bilbo.record import Store, from_json, to_json
from bilbo.remote import HostFailure, KnownHosts, Remote
from bilbo.remote.agent_session import AGENT_MODULES, Lines, Session
from bilbo.remote.host import HostRun
from bilbo.remote.program import answer
from bilbo.remote.roll import Members
from bilbo.render import render
from bilbo.terraform import Terraform, locked_providers
from bilbo.terraform.hints import lock_hint, unlock_hint
from bilbo.terraform.planfile import plan_misfit
from bilbo.terraform.stream import outcome, parse, to_error
from bilbo.text import json_text, plain
from bilbo.versions import differences, software

TESTS = Path(__file__).parent.parent
PROFILES = [
    path.read_bytes()
    for folder in (TESTS / "profiles", TESTS / "rendered", TESTS.parent / "examples")
    for path in sorted(folder.glob("*.json"))
]
DOCUMENT = {
    "region": "us-east-1",
    "access": {"cidrs": ["10.0.0.0/8"]},
    "instance": {
        "ami": "ami-0f49fa254e1806b72", "ec2type": "t3.micro", "keyname": "team",
        "ssh_user": "ubuntu", "ssh_private_key": "~/key.pem", "tags": {"team": "data"},
    },
    "notebook": {},
    "dask": {"scheduler": {}, "worker": {"count": 2, "nproc": 1, "nthread": 1}},
}  # fmt: skip
LOCK = """# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/hashicorp/aws" {
  version     = "5.100.0"
  constraints = ">= 5.70.0, < 7.0.0"
  hashes = [
    "h1:edXOJWE4ORX8Fm+dpVpICzMZJat4AX0VRCAy/xkcOc0=",
    "zh:0b1bfb8d8b1b4a2b",
  ]
}
"""


@pytest.fixture
def fuzz(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fuzzer]:
    """A fuzzer, with a scratch folder beside a home that must stay as it is."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "authorized_keys").write_text("ssh-ed25519 mine\n")
    (home / "key.pem").touch(mode=0o600)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    before = tree(home)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    yield Fuzzer(request.node.name.removeprefix("test_"), scratch)
    assert tree(home) == before


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """The mode and the sha256 of everything in a folder."""
    return {
        path.name: (
            path.lstat().st_mode,
            sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


def work_in(folder: Path) -> Work:
    """What operations need, with nobody to tell."""
    return Work(Store(folder), Target("us-east-1"), None)  # type: ignore[arg-type]


def machine(number: int) -> dict[str, Any]:
    """A machine as outputs tell it."""
    return {
        "instance_id": f"i-0{number:016x}", "state": "running", "public_ip": f"203.0.113.{number}",
        "private_ip": f"10.0.0.{number}", "private_dns_name": f"ip-10-0-0-{number}.ec2.internal",
        "ec2type": "t3.micro", "image_id": "ami-0f49fa254e1806b72", "key_name": "team",
    }  # fmt: skip


OUTPUTS: dict[str, Any] = {
    "profile": DOCUMENT,
    "notebook": machine(1),
    "scheduler": machine(2),
    "workers": {"worker": {machine(n)["instance_id"]: machine(n) for n in (3, 4)}},
}


# -- profiles ------------------------------------------------------------------------------


def test_profiles(fuzz: Fuzzer) -> None:
    """A profile becomes files of HCL, or a list of its mistakes."""
    path = fuzz.scratch / "profile.json"
    overrides = ("dask.worker.count", "instance.tags", "instance.init_cmd", "notebook", "a.b", "")

    def read(given: list[str]) -> None:
        spec = loading.load(
            str(path), fuzz.scratch, cluster="one", overrides=given, region="us-east-1"
        )
        for text in render(replace(spec, cidrs=spec.cidrs or ("10.0.0.0/8",))).values():
            text.encode()
        report.plan_blocks(spec, {})
        open_to_world(spec)

    documents = []
    for honest in PROFILES:
        path.write_bytes(honest)
        if fuzz(read, Random(0), []) and _whole(honest):
            documents.append(json.loads(honest))

    def one(random: Random) -> None:
        data = garbled(random, random.choice(PROFILES))
        if random.random() < 0.3:
            data = written(random, random.choice(documents))
        elif random.random() < 0.7:
            data = json.dumps(spoiled(random, random.choice(documents), times=1)).encode()
        path.write_bytes(data)
        given = []
        if random.random() < 0.3:
            value = json.dumps(random.choice(GARBAGE))
            given = [f"{random.choice(overrides)}={value}"]
        fuzz(read, random, given)

    fuzz.run(one)


def _whole(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


# -- bundles -------------------------------------------------------------------------------


def packed(members: Mapping[str, bytes]) -> bytes:
    """A zip of files, in the order in which they are given."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


def plan_of(files: Mapping[str, str]) -> dict[str, bytes]:
    """The members of Terraform's saved plan of a configuration."""
    calls = re.findall(r'^module "(\w+)" \{\n +source += "./(.+?)"', files["main.tf"], re.M)
    folders = {"": ".", **dict(calls)}
    listed = [{"Key": key, "Dir": folder, "Source": ""} for key, folder in folders.items()]
    members = {"tfplan": b"\x0a\x00", "tfstate": b"{}", "tfstate-prev": b'{"resources": []}'}
    members["tfconfig/modules.json"] = json.dumps(listed).encode()
    for key, folder in folders.items():
        for name, text in files.items():
            above, _, file = name.rpartition("/")
            if (above or ".") == folder:
                members[f"tfconfig/m-{key}/{file}"] = text.encode()
    return {**members, ".terraform.lock.hcl": LOCK.encode()}


NAMES = ("../x", "/x", "terraform/../x", "terraform/x.tf", "terraform/.terraform/x", "x",
         "terraform/terraform.tfstate", "terraform/a/b/c.tf", "tfconfig/m-/x.tf", "tfstate", "",
         "tfconfig/m-x/../../x.tf", "terraform/x\0y", f"terraform/{EVIL}")  # fmt: skip


def shuffled(random: Random, members: dict[str, bytes]) -> dict[str, bytes]:
    """Members with one lost, added, renamed or changed."""
    members = dict(members)
    name = random.choice(list(members))
    match random.randint(0, 4):
        case 0:
            del members[name]
        case 1:
            members[random.choice(NAMES).replace("\0", "")] = random.choice(BYTES)
        case 2:
            members[random.choice(NAMES).replace("\0", "")] = members.pop(name)
        case _:
            members[name] = garbled(random, members[name])
    return members


def rehashed(random: Random, members: dict[str, bytes]) -> dict[str, bytes]:
    """A bundle's members with a manifest that fits them, perhaps spoiled, and its digest."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        manifest = json.loads(members["manifest.json"])
        manifest["files"] = {
            name: sha256(data).hexdigest()
            for name, data in members.items()
            if name not in ("manifest.json", "manifest.sha256")
        }
        if random.random() < 0.4:
            manifest = spoiled(random, manifest)
        members["manifest.json"] = json.dumps(manifest).encode()
    digest = sha256(members.get("manifest.json", b"")).hexdigest()
    return {**members, "manifest.sha256": digest.encode()}


def test_bundles(fuzz: Fuzzer) -> None:
    """What is taken for a reviewed plan holds what bilbo renders, and is written there alone."""
    spec = replace(building.build(DOCUMENT, "one"), profile_name="team.json")
    files = render(spec)
    work = work_in(fuzz.scratch / "bilbo")
    plan = plan_of(files)
    path = fuzz.scratch / "plan"
    manifest = Manifest(
        "one", "us-east-1", bundle.profile_digest(DOCUMENT), "team.json", home=home_id(work.store),
        versions={"bilbo": profile_version()},
    )  # fmt: skip
    hcl = {**files, ".terraform.lock.hcl": LOCK}
    contents = {f"{bundle.HCL}{name}": text.encode() for name, text in hcl.items()}
    bundle.write(path, manifest, {**contents, bundle.PLAN: packed(plan)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    honest = path.read_bytes()

    def read(_: object) -> None:
        found = bundle.read(path)
        Terraform(fuzz.scratch / "cluster", {}, fuzz.scratch).write(found.hcl)
        reviewed = Reviewed(found, path)
        reviewed.suits(spec, work)
        reviewed.is_rendered(spec)
        assert found.hcl == {**hcl, ".terraform.lock.hcl": found.hcl[".terraform.lock.hcl"]}

    def one(random: Random) -> None:
        if random.random() < 0.2:
            path.write_bytes(garbled(random, honest))
        else:
            changed = dict(members)
            if random.random() < 0.5:
                changed[bundle.PLAN] = packed(shuffled(random, plan))
            else:
                changed = shuffled(random, changed)
            path.write_bytes(packed(rehashed(random, changed)))
        fuzz(read, random, None)

    path.write_bytes(honest)
    assert fuzz(read, Random(0), None), "the honest bundle is taken"
    fuzz.run(one)


def profile_version() -> str:
    """bilbo's version, which a bundle names."""
    from bilbo import __version__

    return __version__


# -- states --------------------------------------------------------------------------------


def resource(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """A resource as a state lists it."""
    return {
        "module": f"module.{name}", "mode": "managed", "type": kind, "name": "this",
        "provider": 'provider["registry.terraform.io/hashicorp/aws"]',
        "instances": [{"schema_version": 1, "attributes": {"id": f"i-{name}", "arn": "arn:aws:x"}}],
        **more,
    }  # fmt: skip


STATE = {
    "version": 4, "terraform_version": "1.11.4", "serial": 7, "lineage": "6638d010",
    "outputs": {name: {"value": value, "type": "dynamic"} for name, value in OUTPUTS.items()},
    "resources": [
        resource("aws_instance", "notebook"),
        resource("aws_autoscaling_group", "worker", instances=[
            {"index_key": 0, "status": "tainted", "attributes": {"id": None, "tags": None}}
        ]),
        resource("aws_instances", "data", mode="data"),
    ],
    "check_results": None,
}  # fmt: skip


def test_states(fuzz: Fuzzer) -> None:
    """What a shared state tells becomes a record whose every address is one, or is refused."""
    work = work_in(fuzz.scratch)

    def read(data: bytes) -> None:
        state = admitted(parsed_state(data.decode(errors="replace"), "s3://team/x"), "s3://team/x")
        list(map(of_resource, state.get("resources", [])))
        list(tainted(state))
        document = state_document("folder", state)
        json_text(document).encode()
        plain(state_text(document)).encode()
        outputs = outputs_of(state)
        told: dict[str, Any] = taken(outputs["profile"]) if "profile" in outputs else DOCUMENT
        told.setdefault("instance", {})["ssh_private_key"] = "~/key.pem"
        checking.check_profile(told)
        spec = replace(building.build(told, "one"), state=SharedState("team", "us-east-1"))
        stopped(spec, outputs)
        believed(work, spec, outputs)

    def one(random: Random) -> None:
        fuzz(read, random, written(random, STATE))

    assert fuzz(read, Random(0), json.dumps(STATE).encode()), "the honest state is taken"
    fuzz.run(one)


def believed(work: Work, spec: ClusterSpec, outputs: Mapping[str, Any]) -> None:
    """What is done with a state that was taken: none of it can mean another thing."""
    record = recorded(spec, work, outputs)
    record = with_nodes(record.changed(token="t"), spec, record.inventory)
    assert from_json(json.loads(json.dumps(to_json(record))), Path("x")) == record
    plain(report.summary(record)).encode()
    missing(spec, record.inventory)
    list(services.stage_plan(spec, record.inventory, "t").hosts())
    for node in record.inventory.nodes():
        assert re.fullmatch("i-[0-9a-f]+", node.instance_id)
        for address in filter(None, (node.public_ip, node.private_ip)):
            ipaddress.ip_address(address)
        argv = host_access.ssh_command(work, record, node)
        assert argv[-2:] == ["--", node.public_ip or node.private_ip]
        assert all(word.isprintable() for word in argv)
        assert not argv[argv.index("-l") + 1].startswith("-")
    for url in filter(None, (record.notebook_url, record.dashboard_url)):
        assert _PAGE.fullmatch(url), url


# -- locks ---------------------------------------------------------------------------------

HELD = {
    "ID": "6638d010-8fbc-be29-bbb4-3bc1b1eaa6f1", "Operation": "OperationTypeApply", "Info": "",
    "Who": "ada@laptop", "Version": "1.11.4", "Created": "2026-01-02T03:04:05.678Z", "Path": "x",
}  # fmt: skip
SAID = "Error acquiring the state lock\n\nLock Info:\n" + "".join(
    f"  {key}:  {value}\n" for key, value in HELD.items()
)
PROVIDERS = (
    'provider "evil/evil" {', '  provider "evil/evil" {', 'provider\t"evil/evil" {',
    'provider"evil/evil"{', "provider evil {", '/* */ provider "evil/evil" {',
    'provider "evil\\u002fevil" {', "provider 'evil/evil' {", '} provider "evil/evil" {',
    'provider "a" "evil" {', 'provider "${evil}" {', "provider <<evil",
)  # fmt: skip


def test_lock_files(fuzz: Fuzzer) -> None:
    """A lock that is not Terraform's stands in no command to copy, and no provider goes unseen."""

    def held(data: bytes) -> None:
        lock = parsed_lock(data.decode(errors="replace"))
        if lock is None:
            return
        assert all(value.isprintable() for value in asdict(lock).values())
        copied(unlock_hint("one", lock.id))
        copied(lock_hint(data.decode(errors="replace"), "one"))

    def locked(data: bytes) -> None:
        text = data.decode(errors="replace")
        try:
            found = locked_providers(text)
        except ValueError as error:
            raise TerraformError(str(error)) from error  # as the reviewed plan's reader does
        lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
        if any("provider" in line and "evil" in line for line in lines):
            assert any("evil" in name for name in found), text

    def one(random: Random) -> None:
        match random.randint(0, 2):
            case 0:
                fuzz(held, random, written(random, HELD))
            case 1:
                fuzz(held, random, garbled(random, SAID.encode()))
            case _:
                text = LOCK.replace("provider", random.choice((*PROVIDERS, "provider")), 1)
                lines = LOCK.splitlines()
                lines.insert(random.randint(0, len(lines)), random.choice(PROVIDERS))
                choice = random.choice((text, "\n".join(lines), LOCK)).encode()
                fuzz(locked, random, garbled(random, choice) if random.random() < 0.7 else choice)

    assert fuzz(held, Random(0), json.dumps(HELD).encode())
    assert fuzz(locked, Random(0), LOCK.encode())
    fuzz.run(one)


def copied(hint: str) -> None:
    """A command to copy holds an id of Terraform's form, or there is none."""
    _, found, command = hint.partition("bilbo unlock")
    assert not found or re.fullmatch(r" one [0-9a-f-]{36}", command), hint


# -- money ---------------------------------------------------------------------------------

PRICED = {
    "version": 1, "region": "us-east-1", "date": "2026-03-01T00:00:00+00:00", "disk": 0.08,
    "machines": {"t3.micro": 0.01}, "spot": {"t3.micro": 0.003}, "address": 0.005,
}  # fmt: skip
PRODUCT = {
    "product": {"productFamily": "Compute Instance", "attributes": {
        **MACHINES, "instanceType": "t3.micro", "regionCode": "us-east-1"}},
    "terms": {"OnDemand": {"S.T": {"priceDimensions": {"S.T.D": {
        "unit": "Hrs", "beginRange": "0", "pricePerUnit": {"USD": "0.0104000000"}}}}}},
}  # fmt: skip


def test_prices(fuzz: Fuzzer) -> None:
    """What stands in a file of prices, or comes from AWS's list, is a usable price or none."""
    path = fuzz.scratch / "prices.json"

    def known(document: Any) -> None:
        found = prices.parsed(document)
        for price in (*found.machines.values(), *found.spot.values()):
            assert 0 < price < 1e6
        found.old()
        plain(
            bill_text(bill([], of_spec(building.build(DOCUMENT, "one"), {}), found), "x")
        ).encode()

    def told(text: bytes) -> None:
        product = _product(text.decode(errors="replace"))
        assert all(0 < price < 1e6 for price in by_type([product]).values())
        suits(product, MACHINES)
        one_price([product], "Hrs")

    def given(data: bytes) -> None:
        path.write_bytes(data)
        assert all(0 <= price < 1e300 for price in read_prices(path).values())

    def one(random: Random) -> None:
        fuzz(known, random, spoiled(random, PRICED))
        fuzz(told, random, written(random, PRODUCT))
        fuzz(given, random, written(random, PRICED["machines"]))

    assert fuzz(known, Random(0), PRICED)
    assert fuzz(given, Random(0), json.dumps(PRICED["machines"]).encode())
    assert by_type([PRODUCT]) == {"t3.micro": 0.0104}
    fuzz.run(one)


LEDGER = [
    begun(datetime(2026, 3, 1, tzinfo=timezone.utc), whole=True),
    {
        "event": "start", "at": "2026-03-01T00:00:00+00:00", "id": "i-1", "role": "worker",
        "group": "worker", "type": "t3.micro", "spot": False, "gib": 8,
        "usd": {"machine": 0.01, "address": 0.005, "disk": None},
    },
    {"event": "seen", "at": "2026-03-01T01:00:00+00:00"},
    {"event": "stop", "id": "i-1", "at": "2026-03-01T01:00:00+00:00",
     "by": "2026-03-01T02:00:00+00:00", "why": "ended itself"},
    {"event": "gone", "id": "i-1", "at": "2026-03-01T01:00:00+00:00",
     "by": "2026-03-01T02:00:00+00:00"},
]  # fmt: skip


def test_ledgers(fuzz: Fuzzer) -> None:
    """Whatever stands in a ledger is a line that counts or one that is damaged; sums are finite and
    never negative, and what is shown does nothing."""
    now = datetime(2026, 3, 2, tzinfo=timezone.utc)

    def read(data: bytes) -> None:
        found = ledger.read(data.decode("utf-8", "replace"))
        sums = total(shares(found, now))
        assert 0 <= sums.low <= sums.high < 1e300
        account = Account("one", "ready", found)
        for text in (
            account_text(account, now, None),
            json_text(account_document(account, now, None)),
            "".join(map(str, cost_rows([account], now, now))),
            spent_word(found, now),
        ):
            plain(text).encode()
        for line in ledger.observed(
            found, [Sighting("i-1", "running", EVIL)], prices.Prices(), now
        ):
            json.dumps(line)

    def one(random: Random) -> None:
        lines = [json.dumps(line).encode() for line in LEDGER]
        for _ in range(random.randint(1, 3)):
            spot = random.randint(0, len(lines) - 1)
            lines[spot] = written(random, random.choice(LEDGER)).replace(b"\n", b" ")
        random.shuffle(lines)
        fuzz(read, random, b"\n".join(lines))

    assert fuzz(read, Random(0), b"\n".join(json.dumps(line).encode() for line in LEDGER))
    fuzz.run(one)


# -- agents --------------------------------------------------------------------------------

MEASURED = {
    "cpus": 4, "threads_per_core": 2, "memory": 16 << 30, "gpus": [],
    "executables": {"dask": "/bin/dask"}, "elsewhere": {"x": "/y"}, "python": "3.11.1",
    "versions": {"dask": "2026.8.0", "distributed": "2026.8.0"},
}  # fmt: skip
ENDED = {"code": 1, "log": ["why"]}
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "measure": [{"event": "measured", **MEASURED}],
    "reach": [{"event": "reached", "why": ""}, {"event": "reached", "why": EVIL}],
    "watch": [{"event": "watched"}],
    "extend": [{"event": "extended", "left": 60.5}, {"event": "extended", "left": None}],
    "grow": [{"event": "grown", "done": True, "why": "x"}],
    "boot": [{"event": "done", "ran": 0}, {"event": "waiting", "cause": "x"}, {"event": "timeout"}],
    "init": [{"event": "done", "ran": 1}, {"event": "exited", **ENDED, "number": 1}],
    "packages": [{"event": "done", "ran": True}, {"event": "exited", **ENDED, "python": "/bin/p"}],
    "start": [
        {"event": "started", "changed": False},
        {"event": "already", "changed": True},
        {"event": "ready"},
        {"event": "timeout", "cause": "HTTP status 500", "log": ["x"]},
        {"event": "exited", **ENDED},
    ],
    "keep": [{"event": "kept", "way": "systemd", "why": ""}],
    "roll": [{"event": "roll", "joined": {"i-1": "tcp://x"}, "left": []}],
    "stop": [{"event": "done"}],
    "status": [
        {
            "event": "status",
            "services": [{"service": "x", "running": True, "code": None, "age": 1.5, "log": []}],
            "members": {"i-1": "tcp://x"},
        }
    ],
    "logs": [{"event": "log", "service": "x", "lines": ["one"]}, {"event": "done"}],
    "program": [{"event": "ran", "code": 0, "output": '{"left": []}', "log": []}],
}


class Host:
    """A connection to a host that answers each request as it likes, and at last with a failure."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lines: list[Lines] = []
        self.opening = 0

    async def create_session(
        self, factory: Callable[[], Lines], _command: str, encoding: None
    ) -> tuple[Host, Lines]:
        """A new agent."""
        self.opening = 2  # what starts it is no request
        self.lines.append(factory())
        self.lines[-1].data_received(b"noise" + self.lines[-1].greeting, None)
        return self, self.lines[-1]

    def close(self) -> None:
        """It ends."""

    def write(self, data: bytes) -> None:
        """A request comes, and is answered."""
        for line in data.splitlines():
            if self.opening:
                self.opening -= 1
                continue
            request = json.loads(line)
            for answered in self.answers(request["op"], request["id"]):
                self.lines[-1].data_received(answered + b"\n", None)
            last = {"event": "failed", "id": request["id"], "cause": "nothing more"}
            self.lines[-1].data_received(json.dumps(last).encode() + b"\n", None)

    def answers(self, op: str, number: int) -> Iterator[bytes]:
        """One to three events; the first may be honest, so that more is asked."""
        events = ANSWERS[op]
        if self.random.random() < 0.6:
            yield json.dumps({**events[0], "id": number}).encode()
        for _ in range(self.random.randint(0, 2)):
            other = ANSWERS[self.random.choice(list(ANSWERS))]
            chosen = self.random.choice(events if self.random.random() < 0.9 else other)
            event = {**chosen, "id": number}
            if self.random.random() < 0.2:
                yield json.dumps(event).encode()
            else:
                yield written(self.random, event).replace(b"\n", b" ")


def test_agent_answers(fuzz: Fuzzer) -> None:
    """Whatever a host's agent answers is the named failure of that host, or what it should be."""
    spec = building.build({**DOCUMENT, "lifetime": {}}, "one")
    found = inventory(spec, OUTPUTS)
    plans = list(services.stage_plan(spec, found, "token").hosts())
    watches = {"deciding": lambda: {"left": 60}}
    more: dict[str, Any] = {"init_cmd": ("true",), "requirements": ("x",), "watches": watches}
    plans = [replace(each, **more) for each in plans]
    remote = Remote(KnownHosts(fuzz.scratch / "known_hosts"))

    def read(random: Random) -> None:
        asyncio.run(stages(random, remote, random.choice(plans), found))

    def one(random: Random) -> None:
        fuzz(read, random, random)

    fuzz.run(one)


async def stages(random: Random, remote: Remote, plan: HostPlan, found: Inventory) -> None:
    """One host's way through all that is asked of it, to where it fails."""
    host: Any = Host(random)
    if random.random() < 0.2:
        session = await Session.open(host, "one", "i-1", remote.deadlines)
        for op in random.sample(list(ANSWERS), 3):
            await session.ask(op, 10)
        answer(random.choice(('{"left": [1]}', "[]", "{", '{"left": []}', EVIL)), "leave_dask")
        return
    run = HostRun(plan, "one", remote)
    try:
        await run.prepare(host)
        if random.random() < 0.3:
            run.check_versions({**MEASURED, "versions": {"dask": EVIL}}, ["dask"])
        differences(software("a", MEASURED), software("b", run.facts), ["dask"])
        new = await run.start(fresh=random.random() < 0.5)
        match random.randint(0, 2):
            case 0:
                await run.until_ready()
            case 1:
                await run.until_joined(Members(), new=new)
            case _:
                where = services.stage_plan(building.build(DOCUMENT, "one"), found, "t").roll
                assert where
                await run.keep_roll(where, Members())
    except HostFailure as failure:
        result = run.failed(failure)
        told = report.failures([result], {result.node.instance_id: 1})
        plain("\n".join(told)).encode()
        raise


def test_the_agents_modules_are_all_asked() -> None:
    """Every request that an agent knows is fuzzed."""
    source = (TESTS.parent / "bilbo" / "agent" / "serve.py").read_text(encoding="utf-8")
    assert "serve" in AGENT_MODULES
    assert set(re.findall(r'^    "(\w+)": on_', source, re.M)) == ANSWERS.keys()


# -- Terraform -----------------------------------------------------------------------------


def hook(kind: str, address: str, **more: Any) -> dict[str, Any]:
    """An event about a resource that is being made."""
    resource = {"addr": address, "resource_type": "aws_instance", "module": "", "resource": address}
    return {"type": kind, "hook": {"resource": resource, "action": "create", **more}}


CHANGE = {"resource": {"addr": "a.b", "resource_type": "aws_instance"}, "action": "create"}
COUNTED = {"add": 1, "change": 0, "remove": 0}
STREAM = [
    {"@level": "info", "@message": "Terraform 1.11.4", "type": "version", "terraform": "1.11.4"},
    {"type": "refresh_start", "hook": {"resource": {"addr": "a.b"}}},
    {"type": "planned_change", "change": CHANGE},
    {"type": "planned_change", "change": {**CHANGE, "action": "replace", "reason": "tainted"}},
    {"type": "resource_drift", "change": {**CHANGE, "action": "update"}},
    {"type": "change_summary", "changes": {**COUNTED, "operation": "plan"}},
    hook("apply_start", "module.notebook.aws_instance.this"),
    hook("apply_progress", "module.notebook.aws_instance.this", elapsed_seconds=10),
    hook("apply_complete", "module.notebook.aws_instance.this", elapsed_seconds=12),
    {"type": "diagnostic", "diagnostic": {"severity": "error", "summary": SAID, "detail": SAID}},
    {"type": "change_summary", "changes": {**COUNTED, "operation": "apply"}},
    {"type": "outputs", "outputs": {name: {"value": value} for name, value in OUTPUTS.items()}},
]  # fmt: skip


def test_terraform_streams(fuzz: Fuzzer) -> None:
    """Whatever comes in place of Terraform's stream is shown, told, and believed by its form."""
    spec = building.build(DOCUMENT, "one")
    log = logging.Logger("fuzz")
    log.addHandler(logging.NullHandler())

    def read(given: tuple[list[bytes], int | None, int]) -> None:
        lines, code, verbose = given
        said = io.StringIO()
        with contextlib.redirect_stderr(said), Console(log, verbose=verbose) as console:
            events = [e for e in (parse(line.decode(errors="replace")) for line in lines) if e]
            for event in events:
                console.terraform(event)
        assert plain(said.getvalue()) == said.getvalue()
        found = outcome(events, code)
        plain(report.changes(found)).encode()
        if found.outputs:
            nodes = inventory(spec, found.outputs)
            missing(spec, nodes)
            stopped(spec, found.outputs)
        for line in lines:
            packer.built(filter(None, [packer.parse(line.decode(errors="replace"))]))
        if found.errors or not found.summarised:  # as those who ask Terraform judge it
            raise to_error(found, "it failed", Path("log"))

    def one(random: Random) -> None:
        lines = [json.dumps(event).encode() for event in STREAM]
        for _ in range(random.randint(1, 3)):
            at = random.randint(0, len(lines) - 1)
            lines[at] = written(random, random.choice(STREAM)).replace(b"\n", b" ")
        if random.random() < 0.2:
            lines = garbled(random, b"\n".join(lines)).split(b"\n")
        fuzz(read, random, (lines, random.choice((0, 1, 2, None)), random.randint(0, 1)))

    fuzz.run(one)


INGRESS = {
    "from_port": 22, "to_port": 22, "protocol": "tcp", "description": "SSH",
    "cidr_blocks": ["10.0.0.0/8"], "ipv6_cidr_blocks": [], "security_groups": [],
}  # fmt: skip


def planned(kind: str, actions: list[str], before: Any, after: Any) -> dict[str, Any]:
    """A change as `terraform show -json` tells it."""
    return {
        "address": f"module.a.{kind}.this", "mode": "managed", "type": kind, "name": "this",
        "action_reason": "replace_because_tainted",
        "change": {
            "actions": actions, "before": before, "after": after, "after_unknown": {"id": True},
            "before_sensitive": {"token": True}, "after_sensitive": {"token": True},
            "replace_paths": [["ami"], ["root_block_device", 0, "encrypted"]],
        },
    }  # fmt: skip


VALUES = {
    "instance_type": "t3.micro", "tags": {"bilbo:role": "notebook", "bilbo:group": "notebook"},
    "token": "hunter2", "associate_public_ip_address": True, "desired_capacity": 3,
    "tag": [{"key": "bilbo:role", "value": "worker"}], "ingress": [INGRESS],
    "network_interfaces": [{"associate_public_ip_address": "true"}],
}  # fmt: skip
SHOWN = {
    "format_version": "1.2",
    "resource_changes": [
        planned("aws_instance", ["update"], VALUES, {**VALUES, "instance_type": "m5.large"}),
        planned("aws_security_group", ["create"], None, VALUES),
        planned("aws_autoscaling_group", ["delete", "create"], VALUES, VALUES),
        planned("aws_launch_template", ["delete"], VALUES, None),
    ],
    "resource_drift": [planned("aws_instance", ["update"], VALUES, {**VALUES, "tags": {}})],
    "output_changes": {"notebook": {"actions": ["update"]}},
}


def test_terraform_plans(fuzz: Fuzzer) -> None:
    """A plan as Terraform shows it is a review in every form, or an answer that does not fit; what
    is sensitive is in none of them."""
    spec = building.build(DOCUMENT, "one")

    def read(document: Any) -> None:
        if why := plan_misfit(document):
            raise TerraformError(why)  # as Terraform.show does
        found = plans.read(document)
        drift_digests(document)
        shown = plan_document(spec, found, sizes={}, prices={}, warnings=[])
        json_text(shown).encode()
        text = plan_markdown(spec, found, sizes={}, prices={}, warnings=[])
        plain(text).encode()
        plain(drift_text("one", found, [])).encode()

    def one(random: Random) -> None:
        fuzz(read, random, spoiled(random, SHOWN))

    assert fuzz(read, Random(0), SHOWN)
    fuzz.run(one)
