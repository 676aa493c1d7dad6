"""The stand-in AWS, as its users see it: boto3, SSH clients, Terraform."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import ANY

import asyncssh
import boto3
import pytest
from bilbo_cli import AwsService
from botocore.config import Config
from botocore.exceptions import ClientError
from conftest import StandIn

from bilbo import local
from bilbo.aws import machines, price_list
from bilbo.errors import AwsError, LocalError, UsageError
from bilbo.local import network
from bilbo.local.faults import FORMS, Faults
from bilbo.local.lag import Lag
from bilbo.local.processes import of_standin
from bilbo.local.standin_state import erase
from bilbo.local.throttling import Throttle

T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is for Linux")


class Aws:
    """boto3 clients of a stand-in, and the few things that these tests do again and again."""

    def __init__(self, standin: StandIn) -> None:
        self.home, self.target = standin.home, standin.target
        assert self.target.ssh_port
        self.ssh_port = self.target.ssh_port
        env = standin.target.environment
        session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        self._session = session
        self.ec2 = self.client("ec2")
        self.asg = self.client("autoscaling")
        self.admit_ssh(self.ec2)

    def client(self, service: AwsService, region: str = "us-east-1", **more: Any) -> Any:
        once = Config(retries={"total_max_attempts": 1})
        endpoint = self.target.endpoint_url
        return self._session.client(
            service, region, endpoint_url=endpoint, **{"config": once, **more}
        )

    def admit_ssh(self, ec2: Any) -> None:
        """Have the default security group of a region admit SSH, which on AWS it does not."""
        with contextlib.suppress(ClientError):  # it has been asked to before
            ec2.authorize_security_group_ingress(
                GroupId=self.default_group(ec2), IpPermissions=[self.rule(22)]
            )

    def default_group(self, ec2: Any = None) -> str:
        by_name = [{"Name": "group-name", "Values": ["default"]}]
        found = (ec2 or self.ec2).describe_security_groups(Filters=by_name)
        return str(found["SecurityGroups"][0]["GroupId"])

    def rule(self, port: int, source: str = "127.0.0.0/8", last: int = 0) -> dict[str, Any]:
        return {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": last or port,
            "IpRanges": [{"CidrIp": source}],
        }

    def security_group(self, name: str, *rules: dict[str, Any]) -> str:
        made = self.ec2.create_security_group(GroupName=name, Description="x")["GroupId"]
        for each in rules:
            self.ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[each])
        return str(made)

    def run(self, name: str = "", ec2: Any = None, **more: Any) -> dict[str, Any]:
        """Launch one instance of the known AMI."""
        asked = {"ImageId": local.KNOWN_AMI, "InstanceType": "m5.large", "KeyName": "local"}
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name or "one"}]}]
        answer = (ec2 or self.ec2).run_instances(
            **{**asked, "TagSpecifications": tags, "MinCount": 1, "MaxCount": 1, **more}
        )
        return dict(answer["Instances"][0])

    def template(self, name: str, **data: Any) -> str:
        asked = {"ImageId": local.KNOWN_AMI, "InstanceType": "m5.xlarge", "KeyName": "local"}
        made = self.ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={**asked, **data}
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def group(self, name: str, size: int, **more: Any) -> None:
        """A group of `size` instances from a template of its own."""
        template = more.pop("template", None) or self.template(name)
        self.asg.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=100,
            DesiredCapacity=size,
            AvailabilityZones=["us-east-1a"],
            LaunchTemplate={"LaunchTemplateId": template, "Version": "$Latest"},
            **more,
        )

    def members(self, name: str) -> list[str]:
        groups = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return [i["InstanceId"] for i in groups["AutoScalingGroups"][0]["Instances"]]

    def health(self, name: str) -> dict[str, str]:
        groups = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        members = groups["AutoScalingGroups"][0]["Instances"]
        return {each["InstanceId"]: each["HealthStatus"] for each in members}

    def states(self, ids: list[str]) -> set[str]:
        found = self.ec2.describe_instances(InstanceIds=ids)["Reservations"]
        return {i["State"]["Name"] for r in found for i in r["Instances"]}

    def address(self, instance_id: str) -> str:
        found = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return str(found[0]["Instances"][0]["PublicIpAddress"])


@pytest.fixture(scope="session")
def aws(standin: StandIn) -> Aws:
    return Aws(standin)


@pytest.fixture(scope="session")
def machine(aws: Aws) -> dict[str, Any]:
    """An instance for tests that change nothing in it but files of their own."""
    return aws.run("shared")


@contextlib.contextmanager
def fault(aws: Aws, *texts: str) -> Iterator[None]:
    for text in texts:
        local.inject(aws.home, text)
    try:
        yield
    finally:
        local.inject(aws.home, "clear")


def eventually(look: Callable[[], T], within: float = 5.0) -> T:
    """What `look` returns once that is true; the last answer when it never is."""
    deadline = time.monotonic() + within
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


async def connect(aws: Aws, address: str, **more: Any) -> asyncssh.SSHClientConnection:
    """Connect as soon as SSH answers."""
    key = str(aws.home / "local" / "local.pem")
    asked = {"username": "ubuntu", "client_keys": [key], "known_hosts": None, "config": []}
    deadline = time.monotonic() + 5
    while True:
        try:
            return await asyncssh.connect(address, aws.ssh_port, **{**asked, **more})
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.03)


def on(
    aws: Aws, address: str, work: Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, T]]
) -> T:
    """The result of `work` with a connection to the instance at `address`."""

    async def connected() -> T:
        async with await connect(aws, address) as connection:
            result = await asyncio.wait_for(work(connection), 20)
        return result  # noqa: RET504 - for mypy, a connection that closes may swallow exceptions

    return asyncio.run(connected())


def shell(aws: Aws, address: str, command: str, **more: Any) -> asyncssh.SSHCompletedProcess:
    return on(aws, address, lambda connection: connection.run(command, **more))


# --- the process ---------------------------------------------------------------------------


def test_importing_it_is_cheap() -> None:
    """`import bilbo.local` brings in neither moto nor asyncssh nor boto3."""
    code = "import sys, bilbo.local; print({'moto','asyncssh','boto3','flask'} & set(sys.modules))"
    root = Path(local.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "set()", done.stderr


def test_start_is_idempotent_and_two_homes_run_at_once(aws: Aws, tmp_path: Path) -> None:
    """A second start is the first one's stand-in; another home has addresses of its own; after
    a stop nothing is left running, and the next start has the same addresses again."""
    assert local.start(aws.home) == local.target(aws.home) == aws.target
    other = local.start(tmp_path)
    try:
        assert other.endpoint_url != aws.target.endpoint_url
        there = Aws(StandIn(tmp_path, other))
        instance = there.run()
        here = aws.run()
        assert instance["PrivateIpAddress"].split(".")[1] != here["PrivateIpAddress"].split(".")[1]
        shell(there, instance["PublicIpAddress"], "setsid sleep 300 >/dev/null 2>&1 &")
        mark = str(tmp_path.resolve() / "local")
        assert of_standin(mark)
        status = local.status(tmp_path)
        assert status and [i["instance_id"] for i in status.instances] == [instance["InstanceId"]]
        local.stop(tmp_path)
        assert not of_standin(mark)
        assert not Path(f"/proc/{status.pid}").exists()
        assert local.target(tmp_path) is None and local.status(tmp_path) is None
        assert local.owns(tmp_path, str(other.endpoint_url))
        assert not local.owns(tmp_path, str(aws.target.endpoint_url))
        again = local.start(tmp_path)
        assert (again.endpoint_url, again.ssh_port) == (other.endpoint_url, other.ssh_port)
        assert Aws(StandIn(tmp_path, again)).run()["PrivateIpAddress"] == str(
            instance["PrivateIpAddress"]
        )
    finally:
        local.stop(tmp_path)
    with pytest.raises(LocalError, match="does not run"):
        local.inject(tmp_path, "clear")


@pytest.mark.standin
def test_a_killed_standin_is_followed_by_a_clean_one(tmp_path: Path) -> None:
    """After SIGKILL of the server, the next start, by several at once, ends what was left."""
    first = local.start(tmp_path)
    try:
        aws = Aws(StandIn(tmp_path, first))
        shell(aws, aws.run()["PublicIpAddress"], "setsid sleep 300 >/dev/null 2>&1 &")
        status = local.status(tmp_path)
        assert status
        os.kill(status.pid, 9)
        assert eventually(lambda: local.target(tmp_path) is None)
        targets: list[Any] = []
        threads = [
            threading.Thread(target=lambda: targets.append(local.start(tmp_path))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(targets) == 3 and targets[0] == targets[1] == targets[2]
        assert not of_standin(str(tmp_path.resolve() / "local"))
    finally:
        local.stop(tmp_path)


@pytest.mark.standin
def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    """A server that cannot come up is a LocalError with its last words."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "local.pem").write_text("no key")
    with pytest.raises(LocalError) as caught:
        local.start(tmp_path)
    assert "ended at once" in caught.value.what
    assert any("key" in line.lower() for line in caught.value.details)


