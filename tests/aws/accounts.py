"""The AWS that the tests of this folder run on: an account of the caller's, or a stand-in."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from bilbo_cli import INSTANCE, Bilbo
from sweeping import TAG, Swept

from bilbo import local


def whose() -> str:
    """Who runs the tests, and where: the sweep of one does not end the machines of another."""
    return re.sub(r"[^\w.@-]", "-", f"{getpass.getuser()}@{socket.gethostname()}")[:200]


NAME = f"aws-tests-{hashlib.sha256(whose().encode()).hexdigest()[:6]}"
# Canonical's account and its image of Ubuntu 24.04, on which nothing is installed yet.
UBUNTU_OWNER = "099720109477"
UBUNTU = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"
INSTALL = [
    "sudo apt-get update -q",
    "sudo apt-get install -yq python3-venv",
    "sudo python3 -m venv /opt/tests",
    "sudo /opt/tests/bin/pip install -q dask distributed bokeh jupyterlab",
    "sudo ln -sf /opt/tests/bin/dask /opt/tests/bin/jupyter /opt/tests/bin/jupyter-lab "
    "/opt/tests/bin/python /usr/local/bin/",
]

# What it costs at most. Machines and hours are those of the tests, prices are those of the dearest
# region, from AWS's price list: t3.small, surplus CPU credits, a public address, 8 GiB of gp3.
MACHINES, HOURS = 4, 1.5
TYPE = "t3.small"
PRICES = {"t3.small": 0.0336, "surplus credits of 2 vCPUs": 0.10, "address": 0.005, "disk": 0.002}
LIMIT = 2.00

# What no account can launch whose quota of the family is smaller: (type, its vCPUs, the quota's
# code), the cheapest first, should one start all the same.
BIG = (
    ("inf1.xlarge", 4, "L-1945791B"),
    ("g4dn.xlarge", 4, "L-DB2E81BA"),
    ("trn1.2xlarge", 8, "L-2C3B7624"),
    ("g4dn.16xlarge", 64, "L-DB2E81BA"),
    ("inf1.24xlarge", 96, "L-1945791B"),
)


def cost() -> tuple[float, str]:
    """The most that a run costs, in USD, and how that is reckoned."""
    hourly = sum(PRICES.values())
    total = MACHINES * HOURS * hourly
    parts = ", ".join(f"{what} {price:.4f}" for what, price in PRICES.items())
    return total, (
        f"at most {total:.2f} USD: {MACHINES} machines for {HOURS * 60:.0f} minutes at "
        f"{hourly:.4f} USD an hour, in the dearest region ({parts})"
    )


@dataclass(frozen=True)
class Account:
    """AWS as a person has it. `environment` leads bilbo and boto3 there; `instance` is the common
    part of the profile."""

    folder: Path
    region: str
    environment: Mapping[str, str]
    instance: Mapping[str, Any]
    cidrs: tuple[str, ...] = ()
    until: float = field(default_factory=lambda: time.monotonic() + (HOURS - 0.25) * 3600)

    @property
    def bilbo(self) -> Bilbo:
        return Bilbo(self.folder / "home")

    @property
    def swept(self) -> Swept:
        return Swept(self.client, whose())

    def __call__(
        self, *arguments: str, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs bilbo in the account; not beyond the time that is paid for."""
        seconds = max(1.0, self.until - time.monotonic())
        around = {**self.environment, **environment}
        return self.bilbo(*arguments, code=code, timeout=seconds, around=around)

    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        names = (
            "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        )  # fmt: skip
        return _client(service, self.region, *map(self.environment.get, names))

    def profile(self, workers: list[dict[str, Any]]) -> str:
        """Writes the profile of a notebook and these groups of workers; its path."""
        document = {
            "region": self.region,
            "instance": {**self.instance, "tags": {TAG: whose()}},
            "notebook": {},
            "dask": {"worker": workers},
            **({"access": {"cidrs": list(self.cidrs)}} if self.cidrs else {}),
        }
        return self.bilbo.profile(NAME, document)

    def strictly(self, policy: str) -> None:
        """Nothing: AWS is as strict as it is, and the caller's permissions are the caller's."""

    @contextmanager
    def too_big(self) -> Iterator[str | None]:
        """Within it, a type of machine that cannot be launched; None where every one could be."""
        quotas = self.client("service-quotas")
        for ec2type, vcpus, code in BIG:
            found = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)
            offered = self.client("ec2").describe_instance_type_offerings(
                Filters=[{"Name": "instance-type", "Values": [ec2type]}]
            )["InstanceTypeOfferings"]
            if offered and found["Quota"]["Value"] < vcpus:
                yield ec2type
                return
        yield None

    @contextmanager
    def elsewhere(self) -> Iterator[Mapping[str, str] | None]:
        """Within it, the environment of another account's credentials; None if none are given."""
        name = os.environ.get("BILBO_AWS_OTHER_PROFILE")
        unset = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        yield {**dict.fromkeys(unset, ""), "AWS_PROFILE": name} if name else None

    def end(self) -> None:
        """Nothing: an account stays."""


