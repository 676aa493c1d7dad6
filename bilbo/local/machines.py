"""Keeps what runs on this machine in step with the instances that moto holds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from bilbo.local import spot_market as spot
from bilbo.local import ssh
from bilbo.local.admission import Admission, admission
from bilbo.local.boot_entries import BootEntry, boot_entries, unit_entry, user_data
from bilbo.local.hooks import World, all_instances, power, root_gib, tags_of
from bilbo.local.openings import Opening, Socket
from bilbo.local.processes import end_of_standin
from bilbo.local.standin_state import erase

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25  # seconds; a change by the API is looked at at once


@dataclass(frozen=True)
class Wanted:
    """A running instance as moto has it. `public` is empty where it has no public address.
    `user_data` are moto's, still encoded; `gib` is the size of its root volume; `names` are all
    that a fault may call it by.
    """

    instance_id: str
    address: str
    public: str
    admits: Admission
    public_key: bytes | None
    boots: int
    user_data: Any = None
    gib: int = 0
    names: tuple[str, ...] = ()


@dataclass
class LiveMachine:
    """A running instance as it is here. `shows` is what its sockets are open for."""

    wanted: Wanted
    host: ssh.Host
    opens_at: float
    shows: tuple[object, ...] = ()
    sockets: dict[tuple[str, int], Socket] = field(default_factory=dict)
    openings: dict[tuple[str, int], Opening] = field(default_factory=dict)
    booted: bool = False

    async def show(self, mode: str, *, up: bool) -> None:
        """Listen where and as the machine, its security groups and a fault's `mode` have it.

        Raises OSError when an address is taken; what could be opened is open.
        """
        self.host.rejects = mode == "reject"
        answers = up and mode != "refuse"
        shows = (answers, mode == "silent", self.wanted.public, self.wanted.admits)
        if shows == self.shows:
            return
        due = {(each.address, each.port): each for each in self._due(mode, answers=answers)}
        for place in [p for p, opening in self.openings.items() if due.get(p) != opening]:
            del self.openings[place]
            self.sockets.pop(place).close()
        failed: OSError | None = None
        for place, opening in due.items():
            if place not in self.openings:
                made = Socket(opening, self.host)
                try:
                    await made.open()
                except OSError as error:
                    failed = error
                else:
                    self.openings[place], self.sockets[place] = opening, made
        if failed:
            raise failed
        self.shows = shows

    def _due(self, mode: str, *, answers: bool) -> Iterator[Opening]:
        """What is to be open."""
        port, door = self.host.port, "mute" if mode == "silent" else "ssh"
        if answers:
            yield Opening(self.host.address, port, door)
        for number, networks in self.wanted.admits.items() if self.wanted.public else ():
            serves = door if number == port else "forward"
            if not networks:
                yield Opening(self.wanted.public, number, "silent", networks)
            elif number != port or answers:
                yield Opening(self.wanted.public, number, serves, networks)

    def close(self) -> None:
        """End the SSH server and all connections, as a machine does that loses its power."""
        for each in self.sockets.values():
            each.cut()
        self.sockets.clear()
        self.openings.clear()
        self.shows = ()
        for connection in list(self.host.connections):
            connection.abort()


class LiveMachines:
    """All machines. `changed` may be called from any thread to have them looked at now."""

    def __init__(
        self, world: World, folder: Path, port: int, mark: str, metadata: str = ""
    ) -> None:
        self._world = world
        self._folder = folder
        self._port = port
        self._mark = mark
        self._metadata = metadata
        self._machines: dict[str, LiveMachine] = {}
        self._host_keys: dict[str, asyncssh.SSHKey] = {}
        self._admits: dict[tuple[str, ...], Admission] = {}
        self._look = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._working: set[asyncio.Future[None]] = set()
        self._units: dict[tuple[str, ...], asyncio.Task[None]] = {}

    def changed(self) -> None:
        """Look at the machines now."""
        self._loop.call_soon_threadsafe(self._look.set)

    async def keep(self) -> None:
        """Look at the machines again and again; ends when cancelled, with all closed."""
        try:
            while True:
                try:
                    await self._reconcile()
                except Exception:
                    log.exception("machines and instances could not be brought in step")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._look.wait(), LOOK_EVERY)
                self._look.clear()
        finally:
            for machine in self._machines.values():
                machine.close()

    async def _reconcile(self) -> None:
        wanted, there = self._snapshot()
        gone = [
            machine
            for instance_id, machine in self._machines.items()
            if instance_id not in wanted or wanted[instance_id].boots != machine.wanted.boots
        ]
        if gone:
            await self._shut_down(gone)
        # Some were stopped long before they were terminated.
        for instance_id in self._host_keys.keys() - there:
            self._erase(instance_id)
        now = time.monotonic()
        for item in wanted.values():
            if item.instance_id not in self._machines:
                self._machines[item.instance_id] = self._machine(item, now)
        for instance_id, machine in self._machines.items():
            if machine.wanted.gib != wanted[instance_id].gib:
                ssh.size_disk(machine.host, wanted[instance_id].gib)
            machine.wanted = wanted[instance_id]
            up = machine.opens_at <= now
            if up and not machine.booted:
                machine.booted = True
                self._boot(machine)
            await self._show(machine, up=up)
        self._start_units()

    def _snapshot(self) -> tuple[dict[str, Wanted], set[str]]:
        """The running instances, and the ids of all that are not terminated for good."""
        asked = self._asked()
        with self._world.lock:
            alive = [i for i in all_instances() if i.state != "terminated"]
            faults = self._world.faults
            named = faults.ssh or faults.reboots or faults.notices
            names = _names(alive) if named else {}
            running = [i for i in alive if i.state == "running"]
            for instance in running:
                _give_notice(instance, names.get(instance.id, ()), faults.notices)
            faults.notices.clear()
            spot.take_due(running)
            running = [i for i in running if i.state == "running"]
            for instance in running:
                if faults.reboots & {*names.get(instance.id, ())}:
                    power(instance, "reboot")
                elif instance.id in asked:
                    power(instance, asked[instance.id])
            faults.reboots.clear()
            alive = [i for i in alive if i.state != "terminated"]
            admits = self._admissions(alive)
            wanted = {
                i.id: Wanted(
                    i.id,
                    i.private_ip,
                    i.public_ip or "",
                    admits[_groups(i)],
                    i.bilbo_key,
                    i.bilbo_boots,
                    i.user_data,
                    root_gib(i),
                    names.get(i.id, ()),
                )
                for i in alive
                if i.state == "running" and hasattr(i, "bilbo_key")
            }
            return wanted, {i.id for i in alive}

    def _admissions(self, instances: list[Any]) -> Mapping[tuple[str, ...], Admission]:
        """What each set of security groups admits; the same object while nothing has changed, so
        that machines see at a glance that they have nothing to do."""
        members = {_groups(each): each.security_groups for each in instances}
        for groups, before in [(key, self._admits.get(key)) for key in members]:
            now = admission(members[groups], self._port)
            self._admits[groups] = now if before is None or before != now else before
        return self._admits

    def _asked(self) -> dict[str, str]:
        """What machines have asked for since the last look: `reboot` or `poweroff`, by id."""
        return _requests(Path(self._mark, "power"))

    def _start_units(self) -> None:
        """Start the units that `systemctl start` or `restart` on a machine named, anew if they
        run."""
        for name, unit in _requests(Path(self._mark, "start")).items():
            machine = self._machines.get(name.partition(":")[0])
            entry = unit_entry(machine.host.folder, unit) if machine else None
            if machine and entry:
                self._run(machine.host, entry)

    def _run(self, host: ssh.Host, entry: BootEntry) -> None:
        """Run an entry; a unit in place of its last run."""
        is_unit = entry.where.suffix == ".service"
        key = (host.instance_id, entry.where.name, "" if is_unit else repr(entry.commands))
        if key in self._units:
            self._units[key].cancel()
        task = self._units[key] = asyncio.ensure_future(ssh.run_entry(host, entry))
        task.add_done_callback(lambda _: self._units.get(key) is task and self._units.pop(key))

    def _boot(self, machine: LiveMachine) -> None:
        """Run the machine's boot entries and, at its first boot, its user data, all at once."""
        host, data = machine.host, machine.wanted.user_data
        ssh.make_home(host)
        given = base64.b64decode(str(data)) if data else b""
        for entry in [*boot_entries(host.folder), *user_data(host.folder, given)]:
            self._run(host, entry)

    def _machine(self, wanted: Wanted, now: float) -> LiveMachine:
        instance_id = wanted.instance_id
        if instance_id not in self._host_keys:
            self._host_keys[instance_id] = asyncssh.generate_private_key("ssh-ed25519")
        host = ssh.Host(
            instance_id=instance_id,
            address=wanted.address,
            port=self._port,
            public_key=wanted.public_key,
            folder=self._folder / instance_id,
            mark=self._mark,
            host_key=self._host_keys[instance_id],
            metadata=f"{self._metadata}{instance_id}" if self._metadata else "",
        )
        ssh.size_disk(host, wanted.gib, boots=True)
        return LiveMachine(wanted, host, now + self._world.faults.boot)

    async def _show(self, machine: LiveMachine, *, up: bool) -> None:
        try:
            await machine.show(self._world.faults.ssh_mode(machine.wanted.names), up=up)
        except OSError as error:  # tried again at the next look
            log.warning("%s: a port is taken: %s", machine.wanted.instance_id, error)

    async def _shut_down(self, gone: list[LiveMachine]) -> None:
        ids = {machine.wanted.instance_id for machine in gone}
        for machine in gone:
            machine.close()
            self._machines.pop(machine.wanted.instance_id, None)
        await asyncio.to_thread(end_of_standin, self._mark, ids)

    def _erase(self, instance_id: str) -> None:
        """Have nothing be left of a machine that will not come again."""
        del self._host_keys[instance_id]
        task = self._loop.run_in_executor(None, erase, self._folder / instance_id)
        self._working.add(task)
        task.add_done_callback(self._working.discard)


