"""Boots of stand-in hosts: their processes end, and their boot entries run."""

from __future__ import annotations

import asyncio
import base64
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import boto3
import pytest
from conftest import StandIn
from test_own_programs import listing
from waiting import eventually

from bilbo import local
from bilbo.local.boot_entries import user_data
from bilbo.local.processes import of_standin

UNIT = """[Service]
User=ubuntu
Environment=GREETING="hello 100%%"
ExecStart=/bin/bash -lc 'echo unit "$$USER" "$$GREETING" $(command -v sudo) >>boots'
[Install]
WantedBy=multi-user.target
"""
OWN = UNIT.replace("echo unit", "echo own").replace("User=ubuntu\n", "").replace(
    "multi-user", "default"
)  # fmt: skip
BY_PATH = "[Service]\nExecStart=/bin/sh -c 'echo by path >>boots; /usr/sbin/reboot'\n"
BY_PATH += "[Install]\nWantedBy=multi-user.target\n"


class Bootable:
    """An instance, and how to reach it."""

    def __init__(self, standin: StandIn, **more: Any) -> None:
        self.home, self.target = standin.home, standin.target
        self.ec2 = self.client(standin)
        tags: Any = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "bootable"}]}]
        made = self.ec2.run_instances(
            ImageId=local.KNOWN_AMI, InstanceType="m5.large", KeyName="local",
            MinCount=1, MaxCount=1, TagSpecifications=tags, **more,
        )["Instances"][0]  # fmt: skip
        self.id, self.address = made["InstanceId"], made["PrivateIpAddress"]
        self.folder = self.home / "local" / "instances" / self.id

    @staticmethod
    def client(standin: StandIn) -> Any:
        """EC2's."""
        env = standin.target.environment
        session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        return session.client("ec2", "us-east-1", endpoint_url=standin.target.endpoint_url)

    def run(self, command: str) -> str:
        """What a command says; waits for SSH."""

        async def asked() -> str:
            end = time.monotonic() + 10
            while True:
                try:
                    async with asyncssh.connect(
                        self.address, self.target.ssh_port or 22, username="ubuntu",
                        client_keys=[str(self.home / "local" / "local.pem")],
                        known_hosts=None, config=None,
                    ) as connection:  # fmt: skip
                        return str((await connection.run(command, check=True)).stdout)
                except (OSError, asyncssh.Error):
                    if time.monotonic() > end:
                        raise
                    await asyncio.sleep(0.1)

        return asyncio.run(asked())

    def boots(self) -> list[str]:
        """What boot entries have written so far."""
        path = self.folder / "home" / "boots"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def state(self) -> str:
        found = self.ec2.describe_instances(InstanceIds=[self.id])["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"])


def test_a_boot_ends_all_processes_and_runs_the_boot_entries(standin: StandIn) -> None:
    """By the fault, by EC2's reboot, by stop and start, and by a command on the host itself. To
    start a running machine is none. What names the machine underneath by path is not run."""
    host = Bootable(standin)
    host.run(
        "units=$(systemctl show -p UnitPath --value) && own=~/.config/systemd/user && "
        f"mkdir -p $own && printf %s {shlex.quote(UNIT)} | sudo tee $units/a.service && "
        f"printf %s {shlex.quote(BY_PATH)} | sudo tee $units/b.service && "
        f"printf %s {shlex.quote(OWN)} >$own/c.service && "
        "sudo systemctl enable a.service b.service && systemctl --user enable c.service && "
        "echo '@reboot echo line $USER >>boots' | crontab -"
    )
    own = f"{host.folder}/own/sudo"
    wanted = ["line ubuntu", f"unit ubuntu hello 100% {own}"]
    mark = str(host.home.resolve() / "local")

    def boot(cause: Callable[[], object]) -> None:
        (host.folder / "home" / "boots").unlink(missing_ok=True)
        host.run("setsid sleep 300 >/dev/null 2>&1 &")
        before = of_standin(mark)[host.id]
        cause()
        assert eventually(lambda: host.boots() == wanted), host.boots()
        assert not before & of_standin(mark).get(host.id, set())

    boot(lambda: local.inject(host.home, "reboot=bootable"))
    host.run("loginctl enable-linger")
    wanted.insert(1, f"own ubuntu hello 100% {own}")
    boot(lambda: host.ec2.reboot_instances(InstanceIds=[host.id]))
    boot(lambda: host.run("sudo reboot"))

    def stop_and_start() -> None:
        host.ec2.stop_instances(InstanceIds=[host.id])
        host.ec2.start_instances(InstanceIds=[host.id])

    boot(stop_and_start)
    host.ec2.start_instances(InstanceIds=[host.id])
    host.run("sudo shutdown -h now")
    assert eventually(lambda: host.state() == "stopped")
    assert host.boots() == wanted
    log = (host.home / "local" / "server.log").read_text()
    assert "b.service: not run: /usr/sbin/reboot is the computer's; call it by name" in log
    host.ec2.terminate_instances(InstanceIds=[host.id])


def test_a_disk_grows_with_its_volume(standin: StandIn) -> None:
    """ModifyVolume grows the disk of a running machine alone; the rest follows at a boot."""
    host = Bootable(standin)
    by_host = [{"Name": "attachment.instance-id", "Values": [host.id]}]
    (volume,) = host.ec2.describe_volumes(Filters=by_host)["Volumes"]
    before, after = volume["Size"], volume["Size"] + 5

    def sizes() -> list[int]:
        said = host.run("lsblk -bnro TYPE,SIZE /dev/nvme0n1")  # cut off by a reboot: fewer
        return [int(size) >> 30 for size in re.findall(r"(?m)^\w+ (\d+)$", said)]

    assert sizes() == [before, before]
    host.ec2.modify_volume(VolumeId=volume["VolumeId"], Size=after)
    assert eventually(lambda: sizes() == [after, before]), sizes()
    host.run("sudo growpart /dev/nvme0n1 1")
    assert sizes() == [after, after]
    host.ec2.modify_volume(VolumeId=volume["VolumeId"], Size=after + 1)
    host.run("sudo reboot")
    assert eventually(lambda: sizes() == [after + 1, after + 1]), sizes()
    host.ec2.terminate_instances(InstanceIds=[host.id])


