"""One host in the SSH stage: its steps, and its result."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

import asyncssh

from bilbo import model
from bilbo.model import (
    CONNECTED,
    FAILED,
    READY,
    STARTED,
    HostPlan,
    HostResult,
    Measurement,
    Page,
    Served,
    Service,
)
from bilbo.remote.agent_session import FOREIGN, Event, Session, agent_source
from bilbo.remote.roll import Members
from bilbo.remote.terms import STOP_GRACE, HostEvent, HostFailure, NotJoined, Remote
from bilbo.remote.watching import DUTIES, watcher_files
from bilbo.status import ServiceStatus
from bilbo.versions import differences, software

SEE_LOGS = "Read the whole log with `bilbo logs`. Run the command again to continue from here."

# How long a running worker may be missing in the head's list before it is started anew: as long as
# Dask's nanny may take to replace a process, and then some.
LOST_SECONDS = 15.0

NO_LIFETIME = (
    "Use an image with systemd, and with cloud-init or a `sudo` that asks for no password; or take "
    "`lifetime` out of the profile. This machine runs, and is billed, until `bilbo destroy`."
)


class HostRun:
    """One host's way through the stages. Every step raises HostFailure."""

    def __init__(
        self, plan: HostPlan, cluster: str, remote: Remote, addresses: Collection[str] = ()
    ) -> None:
        self.plan = plan
        self._addresses = addresses
        self.remote = remote
        self.deadlines = remote.deadlines
        self.stage = "connect"
        self.facts: dict[str, Any] = {}
        self._cluster = cluster
        self._session: Session
        self._service: Service

    def _enters(self, stage: str, message: str, milestone: str = "") -> None:
        self.stage = stage
        self.remote.on_event(HostEvent(self.plan.node, stage, message, milestone))

    def succeeded(self) -> HostResult:
        """The result of a host that is ready."""
        self._enters("ready", f"{self.plan.service_name} is ready", READY)
        return HostResult(self.plan.node, "ready", True, facts=self.facts)

    def failed(self, failure: HostFailure) -> HostResult:
        """The result of a host that failed in the failure's stage, or else in its current one."""
        self._enters(failure.stage or self.stage, f"failed: {failure.what}", FAILED)
        return HostResult(
            self.plan.node,
            self.stage,
            False,
            cause=failure.what,
            hint=failure.hint,
            log=failure.details,
            facts=self.facts,
            lasts=failure.lasts,
        )

    @property
    def has_preparations(self) -> bool:
        """Whether the profile runs anything on the host before its service."""
        return bool(self.plan.init_cmd or self.plan.requirements)

    async def prepare(self, connection: asyncssh.SSHClientConnection) -> None:
        """Run the profile's own commands, measure the host and check its software."""
        self._enters("measure", "connected", CONNECTED)
        self._session = await self._log_in(connection)
        if self.plan.lifetime:
            await self._reach(self.plan.lifetime)
        await self._watch()
        if self.plan.disk:
            await self._grow(self.plan.disk)
        if self.has_preparations and await self._boot():
            await self._log_in_again(connection)
        if self.plan.init_cmd and await self._init():
            await self._log_in_again(connection)
        if self.plan.requirements:
            await self._install()
        self._enters("measure", "measuring")
        found = await self._session.ask(
            "measure",
            self.deadlines.start,
            packages=self.plan.packages,
            executables=self.plan.executables,
        )
        measured = Measurement(
            found["cpus"], found["threads_per_core"], found["memory"], tuple(found["gpus"])
        )
        self.facts.update(asdict(measured), python=found["python"], versions=found["versions"])
        check_software(self.plan, found)
        self._service = self.plan.service(measured)
        self.facts.update(self._service.facts, service=self._service.name)
        self.facts["members"] = len(self._service.members)

    async def _log_in(self, connection: asyncssh.SSHClientConnection) -> Session:
        host = self.plan.node.instance_id
        return await Session.open(connection, self._cluster, host, self.deadlines)

    async def _log_in_again(self, connection: asyncssh.SSHClientConnection) -> None:
        """A new login sees what has been put on PATH since the last one."""
        self._session.close()
        self._session = await self._log_in(connection)

    async def _reach(self, script: str) -> None:
        """Leave the mark without which the machine powers off."""
        seconds = self.deadlines.init
        event = await self._session.ask("reach", seconds + 10, script=script, seconds=seconds)
        if event["why"]:
            raise HostFailure(
                "it cannot power itself off when the cluster's time is over: "
                f"{str(event['why'])[:300]}",
                stage="lifetime",
                hint=NO_LIFETIME,
                lasts=True,
            )

    async def _grow(self, gib: int) -> None:
        """Have the root file system fill its disk. What fails is a fact, and the host goes on."""
        try:
            event = await self._session.ask("grow", self.deadlines.init, gib=gib)
        except HostFailure as failure:
            self.facts["disk"] = failure.what
            return
        if event["done"]:
            self._enters("measure", "its file system fills its disk now")
        self.facts.update(disk=str(event["why"]), grown=event["done"])

    async def _boot(self) -> bool:
        """Wait until the host's first boot is over and its package managers are free. Returns
        whether there was anything to wait for."""
        seconds = self.deadlines.init
        end = time.monotonic() + seconds + 10  # the host keeps the deadline; this is for dead hosts
        event = await self._session.ask(
            "boot",
            seconds + 10,
            commands=self.plan.init_cmd,
            requirements=self.plan.requirements,
            executables=self.plan.executables,
            seconds=seconds,
        )
        waited = False
        while event["event"] == "waiting":
            waited = True
            self._enters("boot", f"waiting: {event['cause']}")
            event = await self._session.within(end - time.monotonic())
        if event["event"] == "timeout":
            raise HostFailure(
                f"the host was not free for init_cmd and packages after {seconds:.0f} s: "
                f"{event['cause']}",
                stage="boot",
                hint="See what it does with `bilbo ssh`. Run the command again to wait on.",
            )
        return waited

    async def _init(self) -> bool:
        """Run what is left of `init_cmd`. Returns whether there was anything left."""
        self._enters("init", "running init_cmd")
        commands = self.plan.init_cmd
        event = await self._session.ask("init", self.deadlines.init, commands=commands)
        if event["event"] == "exited":
            raise HostFailure(
                f"init_cmd's command {event['number']} of {len(commands)} ended with exit code "
                f"{event['code']}",
                hint="Run the command again to continue with this command of init_cmd.",
                log=event["log"],
            )
        self.facts["initialised"] = bool(event["ran"])
        return bool(event["ran"])

    async def _install(self) -> None:
        """Install the profile's packages, unless they are the ones installed last."""
        self._enters("packages", "installing packages")
        event = await self._session.ask(
            "packages",
            self.deadlines.init,
            requirements=self.plan.requirements,
            executables=self.plan.executables,
        )
        if event["event"] == "exited":
            raise HostFailure(
                f"pip ended with exit code {event['code']} for {event['python']}",
                hint="Correct `packages` in the profile and run the command again.",
                log=event["log"],
            )
        self.facts["installed"] = event["ran"]
        done = "packages installed" if event["ran"] else "packages already installed"
        self._enters("packages", done)

    def check_versions(self, head: Mapping[str, Any], breaking: Collection[str]) -> None:
        """Raises HostFailure if this host cannot work with the head, given the head's facts."""
        theirs, ours = software("the head", head), software("this host", self.facts)
        broken = [each for each in differences(theirs, ours, breaking) if each.breaks]
        if broken:
            self.stage = "versions"
            found = "; ".join(
                f"{each.package} {each.version or 'is not installed'}, on the head {each.expected}"
                for each in broken
            )
            raise HostFailure(
                f"it cannot work with the head: {found}",
                hint="Use the same image for all roles, or align the versions with `packages`; "
                "`bilbo check` lists all differences.",
                lasts=True,
            )

    async def start(self, *, fresh: bool) -> bool:
        """Start the service unless it runs; `fresh` stops it first. Returns whether it is new."""
        service = self._service
        self._enters("start", f"starting {service.name}")
        event = await self._session.ask(
            "start",
            self.deadlines.start,
            service=service.name,
            files=files_of(service),
            supervisor=agent_source("supervisor"),
            starter=agent_source("service"),
            listens=service.listens,
            addresses=list(self._addresses),
            page=page_fields(service.page),
            seconds=self.deadlines.ready,
            fresh=fresh,
            grace=STOP_GRACE,
            replace=self.plan.replace,
            unwatched=[name for name in DUTIES if name not in self.plan.watches],
        )
        if event["event"] not in ("started", "already"):
            raise self._exited(event)
        new = bool(event["event"] == "started")
        self.facts.update(already=not new, kept=event["changed"] and not new)
        state = "started" if new else "is already running"
        if self.facts["kept"]:
            state += ", but with older settings"
        elif self.facts.get("installed") and not new:
            state += "; restart it to use the new packages"
        self._enters("ready", f"{service.name} {state}", STARTED)
        return new

    async def _watch(self, *, ready: bool = False) -> None:
        """Have the host's watcher do its duties; `ready` tells it that the service is."""
        if self.plan.watches:
            await self._session.ask(
                "watch",
                self.deadlines.start,
                files={} if ready else watcher_files(),
                settings={
                    name: {**now(), "ready": ready} for name, now in self.plan.watches.items()
                },
            )

    async def keep(self) -> None:
        """Have the service, which is ready, started again when it dies and when the host boots."""
        await self._watch(ready=True)
        event = await self._session.ask("keep", self.deadlines.start, service=self._service.name)
        self.facts.update(boot=event["way"], no_boot=event["why"])

    async def stop(self) -> None:
        """Stop the service if it runs."""
        self._enters("start", f"stopping {self.plan.service_name}")
        names = [self.plan.service_name]
        await self._session.ask("stop", self.deadlines.start, services=names, grace=STOP_GRACE)

    async def until_ready(self) -> None:
        """Wait until the service's page answers."""
        # The host keeps the deadline; this is for dead hosts.
        event = await self._session.within(self.deadlines.ready + 10)
        if event["event"] == "timeout":
            raise HostFailure(
                f"{self._service.name} was not ready after {self.deadlines.ready:.0f} s: "
                f"{event['cause']}",
                hint=SEE_LOGS,
                log=event["log"],
            )
        if event["event"] == "open":
            raise HostFailure(event["cause"], hint=open_hint(event["ended"]), log=event["log"])
        if event["event"] != "ready":
            raise self._exited(event)
        if self._service.page and self._service.page.described:
            self.facts["served"] = Served(event["secure"], event["base"])

    async def until_joined(self, roll: Members, *, new: bool) -> None:
        """Wait until the head lists all of the service's members. Raises NotJoined, for a service
        that is not new after a shorter while: it has had its time.

        If a service that has just started replaces one of the same name, the head may still list
        the old one.
        """
        seconds = self.deadlines.ready if new else min(self.deadlines.ready, LOST_SECONDS)
        stale = roll.addresses(self._service.members) if new else frozenset()
        joined = asyncio.ensure_future(roll.wait(self._service.members, stale))
        ended = asyncio.ensure_future(self._session.event())
        try:
            await asyncio.wait(
                (joined, ended),
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if joined.done():
                joined.result()  # raises if the head has gone
                return
            if ended.done():
                raise self._exited(ended.result())
        finally:
            for task in (joined, ended):
                task.cancel()
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
        missing = roll.missing(self._service.members, stale)
        raise NotJoined(
            f"{len(missing)} of {len(self._service.members)} processes had not joined after "
            f"{seconds:.0f} s",
            hint=SEE_LOGS,
            log=await self._tail() if new else (),
        )

    async def _tail(self) -> tuple[str, ...]:
        """The end of the service's log, if the host still answers."""
        with contextlib.suppress(HostFailure):
            names = [self._service.name]
            event = await self._session.ask("logs", 5, services=names, lines=20, follow=False)
            return tuple(event.get("lines", ()))
        return ()

    async def keep_roll(self, where: model.MembersPage, roll: Members) -> NoReturn:
        """Update `roll` as members join and leave, until the head's service ends (HostFailure)."""
        self._session.send(
            "roll",
            service=self._service.name,
            page=page_fields(where.page),
            items=list(where.items),
            name=where.name,
            address=where.address,
        )
        while True:
            event = await self._session.event()
            if event["event"] == "exited":
                raise self._exited(event)
            roll.update(event["joined"], event["left"])

    def _exited(self, event: Event) -> HostFailure:
        if event["event"] != "exited":  # a valid event of the request, but out of order
            return HostFailure(
                f"the host's answer is not from bilbo's agent: {event['event']!r} is out of order",
                hint=FOREIGN,
            )
        return HostFailure(
            f"{self._service.name} {how_it_ended(event['code'])}", hint=SEE_LOGS, log=event["log"]
        )


def files_of(service: Service) -> dict[str, str]:
    """A service's files on the host, name to text: its script, its programs, its other files."""
    programs = {f"{name}.py": agent_source(name) for name in service.programs}
    return {f"{service.name}.sh": service.script, **programs, **service.files}


def open_hint(ended: bool) -> str:
    """What to do about a service that does not require its token."""
    now = "It was stopped" if ended else "It still runs; `bilbo restart NAME --notebook` ends it"
    return f"{now}. Find the settings that turn authentication off, such as those in ~/.jupyter."


def how_it_ended(code: int | None) -> str:
    """An exit code in words: None if nobody saw it, negative for a signal."""
    return ServiceStatus("", running=False, code=code).ending


def page_fields(page: Page | None) -> dict[str, Any] | None:
    """A page as the agent expects it."""
    if page is None:
        return None
    return {
        "host": page.host,
        "port": page.port,
        "path": page.path,
        "headers": dict(page.headers),
        "contains": page.contains,
        "closed": page.closed,
        "described": page.described,
        "earlier": page.earlier,
    }


def check_software(plan: HostPlan, found: Event) -> None:
    """Raises HostFailure if software is missing on the host or too old."""
    missing = [name for name, path in found["executables"].items() if path is None]
    if missing:
        raise HostFailure(
            f"not on the host's PATH: {', '.join(missing)}",
            hint=path_hint(plan.node.ssh_user, found["elsewhere"]),
            lasts=True,
        )
    for name, oldest in plan.oldest.items():
        version = found["versions"].get(name)
        if version and release(version) < release(oldest):
            why = f": {plan.why_oldest[name]}" if name in plan.why_oldest else ""
            raise HostFailure(
                f"{name} {version[:50]} on the host is older than {oldest}{why}",
                hint=f"Use an AMI with {name} {oldest} or later.",
                lasts=True,
            )


def path_hint(user: str, elsewhere: Mapping[str, str]) -> str:
    """What to do about missing programs, given where interactive shells find some of them."""
    for name, path in elsewhere.items():
        return (
            f"{path} is there, but only for interactive shells: what puts it on PATH (conda, say) "
            "is in ~/.bashrc, and `bash -lc` reads ~/.bash_profile or ~/.profile instead, which "
            f"leave it out. Move it there, and check with: bash -lc 'command -v {name}'"
        )
    return f"Use an AMI on which {user}'s login shell finds it, or install it with `init_cmd`."


def release(version: str) -> list[int]:
    """The leading numbers of a version, for comparing: `2024.1.0rc1` -> [2024, 1, 0]."""
    numbers = re.split("[^0-9.]", version[:100])[0]
    return [int(part) for part in numbers.split(".") if part]