def test_files_are_the_owners_alone(aws: Aws) -> None:
    """State, key and credentials cannot be read by others."""
    for name in ("state.json", "local.pem", "aws-credentials"):
        assert (aws.home / "local" / name).stat().st_mode & 0o077 == 0


def test_it_listens_on_loopback_only(aws: Aws, machine: dict[str, Any]) -> None:
    """Every listening socket of the server process is in 127.0.0.0/8."""
    status = local.status(aws.home)
    assert status
    folder = Path(f"/proc/{status.pid}/fd")
    links = (str(fd.readlink()) for fd in folder.iterdir() if fd.is_symlink())
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert addresses and all(address[6:8] == "7F" for address in addresses)
    six = [row.split() for row in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    assert not [row for row in six if row[3] == "0A" and row[9] in inodes]


def test_the_environment_leads_to_it_and_nowhere_else(aws: Aws, tmp_path: Path) -> None:
    """boto3 in the environment of a caller with a profile, token and proxies of their own."""
    config = tmp_path / "config"
    config.write_text("[profile mine]\nregion = eu-west-1\nsso_session = none\n")
    theirs = {
        "AWS_PROFILE": "mine",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SESSION_TOKEN": "stale",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9",
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere",
    }
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **theirs, **aws.target.environment},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "123456789012", done.stderr


def test_strangers_are_refused(aws: Aws) -> None:
    """Who does not have the stand-in's access key cannot run commands through it."""
    stranger = boto3.client(
        "ec2",
        "us-east-1",
        endpoint_url=aws.target.endpoint_url,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="x",
    )
    with pytest.raises(ClientError, match="AuthFailure"):
        stranger.describe_instances()


# --- SSH -----------------------------------------------------------------------------------


def test_commands_are_real_processes_in_a_home_of_their_own(
    aws: Aws, machine: dict[str, Any]
) -> None:
    """Home, working folder, PATH and a clean environment, in plain and in login shells."""
    address = machine["PublicIpAddress"]
    assert address.startswith("127.")
    home = aws.home / "local" / "instances" / machine["InstanceId"] / "home"
    done = shell(aws, address, 'pwd; echo "$HOME"; command -v python; bash -lc "command -v python"')
    python = str(Path(sys.executable).parent / "python")
    assert str(done.stdout).split() == [str(home), str(home), python, python]
    names = {line.split("=")[0] for line in str(shell(aws, address, "env").stdout).splitlines()}
    foreign = [n for n in names if n.startswith(("AWS_", "TF_", "JUPYTER_", "DASK_", "PYTEST_"))]
    assert foreign == ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]  # the machine's own
    assert "BILBO_INSTANCE" in names and "BILBO_HOME" not in names


def test_streams_exit_codes_and_signals(aws: Aws, machine: dict[str, Any]) -> None:
    """Standard input goes in, output, errors, exit codes and signals come back, in full."""
    address = machine["PublicIpAddress"]
    done = shell(aws, address, "cat; echo bad >&2; exit 7", input="good")
    assert (done.stdout, done.stderr, done.exit_status) == ("good", "bad\n", 7)
    killed = shell(aws, address, "kill -TERM $$")
    assert killed.exit_signal and killed.exit_signal[0] == "TERM"
    data = os.urandom(1 << 20) * 8
    echoed = shell(aws, address, "cat", input=data, encoding=None)
    assert echoed.stdout == data
    assert shell(aws, address, "exit 0").exit_status == 0


def test_a_terminal_where_one_is_asked_for(aws: Aws, machine: dict[str, Any]) -> None:
    """A PTY with the asked size, that changes with the client's window and knows Ctrl-C."""

    async def work(connection: asyncssh.SSHClientConnection) -> tuple[Any, ...]:
        sized = await connection.run(
            "tty; stty size", term_type="xterm", term_size=(91, 33), stderr=asyncssh.STDOUT
        )
        async with connection.create_process(term_type="xterm", term_size=(80, 24)) as process:
            process.stdin.write("PS1=; stty -echo; echo ready\n")
            while "ready" not in await process.stdout.readline():
                pass
            await asyncio.sleep(0.2)
            process.change_terminal_size(100, 40)
            # The trap is there before the size is told: a Ctrl-C between two programs of an
            # interactive shell may reach neither.
            process.stdin.write(
                "exec sh -c 'trap \"exit 5\" INT; stty size; while :; do sleep 0.1; done'\n"
            )
            while "40 100" not in (line := await process.stdout.readline()):
                assert line
            process.stdin.write("\x03")
            await process.wait()
            return sized, process.exit_status

    sized, status = on(aws, machine["PublicIpAddress"], work)
    assert "/dev/pts/" in sized.stdout and "33 91" in sized.stdout
    assert status == 5


def test_only_the_instances_key_opens_it(aws: Aws) -> None:
    """Another key pair's instance admits that key; a wrong key and a password are refused."""
    made = aws.ec2.create_key_pair(KeyName="other")["KeyMaterial"]
    address = aws.run(KeyName="other")["PublicIpAddress"]

    async def tries() -> str:
        other = asyncssh.import_private_key(made)
        async with await connect(aws, address, client_keys=[other]) as connection:
            said = str((await connection.run("echo in")).stdout)
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(aws, address)
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(aws, address, client_keys=[], password="x")
        return said

    assert asyncio.run(tries()) == "in\n"