def test_a_machine_may_terminate_itself(standin: StandIn) -> None:
    """If its instance was launched so, as on AWS."""
    host = Bootable(standin, InstanceInitiatedShutdownBehavior="terminate")
    host.run("sudo poweroff")
    assert eventually(lambda: host.state() == "terminated")


@pytest.mark.parametrize("text", ["reboot", "reboot="])
def test_a_reboot_needs_an_instance(text: str) -> None:
    """The fault names one."""
    from bilbo.errors import UsageError
    from bilbo.local.faults import Faults

    with pytest.raises(UsageError):
        Faults().apply(text)


SCRIPT = """#!/bin/bash
set -e
echo "$USER $PWD $(command -v sudo systemctl shutdown | sort -u | xargs -n1 dirname | sort -u)"
units=$(systemctl show -p UnitPath --value)
cat >"$units/d.service" <<END
[Service]
ExecStart=/bin/sh -c 'echo from user data >>boots'
[Install]
WantedBy=multi-user.target
END
systemctl enable d.service
echo once >>boots
"""


def test_a_unit_is_started_and_restarted(standin: StandIn) -> None:
    """By systemctl on the host, without a boot: a restart ends its last run, and a unit that names
    the machine underneath is not run."""
    host = Bootable(standin)
    unit = "[Service]\nExecStart=/bin/sh -c 'echo run $$$$ >>boots; exec sleep 300'\n"
    host.run(
        f"units=$(systemctl show -p UnitPath --value) && cd $units && "
        f"printf %s {shlex.quote(unit)} >e.service && printf %s {shlex.quote(BY_PATH)} >f.service "
        "&& sudo systemctl enable --now f && sudo systemctl start e.service"
    )
    first = eventually(host.boots)
    host.run("sudo systemctl restart --no-block e.service")
    assert eventually(lambda: len(host.boots()) == 2), first
    both = host.boots()
    assert all(line.startswith("run ") for line in both)
    mark = str(host.home.resolve() / "local")
    pids = {int(line.split()[1]) for line in both}
    assert eventually(lambda: len(pids & of_standin(mark).get(host.id, set())) == 1)
    host.ec2.terminate_instances(InstanceIds=[host.id])


@pytest.mark.parametrize("by", ["launch", "template"])
def test_user_data_run_at_the_first_boot_alone(standin: StandIn, by: str) -> None:
    """As root, in the machine's home, with its own programs; what they enable runs at later boots.
    Nothing of this machine changes."""
    before = listing()
    if by == "launch":
        host = Bootable(standin, UserData=SCRIPT)
    else:
        data = {"UserData": base64.b64encode(SCRIPT.encode()).decode()}
        Bootable.client(standin).create_launch_template(
            LaunchTemplateName="first-boot", LaunchTemplateData=data
        )
        host = Bootable(standin, LaunchTemplate={"LaunchTemplateName": "first-boot"})
    assert eventually(lambda: host.boots() == ["once"])
    output = host.folder / "var" / "log" / "cloud-init-output.log"
    assert output.read_text() == f"root {host.folder}/home {host.folder}/own\n"
    local.inject(host.home, f"reboot={host.id}")
    assert eventually(lambda: host.boots() == ["from user data", "once"]), host.boots()
    assert listing() == before
    host.ec2.terminate_instances(InstanceIds=[host.id])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#!/bin/sh\nexec /usr/bin/systemctl daemon-reload\n", "/usr/bin/systemctl is the"),
        ("#!/bin/sh\ncat /dev/null >'/etc/cron.d/x'\n", "/etc/cron.d/x is the computer's"),
        ("#!/bin/sh\necho b >/proc/sysrq-trigger\n", "/proc/sysrq-trigger is the computer's"),
        ("#!/bin/sh\nmkfs /dev/sdb\n", "/dev/sdb is the computer's"),
        ("#!/bin/sh\nrm -f /usr/lib/systemd/x.service\n", "/usr/lib/systemd/x.service is the"),
        ("#cloud-config\nruncmd: [reboot]\n", "only scripts"),
    ],
)  # fmt: skip
def test_user_data_that_are_refused(tmp_path: Path, text: str, why: str) -> None:
    """Nothing is run of what would reach this machine, or is no script; the machine's log says so,
    once in its life."""
    assert user_data(tmp_path, text.encode()) == []
    output = tmp_path / "var" / "log" / "cloud-init-output.log"
    assert why in output.read_text()
    assert user_data(tmp_path, text.encode()) == []
    assert len(output.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    ["/usr/bin/env true >/dev/null", 'mkdir -p "$HOME/etc/x" ~/var', "cat /proc/meminfo",
     "curl https://example.com/etc/x", "case $x in */etc/systemd/system) echo;; esac",
     "PATH=$PATH:/usr/local/bin"],
)  # fmt: skip
def test_user_data_that_are_not_refused(tmp_path: Path, line: str) -> None:
    """Programs by path that change nothing, and places of the machine's own."""
    (entry,) = user_data(tmp_path, f"#!/bin/sh\n{line}\n".encode())
    assert entry.user == "root" and Path(entry.commands[0][-1]).read_text().endswith(f"{line}\n")
