"""The watcher's duty to end the cluster: when its time is over, when it has long been idle, and
when the machine that decides that is gone.

The engine's head decides, or the notebook where there is no engine. The other machines tell it what
people do on them, and follow: when it says that this is the end, or when they cannot reach it for a
while. All times are by this machine's clock. `deciding.json` are bilbo's settings, `awake.json` is
what the last look found, and `ended` is left when a machine asks for its own end.
"""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import importlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from bilbo.agent.farewell import Farewell
from bilbo.agent.figures import Finding, jupyter
from bilbo.agent.hearing import Ear, is_up, tell
from bilbo.agent.power import ask_poweroff
from bilbo.agent.presence import Presence, machines_root
from bilbo.agent.service import AGAIN, HostedService, read_text, write_private
from bilbo.agent.watcher import Duty, say

PERIOD = 60.0  # seconds between two looks, unless the settings ask for less
NOTICE = 600.0  # how long before the end people are warned
BY_HAND = 1800.0  # what a machine that has booted has at least
# A service that does not answer is not idle, but a broken one must not keep a cluster for ever.
PATIENCE = 3600.0
SETTINGS, AWAKE, ENDED = "deciding.json", "awake.json", "ended"

Settings = Dict[str, Any]


def duties(folder: Path) -> List[Duty]:
    """This machine's part; none without settings."""
    if not (folder / SETTINGS).exists():
        return []
    part = Leader(folder) if settings(folder)["leads"] else Follower(folder)
    return [Duty(PERIOD, part.look, folder / SETTINGS)]


def settings(folder: Path) -> Settings:
    """bilbo's settings. Raises OSError and ValueError if they are missing or damaged."""
    found: Settings = json.loads((folder / SETTINGS).read_text())
    return found


def judge(told: Settings, now: float, booted: float, quiet: float, awake: bool) -> Tuple[Any, str]:
    """When the cluster ends and why, as things are; None if nothing ends it. `quiet` is since when
    nobody has done anything. Pure."""
    if told.get("never"):
        return None, ""
    ends = []
    if told["left"] is not None:
        ends.append((told["at"] + told["left"], "its time is over"))
    if told["idle"] is not None and not awake:
        held = told["at"] + told.get("hold", 0.0)
        since = f"nobody has used it for {lasting(told['idle'])}"
        ends.append((max(quiet + told["idle"], held), since))
    if not ends:
        return None, ""
    at, why = min(ends)
    return (max(at, booted + BY_HAND) if booted > told["at"] else at), why


def lasting(seconds: float) -> str:
    """A duration as people write it in profiles."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


class Watching:
    """What leader and follower share: what people do on this machine, and its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._presence = Presence(machines_root())
        self._silent: Dict[str, float] = {}
        self._asked = False
        before = remembered(folder)
        self.booted = booted(folder, before)
        self.quiet = max(float(before.get("quiet", 0.0)), self.booted) or time.time()
        self.farewell = Farewell(settings(folder)["cluster"], folder)

    def findings(self, told: Settings) -> List[Finding]:
        """What people and programs do here, and how many seconds ago: 0 for now."""
        found = self._presence.look()
        if not told["ready"] and time.time() < told["at"] + told["setup"]:
            found.append(("bilbo is setting it up", 0.0))
            return found
        engine, page = told.get("engine"), told.get("jupyter")
        if engine:
            figures = importlib.import_module(f"bilbo.agent.figures_{engine}")
            found += self._of("the engine", lambda: figures.engine(told["leader"]["host"]))
        if page:
            found += self._of("JupyterLab", lambda: jupyter(self.folder, **page))
        return found

    def _of(self, name: str, ask: Any) -> List[Finding]:
        """What a service tells, or that it tells nothing."""
        try:
            found: List[Finding] = ask()
        except (OSError, KeyError, TypeError, ValueError) as error:
            since = self._silent.setdefault(name, time.monotonic())
            if time.monotonic() - since > PATIENCE:
                return []
            return [(f"{name} does not tell whether it is idle ({error})", 0.0)]
        self._silent.pop(name, None)
        return found

    def end(self, why: str) -> None:
        """Have the machine power off; repeated until it has taken note."""
        if not (self.folder / ENDED).exists() or not self._asked:
            write_private(self.folder / ENDED, json.dumps({"at": time.time(), "why": why}))
            say(f"the end: {why}")
        ask_poweroff(f"bilbo: {why}")
        self._asked = True

    def note(self, **found: Any) -> None:
        """Leave what was found for whoever asks."""
        found.update(at=time.time(), booted=self.booted, quiet=self.quiet)
        write_private(self.folder / AWAKE, json.dumps(found))