def test_sftp_and_scp(aws: Aws, machine: dict[str, Any], tmp_path: Path) -> None:
    """Files go to and from the instance's home, by SFTP, SCP, and OpenSSH's own scp."""
    address = machine["PublicIpAddress"]
    (tmp_path / "a").write_text("payload")

    async def work(connection: asyncssh.SSHClientConnection) -> None:
        async with connection.start_sftp_client() as sftp:
            await sftp.put(tmp_path / "a", "by-sftp")
            await sftp.get("by-sftp", tmp_path / "b")
            assert (await sftp.realpath(".")).endswith(f"{machine['InstanceId']}/home")
        await asyncssh.scp(tmp_path / "a", (connection, "by-scp"))
        await asyncssh.scp((connection, "by-scp"), tmp_path / "c")

    on(aws, address, work)
    assert (tmp_path / "b").read_text() == (tmp_path / "c").read_text() == "payload"
    if shutil.which("scp"):
        options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
        options += ["-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
        key = str(aws.home / "local" / "local.pem")
        port = str(aws.ssh_port)
        subprocess.run(
            ["scp", "-q", *options, "-i", key, "-P", port, f"u@{address}:by-scp", tmp_path / "d"],
            check=True,
        )
        assert (tmp_path / "d").read_text() == "payload"


def test_a_client_that_goes_takes_its_command_along(aws: Aws, machine: dict[str, Any]) -> None:
    """The command of a lost connection gets SIGHUP; what it detached lives on."""
    address = machine["PublicIpAddress"]

    async def work(connection: asyncssh.SSHClientConnection) -> None:
        await connection.create_process("setsid sleep 311 </dev/null >/dev/null 2>&1 & sleep 312")
        await asyncio.sleep(0.5)
        connection.abort()

    on(aws, address, work)
    assert eventually(lambda: not shell(aws, address, "pgrep -f '[s]leep 312'").stdout)
    assert shell(aws, address, "pgrep -f '[s]leep 311' && pkill -f '[s]leep 311'").stdout


def test_tunnels(aws: Aws, machine: dict[str, Any]) -> None:
    """A port forwarded through the instance reaches what listens at its private address."""
    address = machine["PrivateIpAddress"]

    async def work(connection: asyncssh.SSHClientConnection) -> bytes:
        serve = "import socket,sys; s=socket.create_server(('%s',0)); print(s.getsockname()[1],"
        serve = serve % address + "flush=True); s.accept()[0].sendall(b'through')"
        process = await connection.create_process(f'python -c "{serve}"')
        port = int(await process.stdout.readline())
        reader, writer = await connection.open_connection(address, port)
        said = await reader.read()
        writer.close()
        return bytes(said)

    assert on(aws, address, work) == b"through"


# --- instances -----------------------------------------------------------------------------


def test_stop_start_reboot_terminate(aws: Aws) -> None:
    """A stopped machine has no process, no SSH and no public address; started it has its files,
    private address and host key again, and another public address; a reboot ends its processes;
    a terminated one is gone, home and all, and its address is the next one's."""
    instance = aws.run("life")
    address, ids = instance["PublicIpAddress"], [instance["InstanceId"]]
    mark = str(aws.home.resolve() / "local")

    async def host_key(address: str) -> bytes:
        async with await connect(aws, address) as connection:
            await connection.run("echo kept > file; setsid sleep 300 >/dev/null 2>&1 &")
            key = connection.get_server_host_key()
        return key.public_data if key else b""

    def dead() -> bool:
        return ids[0] not in of_standin(mark)

    before = asyncio.run(host_key(address))
    assert not dead()
    aws.ec2.stop_instances(InstanceIds=ids)
    assert eventually(dead, 1)
    with pytest.raises(OSError):
        socket.create_connection((address, aws.ssh_port), 1)
    asleep = aws.ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][0]
    assert "PublicIpAddress" not in asleep
    assert "Association" not in asleep["NetworkInterfaces"][0]
    aws.ec2.start_instances(InstanceIds=ids)
    moved = aws.address(ids[0])
    assert moved != address and asleep["PrivateIpAddress"] == instance["PrivateIpAddress"]
    assert str(shell(aws, moved, "cat file").stdout) == "kept\n"
    with pytest.raises(OSError):
        socket.create_connection((address, aws.ssh_port), 1)
    assert asyncio.run(host_key(moved)) == before
    aws.ec2.start_instances(InstanceIds=ids)
    aws.ec2.reboot_instances(InstanceIds=ids)
    assert eventually(dead, 1)
    assert aws.address(ids[0]) == moved
    assert asyncio.run(host_key(moved)) == before
    aws.ec2.terminate_instances(InstanceIds=ids)
    assert eventually(dead, 1)
    assert eventually(lambda: not (aws.home / "local" / "instances" / ids[0]).exists())
    time.sleep(network.REST_SECONDS)
    again = aws.run()
    assert again["PublicIpAddress"] == address
    aws.ec2.terminate_instances(InstanceIds=[again["InstanceId"]])


def test_a_machine_powers_itself_off(aws: Aws) -> None:
    """It stops, or is terminated where its instance or its launch template says so, and EC2 tells
    that it was the machine. The setting changes nothing else of it."""
    (group,) = (instance := aws.run("own-power"))["SecurityGroups"]

    def now() -> dict[str, Any]:
        found = aws.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])
        return dict(found["Reservations"][0]["Instances"][0])

    def ended(state: str) -> str:
        assert eventually(lambda: now()["State"]["Name"] == state)
        return str(now()["StateReason"]["Code"])

    for behavior in ("terminate", "stop"):
        aws.ec2.modify_instance_attribute(
            InstanceId=instance["InstanceId"],
            InstanceInitiatedShutdownBehavior={"Value": behavior},
        )
        told = aws.ec2.describe_instance_attribute(
            InstanceId=instance["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
        )
        assert told["InstanceInitiatedShutdownBehavior"] == {"Value": behavior}
    assert now()["SecurityGroups"] == [group]
    shell(aws, instance["PublicIpAddress"], "sudo systemctl poweroff")
    assert ended("stopped") == "Client.InstanceInitiatedShutdown"
    aws.ec2.start_instances(InstanceIds=[instance["InstanceId"]])
    assert not now().get("StateReason", {}).get("Code")
    aws.ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    assert ended("stopped") == "Client.UserInitiatedShutdown"
    aws.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    template = aws.template("own-power", InstanceInitiatedShutdownBehavior="terminate")
    instance = aws.run(LaunchTemplate={"LaunchTemplateId": template})
    shell(aws, instance["PublicIpAddress"], "sudo poweroff")
    assert ended("terminated") == "Client.InstanceInitiatedShutdown"


def test_every_start_is_a_boot() -> None:
    """A machine that is started again before anybody looks has gone down all the same. To start one
    that runs is no boot, and neither one that is gone, nor one that AWS has no room for, nor a
    reboot of a stopped one is carried out.
    """
    program = (
        "from types import SimpleNamespace as Some\n"
        "from moto.ec2.exceptions import EC2ClientError\n"
        "from moto.ec2.models.instances import Instance, InstanceState\n"
        "started = []\n"
        "Instance.start = Instance.reboot = lambda self: started.append(self.state)\n"
        "from bilbo.local import hooks\n"
        "from bilbo.local.faults import Faults\n"
        "world = Some(faults=Faults())\n"
        "hooks.count_boots(world)\n"
        "one = object.__new__(Instance)\n"
        "one.instance_type, one._placement = 't3.micro', Some(zone='us-east-1a')\n"
        "one.id, one._state = 'i-1', InstanceState('stopped', 80)\n"
        "def refused(ask):\n"
        "    try: ask()\n"
        "    except EC2ClientError as error: return error.code\n"
        "assert refused(one.reboot) == 'IncorrectState'\n"
        "world.faults.capacity = 0\n"
        "assert refused(one.start) == 'InsufficientInstanceCapacity' and not started\n"
        "world.faults.capacity = None\n"
        "one.start()\n"
        "one._state.name = 'running'\n"
        "one.start(), one.reboot()\n"
        "one._state.name = 'terminated'\n"
        "assert refused(one.start) == 'IncorrectInstanceState' and one.reboot() is None\n"
        "assert one.launch_time\n"
        "assert one.bilbo_boots == 2 and started == ['stopped', 'running', 'running']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_addresses_are_of_their_subnet(aws: Aws, machine: dict[str, Any]) -> None:
    """An instance's private address is in the CIDR of its subnet, and that in its VPC's."""
    (subnet,) = aws.ec2.describe_subnets(SubnetIds=[machine["SubnetId"]])["Subnets"]
    (vpc,) = aws.ec2.describe_vpcs(VpcIds=[machine["VpcId"]])["Vpcs"]
    inner, outer = IPv4Network(subnet["CidrBlock"]), IPv4Network(vpc["CidrBlock"])
    assert IPv4Address(machine["PrivateIpAddress"]) in inner
    assert inner.subnet_of(outer)


def test_a_templates_own_tags_stay_on_it(aws: Aws) -> None:
    """What is launched from a launch template, and its versions, have none of its own tags."""
    own = [{"Key": "only", "Value": "the template's"}]
    made = aws.ec2.create_launch_template(
        LaunchTemplateName="tagged",
        LaunchTemplateData={"ImageId": local.KNOWN_AMI, "InstanceType": "t3.micro"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": own}],
    )["LaunchTemplate"]
    assert made["Tags"] == own
    (version,) = aws.ec2.describe_launch_template_versions(
        LaunchTemplateId=made["LaunchTemplateId"]
    )["LaunchTemplateVersions"]
    assert not version["LaunchTemplateData"].get("TagSpecifications")
    aws.ec2.delete_launch_template(LaunchTemplateId=made["LaunchTemplateId"])


def test_every_region_has_addresses_of_its_own(aws: Aws, machine: dict[str, Any]) -> None:
    """Instances of two regions never share an address; key pair and AMI are in both."""
    other = aws.client("ec2", "eu-central-1")
    aws.admit_ssh(other)
    there = aws.run(ec2=other)
    assert there["PublicIpAddress"] != machine["PublicIpAddress"]
    assert shell(aws, there["PublicIpAddress"], "echo hallo").stdout == "hallo\n"


def test_an_address_in_use_is_refused(aws: Aws, machine: dict[str, Any]) -> None:
    """RunInstances with the private address of another instance, of its region or not."""
    for region in ("us-east-1", "eu-central-1"):
        with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
            aws.run(ec2=aws.client("ec2", region), PrivateIpAddress=machine["PrivateIpAddress"])


def test_names_lead_to_the_machine(aws: Aws, machine: dict[str, Any]) -> None:
    """An instance's public name is one that this machine resolves to its address."""
    assert socket.gethostbyname(machine["PublicDnsName"]) == machine["PublicIpAddress"]


def test_a_root_disk_has_its_images_size(aws: Aws) -> None:
    """A launch that changes the root disk's type alone takes its size from the AMI."""
    (image,) = aws.ec2.describe_images(ImageIds=[local.KNOWN_AMI])["Images"]
    root = image["RootDeviceName"]
    disk = {"DeviceName": root, "Ebs": {"VolumeType": "gp3", "DeleteOnTermination": True}}
    instance = aws.run(BlockDeviceMappings=[disk])
    by_instance = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    (volume,) = aws.ec2.describe_volumes(Filters=by_instance)["Volumes"]
    assert volume["Size"] == image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
    aws.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])


def test_a_mixed_policy_outlives_an_update(aws: Aws) -> None:
    """UpdateAutoScalingGroup of a size leaves the mixed instances policy as it was."""
    specification = {"LaunchTemplateId": aws.template("mixed"), "Version": "$Latest"}
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": specification,
            "Overrides": [{"InstanceType": "m5.large"}],
        }
    }
    aws.asg.create_auto_scaling_group(
        AutoScalingGroupName="mixed",
        MinSize=0,
        MaxSize=4,
        DesiredCapacity=0,
        AvailabilityZones=["us-east-1a"],
        MixedInstancesPolicy=policy,
    )
    aws.asg.update_auto_scaling_group(AutoScalingGroupName="mixed", MaxSize=5)
    (found,) = aws.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["mixed"])[
        "AutoScalingGroups"
    ]
    assert found["MaxSize"] == 5
    overrides = found["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
    assert [each["InstanceType"] for each in overrides] == ["m5.large"]
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="mixed", ForceDelete=True)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "m5.huge"}, "InvalidParameterValue"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"InstanceType": "m7g.large"}, "InvalidParameterValue"),
    ],
)
def test_what_is_not_there_is_refused(aws: Aws, asked: dict[str, Any], code: str) -> None:
    """RunInstances refuses unknown things with AWS's codes."""
    with pytest.raises(ClientError) as caught:
        aws.run(**asked)
    assert caught.value.response["Error"]["Code"] == code


