"""The SSH stage: from instances that may still be booting to services that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from bilbo import model
from bilbo.model import HostPlan, HostResult, StagePlan
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.host import HostRun
from bilbo.remote.roll import Members
from bilbo.remote.terms import HostFailure, NotJoined, Remote, on_each


async def bring_up(
    plan: StagePlan, remote: Remote, *, fresh: Collection[str] = ()
) -> tuple[HostResult, ...]:
    """Start the plan's services where they do not run, and wait until they are ready.

    The head goes first. The notebook starts once the head is measured, even if the head then
    fails. Workers start once the head answers, or once it is started if they can wait for it
    (`plan.patient`); they do not start after it has failed, and start anew if it has lost them.
    Meanwhile hosts connect, at most `remote.limit` at once, and run the profile's own commands.
    They are measured after the head is started, while it comes up. Each connection ends when its
    host is ready or has failed. Running services of the roles and instances in `fresh` are stopped
    first. Returns one result per host, in the order of `plan.hosts()`; a host's failure is in its
    result. When cancelled, it leaves services running.
    """
    hosts = list(plan.hosts())
    stage = Stage(plan, remote.at_once(len(hosts)), fresh)
    # The head is first in the order, so waiting for it cannot block it. It keeps its connection to
    # the end, so the others need a second one.
    return await on_each(hosts, max(2, remote.limit), stage.host)


class Stage:
    """What the hosts of one SSH stage share."""

    def __init__(self, plan: StagePlan, remote: Remote, fresh: Collection[str]) -> None:
        self.plan = plan
        self.remote = remote
        self.fresh = fresh
        self.keys = PrivateKeys()
        self.roll = Members()
        self.head_measured = asyncio.Event()
        self.head_started = asyncio.Event()
        self.head_settled = asyncio.Event()  # it answers or it has failed
        self.head_answers = False
        self.head_failed = plan.head is None
        self.head_is_new = False
        self.head_facts: Mapping[str, Any] = {}
        self.workers_left = len(plan.workers)
        self.workers_done = asyncio.Event()
        if not plan.workers:
            self.workers_done.set()
        if not plan.head:
            self._head_is_settled()

    async def host(self, host: HostPlan) -> HostResult:
        """One host from its connection to its result."""
        run = HostRun(host, self.plan.cluster, self.remote, self.plan.addresses)
        try:
            await self._steps(run)
        except HostFailure as failure:
            return run.failed(failure)
        except Exception as error:  # one host's bug must not end the others
            return run.failed(HostFailure(f"unexpected: {type(error).__name__}: {error}"))
        finally:
            self._leaves(host)
        return run.succeeded()

    def _leaves(self, host: HostPlan) -> None:
        if host is self.plan.head:
            self.head_failed = not self.head_answers
            self._head_is_settled()
            self.roll.close(f"{host.service_name} failed before this host had joined")
        elif host is not self.plan.notebook:
            self.workers_left -= 1
            if not self.workers_left:
                self.workers_done.set()

    def _head_is_settled(self) -> None:
        for event in (self.head_measured, self.head_started, self.head_settled):
            event.set()

    async def _steps(self, run: HostRun) -> None:
        work = self._worker
        if run.plan is self.plan.head:
            work = self._head
        elif run.plan is self.plan.notebook:
            work = self._notebook
        elif self.head_settled.is_set():
            self._check_head()  # without a head there is no need to connect
        async with connected(run.plan.node, self.remote, self.keys) as connection:
            if not self._begins_at_once(run):
                await self.head_started.wait()
            await run.prepare(connection)
            await work(run)

    def _begins_at_once(self, run: HostRun) -> bool:
        """The head, hosts with preparations, and hosts that must stop before the head is back."""
        return run.plan is self.plan.head or run.has_preparations or self._is_fresh(run)

    def _check_head(self) -> None:
        if self.head_failed:
            there = self.plan.head
            why = f"{there.service_name} failed" if there else f"there is no {self.plan.head_role}"
            raise HostFailure(f"not started: {why}", stage="start")

    def _is_fresh(self, run: HostRun) -> bool:
        return run.plan.node.role in self.fresh or run.plan.node.instance_id in self.fresh

    def _check_versions(self, run: HostRun) -> None:
        if "versions" in self.head_facts:
            run.check_versions(self.head_facts, self.plan.breaking)

    async def _head(self, run: HostRun) -> None:
        self.head_facts = run.facts
        self.head_measured.set()
        self.head_is_new = await run.start(fresh=self._is_fresh(run))
        self.head_started.set()
        await run.until_ready()
        self.head_answers = True
        self._head_is_settled()
        await run.keep()
        if self.plan.roll and not self.workers_done.is_set():
            await self._keep_roll(run, self.plan.roll)

    async def _keep_roll(self, run: HostRun, where: model.MembersPage) -> None:
        """Keep the list of members current while any worker waits for it."""
        done = asyncio.ensure_future(self.workers_done.wait())
        keeping = asyncio.ensure_future(run.keep_roll(where, self.roll))
        try:
            await asyncio.wait((done, keeping), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                keeping.result()  # it ends only by raising: the head is gone
        finally:
            done.cancel()
            keeping.cancel()

    async def _notebook(self, run: HostRun) -> None:
        await self.head_measured.wait()
        self._check_versions(run)
        await run.start(fresh=self._is_fresh(run))
        await run.until_ready()
        await run.keep()

    async def _worker(self, run: HostRun) -> None:
        if self._is_fresh(run):
            await run.stop()  # a new head must not take the old worker for the new one
        await (self.head_started if self.plan.patient else self.head_settled).wait()
        self._check_head()
        self._check_versions(run)
        # A worker of the previous head cannot work for the new one.
        new = await run.start(fresh=self._is_fresh(run) or self.head_is_new)
        try:
            await run.until_joined(self.roll, new=new)
        except NotJoined:
            if new:
                raise
            await run.start(fresh=True)  # the head has lost it
            await run.until_joined(self.roll, new=True)
        await run.keep()
