"""bilbo as a person runs it: a process of its own, a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import boto3

from bilbo import local

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background deaf to Ctrl-C, and children inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

INSTANCE = {
    "ami": "ami-0f49fa254e1806b72",
    "ec2type": "t3.micro",
    "keyname": "local",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.bilbo/local/local.pem",
}
AwsService = Literal["autoscaling", "ec2", "iam", "kms", "pricing", "s3", "service-quotas", "sts"]
ONE_PROCESS = {"nproc": 1, "nthread": 1}


@dataclass(frozen=True)
class Bilbo:
    """The command line with `home` as its BILBO_HOME, and nothing of AWS in the environment."""

    home: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """The caller's environment without AWS's, which no test may depend on."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return {**kept, "BILBO_HOME": str(self.home), **extra}

    def __call__(
        self,
        *arguments: str,
        code: int | None = 0,
        timeout: float = 300,
        around: Mapping[str, str] | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; its exit code must be `code` unless that is None.

        `around` and `environment` are both added to its environment.
        """
        done = subprocess.run(
            [sys.executable, "-m", "bilbo", *arguments],
            env=self.environment(**(around or {}), **environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Runs a command in the background, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "bilbo", *arguments],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def profile(self, name: str, document: Mapping[str, Any]) -> str:
        """Writes a profile into the home; its file name."""
        folder = self.home / "profiles"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
        return f"{name}.json"

    def record(self, cluster: str) -> dict[str, Any]:
        """What `desc -d` prints."""
        found: dict[str, Any] = json.loads(self("desc", cluster, "-d").stdout)
        return found


class Running:
    """A bilbo in the background whose stderr can be waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Until stderr holds `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def interrupt(self, times: int = 1) -> None:
        """Ctrl-C on a terminal: SIGINT to the whole foreground group."""
        for _ in range(times):
            os.killpg(self.process.pid, signal.SIGINT)
            time.sleep(0.3)

    def end(self, seconds: float = 120) -> int:
        """Its exit code, within a time."""
        code = self.process.wait(timeout=seconds)
        self._reader.join()
        assert "Traceback" not in self.said, self.said
        return code


def processes_of(home: Path) -> list[str]:
    """The command lines of everything that runs on instances of a home's stand-in."""
    found = []
    marker = str(home / "local" / "instances").encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if marker in environment and b"BILBO_INSTANCE=" in environment:
            found.append(command)
    return found


def client(home: Path, service: AwsService, region: str | None = None) -> Any:
    """boto3's client for a service of a home's stand-in, in its region or another."""
    target = local.target(home)
    assert target is not None
    settings: dict[str, Any] = {
        "region_name": region or target.region,
        "endpoint_url": target.endpoint_url,
        "aws_access_key_id": target.environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": target.environment["AWS_SECRET_ACCESS_KEY"],
    }
    return boto3.client(service, **settings)


def clients(home: Path) -> tuple[Any, Any]:
    """boto3's clients for EC2 and Auto Scaling of a home's stand-in."""
    return client(home, "ec2"), client(home, "autoscaling")


def nothing_is_left(home: Path) -> None:
    """The stand-in holds nothing that Terraform makes, and no process lives on its machines."""
    ec2, groups = clients(home)
    reservations = ec2.describe_instances()["Reservations"]
    states = {i["State"]["Name"] for r in reservations for i in r["Instances"]}
    assert states <= {"terminated"}
    assert groups.describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert ec2.describe_launch_templates()["LaunchTemplates"] == []
    names = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert names == {"default"}
    assert processes_of(home) == []