SERVE = """
import socket, threading
def echo(server):
    while True:
        client, _ = server.accept()
        threading.Thread(target=answer, args=(client,)).start()
def answer(client):
    with client:
        data = b''.join(iter(lambda: client.recv(1 << 16), b''))
        client.sendall(data)
for port in (8786, 8888, 9000):
    server = socket.create_server(('%s', port))
    threading.Thread(target=echo, args=(server,), daemon=True).start()
print('ready', flush=True)
threading.Event().wait()
"""


def send(connection: socket.socket, data: bytes) -> None:
    """Send all, and that it is all; whoever reads sees what came of it."""
    with contextlib.suppress(OSError):
        connection.sendall(data)
        connection.shutdown(1)


KNOCK = """
import contextlib, socket
with socket.create_connection(('%s', %d), 5) as made, contextlib.suppress(TimeoutError):
    made.sendall(b'hi')
    made.shutdown(1)
    made.settimeout(2)
    print(made.recv(9).decode(), end='')
"""


def reached(address: str, port: int, source: str = "127.0.0.1", data: bytes = b"said") -> str:
    """What comes of a connection: `said`, `silent`, `refused`, or `reset` once it is made."""
    try:
        made = socket.create_connection((address, port), 1, source_address=(source, 0))
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    with made:
        made.settimeout(20)
        sender = threading.Thread(target=send, args=(made, data))
        sender.start()
        try:
            got = b"".join(iter(lambda: made.recv(1 << 16), b""))
        except ConnectionError:
            return "reset"
        finally:
            sender.join()
        return "said" if got == data else "other"


def test_security_groups_are_in_force(aws: Aws) -> None:
    """The public address forwards what a machine's groups admit, from where they admit it; a port
    that bilbo serves is silent otherwise, any other refuses. An edit by hand is in force at once.
    A rule for a group's members opens nothing to the outside."""
    mine = aws.security_group(
        "in-force", aws.rule(22), aws.rule(8888, "127.0.0.1/32"), aws.rule(9000, "0.0.0.0/0")
    )
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": mine}]}
    aws.ec2.authorize_security_group_ingress(GroupId=mine, IpPermissions=[members])
    instance = aws.run("guarded", SecurityGroupIds=[mine])
    public, private = instance["PublicIpAddress"], instance["PrivateIpAddress"]
    shell(aws, public, f'setsid python -c "{SERVE % private}" >out 2>&1 </dev/null &')
    assert eventually(lambda: "ready" in str(shell(aws, public, "cat out").stdout))
    assert reached(public, 8888, data=os.urandom(1 << 20) * 8) == "said"
    assert reached(public, 8888, "127.0.0.2") == reached(public, 8786) == "silent"
    assert (reached(public, 9000, "127.0.0.2"), reached(public, 9001)) == ("said", "refused")
    assert reached(private, 8786, "127.0.0.2") == "said"
    # A machine is not among the people whose network is admitted.
    for where, answer in (((public, 8888), ""), ((public, 9000), "hi"), ((private, 8786), "hi")):
        assert shell(aws, public, "python -", input=KNOCK % where).stdout == answer
    wide = aws.rule(8000, "0.0.0.0/0", last=9999)
    aws.ec2.authorize_security_group_ingress(GroupId=mine, IpPermissions=[wide])
    assert eventually(lambda: reached(public, 8786) == "said")
    assert reached(public, 8787) == "reset"  # admitted, and nothing listens
    aws.ec2.revoke_security_group_ingress(GroupId=mine, IpPermissions=[wide, aws.rule(22)])
    assert eventually(lambda: reached(public, 8786) == "silent")
    assert eventually(lambda: reached(public, aws.ssh_port) == "silent")
    others = aws.security_group("others", aws.rule(22))
    aws.ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], Groups=[others])
    assert eventually(lambda: reached(public, 8888) == "silent")
    assert shell(aws, public, "echo in").stdout == "in\n"
    aws.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    assert eventually(lambda: reached(public, 8888) == "refused")


def test_user_data_have_a_limit(aws: Aws) -> None:
    """16 KiB of user data are taken and a byte more is refused, by launches and templates. Names in
    use and more than 50 tags are refused by moto itself."""
    most, more = (base64.b64encode(b"x" * length).decode() for length in (16384, 16385))
    aws.template("long", UserData=most)
    with pytest.raises(ClientError, match=r"InvalidUserData\.Malformed.*16384 bytes"):
        aws.template("longer", UserData=more)
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*16384 bytes"):
        aws.run(UserData="x" * 16385)
    with pytest.raises(ClientError, match=r"InvalidLaunchTemplateName\.AlreadyExists"):
        aws.template("long")
    asked = {"GroupName": "taken", "Description": "x"}
    aws.ec2.create_security_group(**asked)
    with pytest.raises(ClientError, match=r"InvalidGroup\.Duplicate"):
        aws.ec2.create_security_group(**asked)
    tags = [{"Key": f"k{n}", "Value": "v"} for n in range(51)]
    specified = [{"ResourceType": "security-group", "Tags": tags}]
    with pytest.raises(ClientError, match="TagLimitExceeded"):
        aws.ec2.create_security_group(
            GroupName="tagged", Description="x", TagSpecifications=specified
        )


def test_names_and_rules_have_limits(aws: Aws) -> None:
    """Names of templates and groups have a length and characters; a security group's knows no upper
    and lower case, and has 60 inbound rules of each address family."""
    for name in ("a", "a" * 129, "a b c"):
        with pytest.raises(ClientError, match=r"InvalidLaunchTemplateName\.Malformed"):
            aws.template(name)
    with pytest.raises(ClientError, match="ValidationError"):
        aws.group("a:b", 0, template=aws.template("limited"))
    for name in ("sg-mine", "a" * 256, "a|b", "한글"):
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            aws.ec2.create_security_group(GroupName=name, Description="x")
    group = aws.ec2.create_security_group(GroupName="Rules", Description="x")["GroupId"]
    with pytest.raises(ClientError, match=r"InvalidGroup\.Duplicate"):
        aws.ec2.create_security_group(GroupName="rULES", Description="x")

    def admit(port: int, in_4: int, in_6: int) -> None:
        networks = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        networks["IpRanges"] = [{"CidrIp": f"10.{port}.{n}.0/24"} for n in range(in_4)]
        networks["Ipv6Ranges"] = [{"CidrIpv6": f"fd00:{n}::/32"} for n in range(in_6)]
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[networks])

    admit(1, 59, 59)
    member = [
        {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 9, "UserIdGroupPairs": [{"GroupId": group}]}
    ]
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=member)
    for in_4, in_6 in ((1, 0), (0, 1)):
        with pytest.raises(ClientError, match="RulesPerSecurityGroupLimitExceeded"):
            admit(2, in_4, in_6)
    aws.ec2.delete_security_group(GroupId=group)


