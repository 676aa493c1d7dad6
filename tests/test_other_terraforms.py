"""Terraform's newest release, as `make terraforms` runs bilbo under it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from other_terraforms import NEWEST, Unavailable, program, under

from bilbo.terraform.environment import binary

pytestmark = pytest.mark.standin


def test_the_newest_as_a_program(tmp_path: Path) -> None:
    """It is found on PATH, tells its exit codes, writes JSON to the descriptors that it is given,
    and ends in order at a Ctrl-C."""
    try:
        terraform = program(tmp_path, NEWEST)
    except Unavailable as error:
        pytest.skip(str(error))
    environment = {**under(terraform), "CHECKPOINT_DISABLE": "1"}
    assert binary(environment) == str(terraform)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [terraform, *words], cwd=tmp_path, env=environment, text=True, capture_output=True,
            check=False,
        )  # fmt: skip

    assert json.loads(run("version", "-json").stdout)["terraform_version"] == NEWEST
    assert run("no-command").returncode == 1
    (tmp_path / "main.tf").write_text(
        'resource "terraform_data" "slow" {\n  provisioner "local-exec" {\n'
        '    command = "echo begun; exec sleep 600"\n  }\n}\n'
    )
    run("init", "-input=false")
    assert run("plan", "-detailed-exitcode", "-input=false").returncode == 2
    log = tmp_path / "log.jsonl"
    with log.open("w") as file:
        running = subprocess.Popen(
            [terraform, "apply", "-json", "-auto-approve"],
            cwd=tmp_path, env=environment, stdout=file, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(log, "begun", running)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 1
    finally:
        running.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["terraform"] == NEWEST
    assert "Interrupt received" in log.read_text()
    state = json.loads((tmp_path / "terraform.tfstate").read_text())
    assert [each["instances"][0]["status"] for each in state["resources"]] == ["tainted"]
    assert not list(tmp_path.glob(".terraform.tfstate.lock.info"))


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Until a log has a text; a minute at most."""
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
