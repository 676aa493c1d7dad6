"""What the benchmarks share: running things, medians, and results as JSON.

Each benchmark is its own script: `python benchmarks/NAME.py` prints its result, `--smallest` runs
the smallest size once, `--json FILE` writes the result that `python benchmarks` collects.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

from bilbo import local  # noqa: E402

INSTANCE = {
    "ami": local.KNOWN_AMI,
    "ec2type": "t3.micro",
    "keyname": "local",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.bilbo/local/local.pem",
}
ONE_PROCESS = {"nproc": 1, "nthread": 1}


@dataclass(frozen=True)
class Bound:
    """A promise that `measured` is at most `limit`. `unmet` says why, if it is not."""

    what: str
    limit: float
    measured: float
    unmet: str = ""

    @property
    def met(self) -> bool:
        """Whether the bound is met."""
        return self.measured <= self.limit


@dataclass(frozen=True)
class Line:
    """One line of a plot, as points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """A plot of growth, both axes logarithmic."""

    file: str
    title: str
    x: str
    y: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Result:
    """The result of a benchmark. The first row of `table` is its header."""

    question: str
    table: Sequence[Sequence[object]]
    bounds: Sequence[Bound] = ()
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "bounds": [{**asdict(b), "met": b.met} for b in self.bounds]}


@dataclass(frozen=True)
class Size:
    """How much to measure: `smallest` is for a test, with one run each."""

    smallest: bool

    @property
    def runs(self) -> int:
        """The number of runs."""
        return 1 if self.smallest else 5


def main(measure: Callable[[Size], Result]) -> None:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--smallest", action="store_true", help="the smallest size, one run")
    parser.add_argument("--json", type=Path, help="write the result there")
    asked = parser.parse_args()
    began = time.monotonic()
    result = measure(Size(asked.smallest))
    document = {**result.document(), "seconds": round(time.monotonic() - began, 1)}
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(as_text(document))


def as_text(document: Mapping[str, Any]) -> str:
    """A result for a terminal, and for RESULTS.md."""
    rows = [[str(cell) for cell in row] for row in document["table"]]
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
    lines.append("")
    for bound in document["bounds"]:
        state = "met" if bound["met"] else f"NOT met: {bound['unmet'] or 'no reason known'}"
        lines.append(
            f"- {bound['what']}: {bound['measured']:.4g}, bound {bound['limit']:g}, {state}"
        )
    if document["bounds"]:
        lines.append("")
    lines += [line for note in document["notes"] for line in (note, "")]
    return "\n".join(lines)


# -- running things ------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """A command's cost: seconds of wall and of CPU (including children), MiB at its peak."""

    wall: float
    cpu: float
    memory: float
    output: str = ""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    codes: Sequence[int] = (0,),
    timeout: float = 900,
) -> Cost:
    """Runs a command to its end and measures it. Raises RuntimeError for any other exit code."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in argv],
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        killer = _kill_after(process, timeout)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read().decode(errors="replace")
    if process.returncode not in codes:
        raise RuntimeError(f"{argv} ended with {process.returncode}:\n{output[-3000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def _kill_after(process: subprocess.Popen[bytes], seconds: float) -> Any:
    import threading

    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def interleaved(contenders: Mapping[str, Callable[[], Cost]], runs: int) -> dict[str, list[Cost]]:
    """Runs each contender `runs` times, in turn, so that a busy machine is busy for all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(runs):
        order = list(contenders)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            found[name].append(contenders[name]())
    return found


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, minimum and maximum, such as `1.20 (1.10 to 1.40)`."""
    middle, least, most = median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median ratio of paired runs."""
    return median([a / b for a, b in zip(ours, theirs, strict=True)])


# -- bilbo ---------------------------------------------------------------------------------


@contextlib.contextmanager
def standin_home() -> Iterator[Path]:
    """A new bilbo home with a running stand-in AWS, which ends with it."""
    with tempfile.TemporaryDirectory(prefix="bilbo-bench-") as folder:
        home = Path(folder)
        local.start(home)
        try:
            yield home
        finally:
            local.stop(home)


def environment(home: Path) -> dict[str, str]:
    """The caller's environment with this home and this project, without AWS settings.

    Python may write bytecode, because packages are installed with it.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("AWS_") and key != "PYTHONDONTWRITEBYTECODE"
    }
    path = os.pathsep.join(filter(None, (str(PROJECT), kept.get("PYTHONPATH"))))
    return {**kept, "BILBO_HOME": str(home), "PYTHONPATH": path}


def bilbo(home: Path, *arguments: str, codes: Sequence[int] = (0,)) -> Cost:
    """Runs bilbo's command line."""
    return run([sys.executable, "-m", "bilbo", *arguments], env=environment(home), codes=codes)


def write_profile(home: Path, name: str, document: Mapping[str, Any]) -> str:
    """Saves a profile in the home. Returns its path."""
    path = home / "profiles" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def script(name: str, *arguments: str) -> list[str]:
    """The command line of one of the scripts beside the benchmarks."""
    return [sys.executable, str(Path(__file__).parent / name), *arguments]