def _give_notice(instance: Any, names: tuple[str, ...], notices: Mapping[str, float]) -> None:
    """Tell a spot instance if it has one of the names; AWS takes back no other."""
    found = next((notices[name] for name in names if name in notices), None)
    if found is not None and instance.lifecycle == spot.LIFECYCLE:
        spot.give_notice(instance, found)
    elif found is not None:
        log.warning("%s is no spot instance, and stays", instance.id)


def _requests(folder: Path) -> dict[str, str]:
    """The files there by name, which are taken away: what machines' own programs ask for."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if not path.name.startswith("."):
                found[path.name] = path.read_text(encoding="utf-8").strip()
                path.unlink()
    return found


def _groups(instance: Any) -> tuple[str, ...]:
    return tuple(sorted(group.id for group in instance.security_groups))


def _names(instances: list[Any]) -> dict[str, tuple[str, ...]]:
    """What a fault may call each instance: id, address, Name tag, and Name#N.

    N counts, from 1, the instances of that name that are not terminated, oldest first.
    """
    counts: dict[str, int] = {}
    found = {}
    for instance in sorted(instances, key=lambda i: getattr(i, "bilbo_serial", 0)):
        name = tags_of(instance).get("Name", "")
        counts[name] = counts.get(name, 0) + 1
        called = (f"{name}#{counts[name]}", name) if name else ()
        found[instance.id] = (instance.id, instance.private_ip, instance.public_ip, *called)
    return found