class Leader(Watching):
    """Decides."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        told = settings(folder)
        self._lock = threading.Lock()
        self._reports: Dict[str, Tuple[float, List[Finding]]] = {}
        self._heard = {str(each) for each in remembered(folder).get("heard", [])}
        self._ends: Optional[float] = None
        self._why = ""
        self._over = self._since = 0.0
        leader = told["leader"]
        self._ear = Ear(leader["host"], leader["port"], self._answer) if told["led"] else None

    def _answer(self, said: Dict[str, Any]) -> Dict[str, Any]:
        """A follower's report is kept, and answered with what it must know."""
        name = str(said["name"])[:100]
        found = [(str(what)[:200], max(0.0, float(ago))) for what, ago in said["found"][:20]]
        with self._lock:
            if len(self._reports) < 10000 or name in self._reports:
                self._reports[name] = (time.monotonic(), found)
                self._heard.add(name)
            left = None if self._ends is None else self._ends - time.time()
            soon = self.farewell.is_due
            over = self._is_over(settings(self.folder))
            return {"left": left, "why": self._why, "soon": soon, "over": over}

    def look(self) -> float:
        """Find out what people do, and judge."""
        told, now = settings(self.folder), time.time()
        period = float(told["period"])
        if self._is_over(told):
            return self._finish(period)
        self._over = 0.0
        found = [*self.findings(told), *self._heard_of(told, period)]
        awake = [what for what, ago in found if ago <= 0]
        # A command of bilbo's is use, too.
        self.quiet = max([self.quiet, told["at"], *(now - ago for what, ago in found)])
        at, why = judge(told, now, self.booted, self.quiet, bool(awake))
        with self._lock:
            self._ends, self._why = at, why
        self.note(awake=awake, ends=at, why=why, heard=sorted(self._heard), trouble=self._trouble())
        return self._act(told, now, period)

    def _is_over(self, told: Settings) -> bool:
        """Whether the end has come, and bilbo has not been here since."""
        return bool(self._over) and told["at"] <= self._since

    def _heard_of(self, told: Settings, period: float) -> List[Finding]:
        """What people do on the other machines."""
        found = []
        with self._lock:
            for name, (when, theirs) in self._reports.items():
                age = time.monotonic() - when
                gone = age > 3 * period + 5  # what it said last is over, for all we know
                found += [(f"{what} on the {name}", ago + age * gone) for what, ago in theirs]
            unheard = [each for each in told["members"] if each not in self._heard]
        return found + [(f"nothing has been heard yet of the {each}", 0.0) for each in unheard]

    def _trouble(self) -> str:
        return self._ear.trouble if self._ear else ""

    def _act(self, told: Settings, now: float, period: float) -> float:
        if self._ends is None:
            self.farewell.take_back()
            return period
        left = float(self._ends - now)
        if left <= 0:
            self._over, self._since = time.monotonic(), now
            return self._finish(period)
        # An idle end is not said at each pause between two commands.
        short = told["idle"] / 2 if self._why.startswith("nobody") else NOTICE
        if left <= min(NOTICE, short):
            self.farewell.warn(left, self._why)
        else:
            self.farewell.take_back()
        return min(period, left)

    def _finish(self, period: float) -> float:
        """End this machine once the others, who ask every period, know that it is the end."""
        left = self._over + 2 * period - time.monotonic() if self._reports else 0.0
        if left <= 0:
            self.end(self._why)
            return period
        return min(left, period)


class Follower(Watching):
    """Tells the leader what people do here, and ends when that is over or gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._reached = time.monotonic()

    def look(self) -> float:
        """Report, and follow."""
        told = settings(self.folder)
        found = self.findings(told)
        said, trouble = self._told(told["leader"], {"name": told["name"], "found": found})
        silent = time.monotonic() - self._reached
        over, why = bool(said.get("over")), str(said.get("why", ""))[:300]
        if silent >= told["follow"] and self._may_follow(told):
            over = True
            why = f"the {told['leader']['name']} has not answered for {lasting(told['follow'])}"
        awake = [what for what, ago in found if ago <= 0]
        self.note(awake=awake, ends=None, why="", silent=silent, trouble=trouble)
        left = said.get("left")
        if over:
            self.end(why)
        elif said.get("soon") and isinstance(left, (int, float)):
            self.farewell.warn(float(left), why)
        else:
            self.farewell.take_back()
        return min(float(told["period"]), max(1.0, float(told["follow"]) / 4))

    def _told(self, leader: Settings, report: Dict[str, Any]) -> Tuple[Dict[str, Any], str]:
        """The leader's answer, or why there is none. Its machine may be up without its watcher, or
        behind a security group of the profile's that keeps watchers apart."""
        try:
            said = tell(leader["host"], leader["port"], report)
        except OSError as error:
            if is_up(leader["host"], leader["doors"]):
                self._reached = time.monotonic()
            return {}, f"the {leader['name']} does not hear this machine: {error}"
        self._reached = time.monotonic()
        return said, ""

    def _may_follow(self, told: Settings) -> bool:
        return self.booted <= told["at"] or time.time() >= self.booted + BY_HAND


def remembered(folder: Path) -> Dict[str, Any]:
    """What an earlier watcher here has left."""
    try:
        found = json.loads(read_text(folder / AWAKE) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def booted(folder: Path, before: Dict[str, Any]) -> float:
    """When the machine has booted since bilbo was here last; 0 if it has not. The boot entry starts
    watchers that a supervisor has not started again."""
    if AGAIN in os.environ and not HostedService(folder, "watcher").runs().get("restarts"):
        return time.time()
    return float(before.get("booted", 0.0))