def test_the_account_has_quotas_and_a_key(aws: Aws, tmp_path: Path) -> None:
    """Service Quotas knows how many vCPUs may run, instances tell theirs, and the key that volumes
    get can be another one. Who may not ask is told so."""
    quotas, elsewhere = aws.client("service-quotas"), aws.client("ec2", "eu-west-1")
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}
    assert quotas.get_service_quota(**asked)["Quota"]["Value"] == 20_000
    policy = tmp_path / "policy.json"
    allowed = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    for name in ("deny=servicequotas:*", "expired", f"policy={policy}"):
        with fault(aws, name), pytest.raises(ClientError, match=r"AccessDenied|ExpiredToken"):
            quotas.get_service_quota(**asked)
    launched = aws.run(InstanceType="m5.2xlarge")
    assert launched["CpuOptions"] == {"CoreCount": 4, "ThreadsPerCore": 2}
    aws.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    key = aws.client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    assert elsewhere.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    elsewhere.modify_ebs_default_kms_key_id(KmsKeyId=key)
    assert elsewhere.get_ebs_default_kms_key_id()["KmsKeyId"] == key
    assert aws.ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"


def test_the_price_list(aws: Aws) -> None:
    """`pricing` answers with what it lists, mixed and in pages, as AWS does; spot prices are those
    of each zone. bilbo reads from it what ordinary machines, disks and addresses cost."""
    asked = {"ServiceCode": "AmazonEC2", "MaxResults": 5}
    pages = [*aws.client("pricing").get_paginator("get_products").paginate(**asked)]
    assert len(pages) > 10
    found = price_list(aws.target)
    assert found.machines["m5.xlarge"] == 0.192
    assert found.spot["t3.micro"] == pytest.approx(0.00312)
    assert (found.disk, found.address) == (0.08, 0.005)
    assert not found.old()
    elsewhere = price_list(replace(aws.target, region="eu-west-1"))
    assert (elsewhere.machines, elsewhere.spot, elsewhere.disk) == ({}, {}, None)
    history = aws.ec2.describe_spot_price_history(InstanceTypes=["t3.small"])["SpotPriceHistory"]
    assert len({each["AvailabilityZone"] for each in history}) == len(history) > 1
    with fault(aws, "deny=pricing:GetProducts"), pytest.raises(AwsError, match="price list"):
        price_list(aws.target)
    with fault(aws, "deny=ec2:DescribeSpotPriceHistory"):
        assert price_list(aws.target) == replace(found, spot={}, date=ANY)


def test_a_security_group_in_use_stays(aws: Aws) -> None:
    """A security group cannot be deleted, or made twice, while an instance is in it."""
    group = aws.ec2.create_security_group(GroupName="in-use", Description="x")["GroupId"]
    with pytest.raises(ClientError, match=r"InvalidGroup\.Duplicate"):
        aws.ec2.create_security_group(GroupName="in-use", Description="x")
    instance = aws.run(SecurityGroupIds=[group])["InstanceId"]
    with pytest.raises(ClientError, match="DependencyViolation"):
        aws.ec2.delete_security_group(GroupId=group)
    interfaces = len(aws.ec2.describe_network_interfaces()["NetworkInterfaces"])
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.ec2.delete_security_group(GroupId=group)
    assert len(aws.ec2.describe_network_interfaces()["NetworkInterfaces"]) == interfaces - 1


# --- Auto Scaling --------------------------------------------------------------------------


def test_a_group_from_the_template_version_it_names(aws: Aws) -> None:
    """A second template version with user data launches; its security group, public address,
    disk and tags are taken; no volume is left over."""
    sg = aws.security_group("pool", aws.rule(22))
    data = {
        "UserData": "ZWNobyBoaQ==",
        "NetworkInterfaces": [{"DeviceIndex": 0, "AssociatePublicIpAddress": True, "Groups": [sg]}],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 33, "DeleteOnTermination": True}}
        ],
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "pool-w"}]}
        ],
    }
    template = aws.template("pool")
    aws.ec2.create_launch_template_version(
        LaunchTemplateId=template,
        LaunchTemplateData={
            **data,
            "ImageId": local.KNOWN_AMI,
            "InstanceType": "m5.2xlarge",
            "KeyName": "local",
        },
    )
    volumes = {v["VolumeId"] for v in aws.ec2.describe_volumes()["Volumes"]}
    aws.group("pool", 2, template=template)
    ids = aws.members("pool")
    found = aws.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    instances = [i for r in found for i in r["Instances"]]
    assert len(instances) == 2
    for instance in instances:
        assert instance["InstanceType"] == "m5.2xlarge"
        assert [g["GroupId"] for g in instance["SecurityGroups"]] == [sg]
        tags = {t["Key"]: t["Value"] for t in instance["Tags"]}
        assert tags["Name"] == "pool-w" and tags["aws:autoscaling:groupName"] == "pool"
    new = [v for v in aws.ec2.describe_volumes()["Volumes"] if v["VolumeId"] not in volumes]
    assert [v["Size"] for v in new] == [33, 33]
    assert shell(aws, aws.address(ids[0]), "echo up").stdout == "up\n"
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="pool", ForceDelete=True)
    left = {v["VolumeId"] for v in aws.ec2.describe_volumes()["Volumes"]}
    assert not left & {v["VolumeId"] for v in new}


def test_protected_instances_stay_until_forced(aws: Aws) -> None:
    """Scaling in takes unprotected instances only; the group's name is taken; only a forced
    deletion ends protected instances, and then all of them."""
    aws.group("safe", 3, NewInstancesProtectedFromScaleIn=True)
    ids = aws.members("safe")
    aws.asg.set_desired_capacity(AutoScalingGroupName="safe", DesiredCapacity=1)
    time.sleep(1)
    assert sorted(aws.members("safe")) == sorted(ids)
    aws.asg.set_instance_protection(
        AutoScalingGroupName="safe", InstanceIds=[ids[1]], ProtectedFromScaleIn=False
    )
    assert eventually(lambda: len(aws.members("safe")) == 2)
    assert sorted(aws.members("safe")) == sorted([ids[0], ids[2]])
    told = aws.asg.describe_scaling_activities(AutoScalingGroupName="safe")["Activities"]
    assert f"Terminating EC2 instance: {ids[1]}" in {each["Description"] for each in told}
    with pytest.raises(ClientError, match="AlreadyExists"):
        aws.group("safe", 1, template=aws.template("safe-2"))
    with pytest.raises(ClientError, match="ResourceInUse"):
        aws.asg.delete_auto_scaling_group(AutoScalingGroupName="safe")
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="safe", ForceDelete=True)
    assert aws.states(ids) == {"terminated"}


def test_a_group_replaces_what_it_lost(aws: Aws) -> None:
    """Instances terminated or stopped by hand are replaced within two seconds, and noted."""
    aws.group("whole", 2)
    first, second = aws.members("whole")
    aws.ec2.terminate_instances(InstanceIds=[first])
    aws.ec2.stop_instances(InstanceIds=[second])
    assert eventually(
        lambda: len(set(aws.members("whole")) - {first, second}) == 2 and len(aws.members("whole")),
        2.5,
    )
    assert aws.states([first, second]) == {"terminated"}
    told = aws.asg.describe_scaling_activities(AutoScalingGroupName="whole")["Activities"]
    assert sum(a["Description"].startswith("Terminating") for a in told) == 2
    assert sum(a["Description"].startswith("Launching") for a in told) == 4
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="whole", ForceDelete=True)