class OnStandIn(Account):
    """A stand-in, in which security groups and permissions are enforced, and which is
    eventually consistent."""

    @property
    def _aws(self) -> Path:
        return self.folder / "aws"

    def strictly(self, policy: str) -> None:
        """From now on only what `policy` allows is allowed, and what is new is found late."""
        file = self.folder / "policy.json"
        file.write_text(policy, encoding="utf-8")
        local.inject(self._aws, f"policy={file}")
        local.inject(self._aws, "lag=3")

    @contextmanager
    def too_big(self) -> Iterator[str | None]:
        """The account's quota is used up."""
        local.inject(self._aws, "limit=1")
        yield "t3.large"

    @contextmanager
    def elsewhere(self) -> Iterator[Mapping[str, str] | None]:
        """There is one account only, so the record says that the cluster is in another."""
        file = self.bilbo.home / "clusters" / NAME / "cluster.json"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('"123456789012"', '"999999999999"'), encoding="utf-8")
        try:
            yield {}
        finally:
            file.write_text(text, encoding="utf-8")

    def end(self) -> None:
        local.inject(self._aws, "clear")


@cache
def _client(service: str, region: str, endpoint: str | None, *keys: str | None) -> Any:
    make: Any = boto3.client
    key, secret, token = keys
    return make(
        service,
        region,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
    )


def key_pair(account: Account) -> None:
    """Makes the key pair that the profile names; its private half is in the account's folder."""
    file = account.folder / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)]
    subprocess.run(command, check=True)
    tags = [{"Key": TAG, "Value": whose()}]
    account.client("ec2").import_key_pair(
        KeyName=NAME,
        PublicKeyMaterial=file.with_suffix(".pub").read_bytes(),
        TagSpecifications=[{"ResourceType": "key-pair", "Tags": tags}],
    )


def on_standin(folder: Path) -> Account:
    """A stand-in as AWS, which no home of bilbo's knows as its own."""
    target = local.start(folder / "aws")
    assert target.endpoint_url
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    environment = {name: target.environment[name] for name in names}
    environment |= {"AWS_ENDPOINT_URL": target.endpoint_url, "AWS_EC2_METADATA_DISABLED": "true"}
    instance = {
        **INSTANCE,
        "keyname": NAME,
        "ssh_private_key": str(folder / "key"),
        "ssh_port": target.ssh_port,
    }
    return OnStandIn(folder, target.region, environment, instance, target.caller_cidrs)


def why_not() -> str:
    """Why no account may be used: what is missing. Empty if one may."""
    total, reckoned = cost()
    assert total <= LIMIT
    try:
        boto3.Session().client("sts", region_name=_region()).get_caller_identity()
    except Exception as error:  # whatever is wrong, nothing is begun
        return f"no AWS credentials ({error}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and the like."
    try:
        agreed = float(os.environ.get("BILBO_AWS_BUDGET_USD") or 0)
    except ValueError:
        agreed = 0.0
    if agreed < total:
        return f"it costs {reckoned}. Agree to it with BILBO_AWS_BUDGET_USD={LIMIT:.0f}."
    return ""


def on_aws(folder: Path) -> Account:
    """The caller's account. BILBO_AWS_AMI names an image that has what bilbo starts; otherwise it
    is Ubuntu's, where it is installed."""
    region = _region()
    environment = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    image = os.environ.get("BILBO_AWS_AMI")
    instance: dict[str, Any] = {
        "ami": image or "",
        "ec2type": TYPE,
        "keyname": NAME,
        "ssh_user": os.environ.get("BILBO_AWS_SSH_USER", "ubuntu"),
        "ssh_private_key": str(folder / "key"),
    }
    account = Account(folder, region, {**environment, "AWS_REGION": region}, instance)
    if not image:
        found = account.client("ec2").describe_images(
            Owners=[UBUNTU_OWNER], Filters=[{"Name": "name", "Values": [UBUNTU]}]
        )["Images"]
        instance["ami"] = max(found, key=lambda each: str(each["CreationDate"]))["ImageId"]
        instance["init_cmd"] = INSTALL
    return account


def _region() -> str:
    """Of the environment or of the AWS profile."""
    return boto3.Session().region_name or "us-east-1"