def test_what_is_suspended_is_not_done(aws: Aws) -> None:
    """Without ReplaceUnhealthy an ended instance stays, unhealthy; without Launch nothing comes,
    whoever asks for more, until it is resumed; without Terminate nothing goes."""
    name = "still"
    aws.group(name, 2)
    first, second = aws.members(name)
    aws.asg.suspend_processes(
        AutoScalingGroupName=name, ScalingProcesses=["Launch", "ReplaceUnhealthy", "Terminate"]
    )
    aws.ec2.terminate_instances(InstanceIds=[first])
    assert eventually(lambda: aws.health(name) == {first: "Unhealthy", second: "Healthy"}, 3)
    aws.asg.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)
    time.sleep(1)
    assert aws.members(name) == [first, second]
    aws.asg.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    aws.asg.terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    time.sleep(1)
    assert aws.members(name) == [second]
    aws.asg.resume_processes(AutoScalingGroupName=name, ScalingProcesses=["Launch"])
    assert eventually(lambda: len(aws.members(name)) == 2, 3)
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def test_pending_instances_count_and_cannot_be_protected(aws: Aws) -> None:
    """What a group launches is pending first: it counts, takes no protection, and is not running;
    a shortage fails while the others are pending."""
    status = local.status(aws.home)
    assert status
    living = sum(i["state"] == "running" for i in status.instances)
    with fault(aws, f"capacity={living + 1}", "pending=2"):
        aws.group("coming", 2)
        (instance,) = aws.members("coming")
        assert aws.states([instance]) == {"pending"}
        told = aws.asg.describe_scaling_activities(AutoScalingGroupName="coming")["Activities"]
        assert {each["StatusCode"] for each in told} == {"Successful", "Failed"}
        protect = {"AutoScalingGroupName": "coming", "ProtectedFromScaleIn": True}
        with pytest.raises(ClientError, match="is not in InService"):
            aws.asg.set_instance_protection(InstanceIds=[instance], **protect)
        assert eventually(lambda: aws.states([instance]) == {"running"}, 5)
        assert aws.members("coming") == [instance]
        aws.asg.set_instance_protection(InstanceIds=[instance], **protect)
        with pytest.raises(ClientError, match="InsufficientInstanceCapacity") as refused:
            aws.run()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="coming", ForceDelete=True)


def test_a_group_with_a_bad_template_is_refused(aws: Aws) -> None:
    """CreateAutoScalingGroup names what the template lacks, and makes nothing."""
    template = aws.template("bad", ImageId="ami-00000000000000000")
    with pytest.raises(ClientError, match="does not exist") as caught:
        aws.group("bad", 1, template=template)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert not aws.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["bad"])[
        "AutoScalingGroups"
    ]


@pytest.mark.parametrize("denied", ["deny=iam:PassRole", "policy"])
def test_a_group_passes_its_templates_role(aws: Aws, tmp_path: Path, denied: str) -> None:
    """Who may not pass the role of a template's instance profile may have no group launch from it,
    neither a new one nor one that takes up the template."""
    plain, template = (
        f"plain-{denied[:4]}",
        aws.template(f"role-{denied[:4]}", IamInstanceProfile={"Name": "reader"}),
    )
    if denied == "policy":
        statement = {"Effect": "Allow", "Action": ["ec2:*", "autoscaling:*"], "Resource": "*"}
        file = tmp_path / "policy.json"
        file.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        denied = f"policy={file}"
    aws.group(plain, 0)
    taken = {"LaunchTemplateId": template, "Version": "$Latest"}
    with fault(aws, denied):
        with pytest.raises(ClientError, match=f"not authorized to use launch template: {template}"):
            aws.group("role", 0, template=template)
        with pytest.raises(ClientError, match="not authorized to use launch template"):
            aws.asg.update_auto_scaling_group(AutoScalingGroupName=plain, LaunchTemplate=taken)
    aws.asg.update_auto_scaling_group(AutoScalingGroupName=plain, LaunchTemplate=taken)
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName=plain, ForceDelete=True)
    aws.ec2.delete_launch_template(LaunchTemplateId=template)


# --- faults --------------------------------------------------------------------------------


def test_a_shortage(aws: Aws) -> None:
    """A group gets what there is and a failed activity in AWS's words, RunInstances is refused;
    when the shortage ends the group grows by itself."""
    status = local.status(aws.home)
    assert status
    living = sum(i["state"] == "running" for i in status.instances)
    with fault(aws, f"capacity={living + 2}"):
        aws.group("short", 4)
        assert len(aws.members("short")) == 2
        told = aws.asg.describe_scaling_activities(AutoScalingGroupName="short")["Activities"]
        assert told[0]["StatusCode"] == "Failed" and told[0]["Progress"] == 100
        assert told[0]["StatusMessage"].startswith(
            "We currently do not have sufficient m5.xlarge capacity in the Availability Zone "
            "you requested (us-east-1a)."
        )
        assert told[0]["StatusMessage"].endswith("Launching EC2 instance failed.")
        with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
            aws.run()
    assert eventually(lambda: len(aws.members("short")) == 4, 2.5)
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="short", ForceDelete=True)
    with fault(aws, "limit=0"), pytest.raises(ClientError, match="VcpuLimitExceeded"):
        aws.run()


def mixed(aws: Aws, name: str, size: int, *types: str, **distribution: Any) -> None:
    """A group that buys so; without a `distribution` all of it is spot."""
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {
                "LaunchTemplateId": aws.template(name),
                "Version": "$Latest",
            },
            "Overrides": [{"InstanceType": each} for each in types],
        },
        "InstancesDistribution": {
            "OnDemandBaseCapacity": 0,
            "OnDemandPercentageAboveBaseCapacity": 0,
            **distribution,
        },
    }
    aws.asg.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=9,
        DesiredCapacity=size,
        AvailabilityZones=["us-east-1a"],
        MixedInstancesPolicy=policy,
    )


def bought(aws: Aws, name: str) -> list[tuple[str, str]]:
    """Each member's type, and how it was bought."""
    found = aws.ec2.describe_instances(InstanceIds=aws.members(name))["Reservations"]
    return sorted(
        (each["InstanceType"], each.get("InstanceLifecycle", "on demand"))
        for one in found
        for each in one["Instances"]
    )


def test_a_group_buys_as_its_policy_says(aws: Aws) -> None:
    """The base runs on demand, as the first type, the rest is spot of all types; only spot
    instances are listed as such."""
    mixed(aws, "buys", 5, "m5.large", "m5a.large", OnDemandBaseCapacity=2)
    assert bought(aws, "buys") == [
        ("m5.large", "on demand"),
        ("m5.large", "on demand"),
        ("m5.large", "spot"),
        ("m5.large", "spot"),
        ("m5a.large", "spot"),
    ]
    by_group = {"Name": "tag:aws:autoscaling:groupName", "Values": ["buys"]}
    spot = {"Name": "instance-lifecycle", "Values": ["spot"]}
    found = aws.ec2.describe_instances(Filters=[by_group, spot])["Reservations"]
    assert sum(len(each["Instances"]) for each in found) == 3
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="buys", ForceDelete=True)


def test_a_shortage_of_spot(aws: Aws) -> None:
    """Auto Scaling goes on trying spot, and never launches on demand instead; a raised base
    does."""
    living = len(aws.ec2.describe_instances(
        Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]},
                 {"Name": "instance-state-name", "Values": ["running"]}]
    )["Reservations"])  # fmt: skip
    with fault(aws, f"spot_capacity={living + 1}"):
        mixed(aws, "scarce", 3, "m5.large")
        assert bought(aws, "scarce") == [("m5.large", "spot")]
        told = aws.asg.describe_scaling_activities(AutoScalingGroupName="scarce")["Activities"]
        assert told[0]["StatusCode"] == "Failed"
        assert told[0]["StatusMessage"].startswith("Could not launch Spot Instances. Unfulfillable")
        (group,) = aws.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["scarce"])[
            "AutoScalingGroups"
        ]
        policy = group["MixedInstancesPolicy"]
        policy["LaunchTemplate"]["LaunchTemplateSpecification"].pop("LaunchTemplateName")
        policy["InstancesDistribution"]["OnDemandBaseCapacity"] = 2
        aws.asg.update_auto_scaling_group(
            AutoScalingGroupName="scarce", MixedInstancesPolicy=policy
        )
        assert eventually(lambda: len(aws.members("scarce")) == 3)
    assert [how for _, how in bought(aws, "scarce")] == ["on demand", "on demand", "spot"]
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="scarce", ForceDelete=True)


NOTICE = """
cd "$HOME"; at=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
curl -s -o /dev/null -w "%{http_code} " "$at/meta-data/instance-life-cycle"
token=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$at/api/token")
ask() { curl -s -w " %{http_code} " -H "X-aws-ec2-metadata-token: $token" "$at/meta-data/$1"; }
ask instance-id; ask instance-life-cycle; ask spot/instance-action
"""


def test_a_spot_instance_is_taken_back(aws: Aws) -> None:
    """The notice is in the instance's metadata, for whoever has a token; then AWS ends it and says
    why. On demand nothing happens."""
    mixed(aws, "taken", 2, "m5.large", OnDemandBaseCapacity=1)
    found = aws.ec2.describe_instances(InstanceIds=aws.members("taken"))["Reservations"]
    members = [each for one in found for each in one["Instances"]]
    spot = next(each for each in members if "InstanceLifecycle" in each)
    other = next(each for each in members if "InstanceLifecycle" not in each)
    name = spot["InstanceId"]
    said = str(shell(aws, spot["PublicIpAddress"], NOTICE).stdout)
    assert said == f"401 {name} 200 spot 200  404 "
    aws.asg.suspend_processes(AutoScalingGroupName="taken", ScalingProcesses=["ReplaceUnhealthy"])
    for each in (name, other["InstanceId"]):
        local.inject(aws.home, f"spot={each}:3")
    told: list[str] = []

    def announced() -> bool:
        told.append(str(shell(aws, spot["PublicIpAddress"], NOTICE).stdout))
        return '"action": "terminate"' in told[-1]

    assert eventually(announced, 2.5), told
    assert eventually(lambda: aws.states([name]) == {"terminated"}, 10)
    (gone,) = aws.ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"]
    assert gone["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert aws.states([other["InstanceId"]]) == {"running"}
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="taken", ForceDelete=True)


def test_sick_hosts(aws: Aws) -> None:
    """A host refuses, stays silent, rejects the key, boots slowly; and is well when cleared."""
    port = aws.ssh_port
    names = ["sick#1:refuse", "sick#2:silent", "sick#3:reject"]
    with fault(aws, *(f"ssh={name}" for name in names)):
        addresses = [aws.run("sick")["PublicIpAddress"] for _ in range(4)]
        shell(aws, addresses[3], "true")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((addresses[0], port), 1)
        with socket.create_connection((addresses[1], port), 1) as silent:
            silent.settimeout(0.5)
            with pytest.raises(TimeoutError):
                silent.recv(1)
        with pytest.raises(asyncssh.PermissionDenied):
            shell(aws, addresses[2], "true")
    for address in addresses[:3]:
        # A connection made while the fault was in force may still be its victim.
        assert eventually(lambda a=address: _works(aws, a))  # type: ignore[misc]
    with fault(aws, "boot=1.5"):
        began = time.monotonic()
        address = aws.run("slow")["PublicIpAddress"]
        shell(aws, address, "true")
        assert time.monotonic() - began > 1.4


def _works(aws: Aws, address: str) -> bool:
    try:
        return shell(aws, address, "true").exit_status == 0
    except (OSError, asyncssh.Error):
        return False


def test_denied_and_expired(aws: Aws) -> None:
    """A missing permission and expired credentials are refused as each service does."""
    with fault(aws, "deny=ec2:RunInstances", "deny=autoscaling:Create*"):
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:RunInstances"):
            aws.run()
        with pytest.raises(ClientError, match=r"AccessDenied.*CreateAutoScalingGroup"):
            aws.group("denied", 1)
        aws.ec2.describe_instances()
    with fault(aws, "deny=iam:PassRole"):
        aws.run()
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*iam:PassRole"):
            aws.run(IamInstanceProfile={"Name": "x"})
    with fault(aws, "expired"):
        with pytest.raises(ClientError, match="RequestExpired"):
            aws.ec2.describe_instances()
        with pytest.raises(ClientError, match="ExpiredToken"):
            aws.client("sts").get_caller_identity()


def test_only_what_the_policy_allows(aws: Aws, tmp_path: Path) -> None:
    """moto's own check lets through what a policy allows, in the words of each service; what AWS
    checks beside an action is checked too."""
    objects = "arn:aws:s3:::ruled-states/a/*"
    allowed = {
        "*": ["ec2:DescribeInstances", "ec2:RunInstances", "autoscaling:*"],
        "arn:aws:s3:::ruled-states": ["s3:CreateBucket", "s3:GetEncryptionConfiguration"],
        objects: ["s3:GetObject", "s3:PutObject"],
    }
    region = {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": actions, "Resource": where, "Condition": region}
            for where, actions in allowed.items()
        ],
    }
    (tmp_path / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    s3 = aws.client("s3")
    template = aws.template("ruled", TagSpecifications=[
        {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}
    ])  # fmt: skip
    with fault(aws, f"policy={tmp_path / 'policy.json'}"):
        aws.ec2.describe_instances()
        aws.client("sts").get_caller_identity()
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:DescribeImages"):
            aws.ec2.describe_images()
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateTags"):
            aws.run()  # it gives tags
        with pytest.raises(ClientError, match=r"AccessDenied.*use launch template"):
            aws.group("ruled", 1, template=template)
        s3.create_bucket(Bucket="ruled-states")
        s3.put_object(Bucket="ruled-states", Key="a/b c", Body=b"x")
        s3.get_object(Bucket="ruled-states", Key="a/b c")
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.put_object(Bucket="ruled-states", Key="b", Body=b"x")
        with pytest.raises(ClientError, match="403"):
            s3.head_bucket(Bucket="ruled-states")
        with pytest.raises(ClientError, match="ServerSideEncryptionConfigurationNotFound"):
            s3.get_bucket_encryption(Bucket="ruled-states")
    aws.ec2.describe_images(Owners=["self"])
    with pytest.raises(UsageError, match="no IAM policy"):
        local.inject(aws.home, f"policy={tmp_path}")


def test_what_was_just_made_is_not_found(aws: Aws) -> None:
    """Under a lag, what is new is in no list and refused by id, and tags come later."""
    with fault(aws, "lag=300"):
        template = aws.template("late")
        with pytest.raises(ClientError, match=r"InvalidLaunchTemplateId\.NotFound"):
            aws.ec2.describe_launch_templates(LaunchTemplateIds=[template])
        made = aws.run("late")["InstanceId"]
        with pytest.raises(ClientError, match=rf"InvalidInstanceID\.NotFound.*{made}"):
            aws.ec2.describe_instances(InstanceIds=[made])
        by_name = [{"Name": "tag:Name", "Values": ["late"]}]
        assert aws.ec2.describe_instances(Filters=by_name)["Reservations"] == []
        aws.group("late", 1, template=template)
        (member,) = aws.members("late")
        with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
            aws.ec2.describe_instances(InstanceIds=[member])
        group = aws.ec2.create_security_group(GroupName="late", Description="x")["GroupId"]
        named = {each["GroupId"] for each in aws.ec2.describe_security_groups()["SecurityGroups"]}
        assert named
        assert group not in named
    assert aws.states([made, member]) == {"running"}
    with fault(aws, "lag=300"):
        old = aws.run("tagged", SecurityGroupIds=[group])["InstanceId"]
        aws.ec2.create_tags(Resources=[template], Tags=[{"Key": "new", "Value": "x"}])
    with fault(aws, "lag=0.001"):
        (found,) = aws.ec2.describe_instances(InstanceIds=[old])["Reservations"]
        assert found["Instances"][0]["SecurityGroups"] == [
            {"GroupName": "late", "GroupId": group}
        ]  # fmt: skip
    aws.asg.delete_auto_scaling_group(AutoScalingGroupName="late", ForceDelete=True)
    aws.ec2.terminate_instances(InstanceIds=[made, old])


def test_tags_come_later() -> None:
    """A tag that is given to what is there is not told of for as long as a new resource."""
    now = 0.0
    lag = Lag(clock=lambda: now)
    answer = (
        b'<?xml version="1.0"?><R xmlns="urn:x"><reservationSet><item><instancesSet><item>'
        b"<instanceId>i-00000001</instanceId><tagSet><item><key>new</key><value>x</value></item>"
        b"<item><key>old</key><value>x</value></item></tagSet></item></instancesSet></item>"
        b"</reservationSet></R>"
    )
    lag.note("CreateTags", "Action=CreateTags&ResourceId.1=i-00000001&Tag.1.Key=new", b"")
    told = lag.told("DescribeInstances", answer, 3.0)
    assert b"old" in told
    assert b"new" not in told
    now = 4.0
    assert lag.told("DescribeInstances", answer, 3.0) == answer


def test_token_buckets() -> None:
    """A bucket holds what AWS publishes, fills as fast, and is each action's own."""
    now = 0.0
    throttle = Throttle(clock=lambda: now)

    def let_in(action: str, calls: int, body: str = "", rate: float = 1.0) -> int:
        asked = [throttle.refuses(rate, action, "us-east-1", body) for _ in range(calls)]
        return asked.count(False)

    assert let_in("ec2:DescribeInstances", 120) == 100
    assert let_in("ec2:DescribeVolumes", 120) == 100
    assert let_in("ec2:CreateTags", 120) == 50
    assert let_in("ec2:RunInstances", 9) == 5
    assert let_in("s3:GetObject", 999) == 999
    now = 2.0
    assert let_in("ec2:DescribeInstances", 120) == 40
    assert let_in("ec2:RunInstances", 9) == 4
    now = 1000.0
    assert let_in("ec2:RunInstances", 2, "MinCount=1&MaxCount=1000") == 1  # the instances' bucket
    assert let_in("autoscaling:UpdateAutoScalingGroup", 99, rate=0.1) == 5


def test_bilbos_own_calls_survive_throttling(aws: Aws) -> None:
    """Under a hundredth of what AWS lets through, calls are refused; under a tenth, many at once
    are tried again and answered."""
    with fault(aws, "throttle=0.01"), pytest.raises(ClientError, match="RequestLimitExceeded"):
        once = Config(retries={"total_max_attempts": 1})
        ec2 = aws.client("ec2", config=once)
        for _ in range(60):
            ec2.describe_instances()
    local.calls(aws.home, reset=True)
    with fault(aws, "throttle=0.1"), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: machines(aws.target, "nobody"), range(8)))
    assert found == [[]] * 8
    asked = local.calls(aws.home)["ec2:DescribeInstances"]
    assert local.throttled(aws.home) == {"ec2:DescribeInstances": asked - 8}
    assert asked > 8  # the buckets are nearly empty yet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "capacity=",
        "boot=soon",
        "ssh=i-1:dead",
        "ssh=:refuse",
        "deny=x",
        "clear=1",
        "lag=",
        "throttle=0",
        "throttle=x",
        "policy=",
    ],
)
def test_a_wrong_fault_names_the_right_forms(aws: Aws, text: str) -> None:
    """What is no fault is refused with every form that is one, and changes nothing."""
    with pytest.raises(UsageError) as caught:
        local.inject(aws.home, text)
    assert caught.value.details == FORMS
    faults = Faults(boot=2)
    with pytest.raises(UsageError):
        faults.apply(text)
    assert faults == Faults(boot=2)


def test_calls_are_counted(aws: Aws) -> None:
    """The count of API calls by action, and its reset."""
    local.calls(aws.home, reset=True)
    aws.ec2.describe_instances()
    aws.ec2.describe_instances()
    aws.client("s3").list_buckets()
    counted = {"ec2:DescribeInstances": 2, "s3:ListAllMyBuckets": 1}
    assert local.calls(aws.home) == counted
    assert local.calls(aws.home, reset=True) == counted
    assert local.calls(aws.home) == {}


def test_what_moto_cannot_do_is_named_at_once(aws: Aws) -> None:
    """An action that moto lacks is an error that clients do not try again."""
    with pytest.raises(ClientError, match="EnableSerialConsoleAccess") as caught:
        aws.ec2.enable_serial_console_access()
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def test_s3_conditional_writes(aws: Aws) -> None:
    """`If-None-Match: *` lets one writer win, which Terraform's S3 lock file rests on."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="state")
    s3.put_object(Bucket="state", Key="lock", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="state", Key="lock", Body=b"2", IfNoneMatch="*")
    assert s3.get_object(Bucket="state", Key="lock")["Body"].read() == b"1"


# --- Terraform -----------------------------------------------------------------------------

TERRAFORM = """
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}
provider "aws" {}
variable "size" { type = number }
resource "aws_security_group" "this" {
  name = "tf-pool"
  ingress {
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["127.0.0.0/8"]
  }
}
resource "aws_launch_template" "this" {
  name          = "tf-pool"
  image_id      = "ami-0f49fa254e1806b72"
  instance_type = "m5.xlarge"
  key_name      = "local"
  network_interfaces {
    associate_public_ip_address = true
    security_groups             = [aws_security_group.this.id]
  }
}
resource "aws_autoscaling_group" "this" {
  name                  = "tf-pool"
  min_size              = var.size
  max_size              = var.size
  desired_capacity      = var.size
  availability_zones    = ["us-east-1a"]
  protect_from_scale_in = true
  force_delete          = true
  mixed_instances_policy {
    instances_distribution { on_demand_percentage_above_base_capacity = 100 }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.this.id
        version            = aws_launch_template.this.latest_version
      }
    }
  }
}
"""


def provider_mirror() -> Path | None:
    """A folder with Terraform providers on this machine's disk, if it has one."""
    for folder in sorted(Path("/opt").glob("*/registry.terraform.io")):
        return folder.parent
    implied = (".terraform.d/plugins", ".local/share/terraform/plugins")
    for place in (*(Path.home() / name for name in implied), Path("/usr/share/terraform/plugins")):
        if (place / "registry.terraform.io").is_dir():
            return place
    return None


def terraform(folder: Path, aws: Aws, *argv: str) -> subprocess.CompletedProcess[str]:
    config = folder / "cli.tfrc"
    mirror = provider_mirror()
    if mirror:
        path = json.dumps(str(mirror))
        config.write_text(f"provider_installation {{ filesystem_mirror {{ path = {path} }} }}\n")
    else:
        config.write_text("")
    mine = {"TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
    env = {**os.environ, **aws.target.environment, **mine, "TF_CLI_ARGS": "-no-color"}
    return subprocess.run(
        ["terraform", *argv],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )


def test_terraform_makes_and_destroys(aws: Aws, tmp_path: Path) -> None:
    """Terraform's AWS provider makes a group that can be reached, finds nothing to change
    afterwards, is told of a shortage at once, and leaves nothing."""
    (tmp_path / "main.tf").write_text(TERRAFORM)
    made = terraform(tmp_path, aws, "init")
    assert made.returncode == 0, made.stderr
    made = terraform(tmp_path, aws, "apply", "-auto-approve", "-var=size=2")
    assert made.returncode == 0, made.stderr
    members = aws.members("tf-pool")
    assert len(members) == 2
    assert shell(aws, aws.address(members[0]), "echo real").stdout == "real\n"
    with fault(aws, "capacity=0"):
        short = terraform(tmp_path, aws, "apply", "-auto-approve", "-var=size=3")
    assert short.returncode == 1
    assert "sufficient m5.xlarge capacity" in " ".join(short.stderr.split()), short.stderr
    assert eventually(lambda: len(aws.members("tf-pool")) == 3, 2.5)
    same = terraform(tmp_path, aws, "plan", "-detailed-exitcode", "-var=size=3")
    assert same.returncode == 0, same.stdout + same.stderr
    ids = aws.members("tf-pool")
    gone = terraform(tmp_path, aws, "destroy", "-auto-approve", "-var=size=2")
    assert gone.returncode == 0, gone.stderr
    assert aws.states(ids) == {"terminated"}
    left = aws.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["tf-pool"]}])
    assert not left["SecurityGroups"]


def test_links_into_a_machine_go_with_it(tmp_path: Path) -> None:
    """A link in /tmp that leads into an erased machine's folder goes, and no other does."""
    folder = tmp_path / "i-1"
    (folder / "home").mkdir(parents=True)
    inside, outside = (Path(f"/tmp/bilbo-{secrets.token_hex(8)}") for _ in range(2))
    inside.symlink_to(folder / "home")
    outside.symlink_to(tmp_path)
    try:
        erase(folder)
        assert not inside.is_symlink() and outside.is_symlink() and not folder.exists()
    finally:
        outside.unlink()
