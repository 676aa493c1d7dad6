"""What the benchmarks share: running things, medians, and results as JSON.

Each benchmark is a script of its own: `python benchmarks/NAME.py` prints its result, `--smallest`
takes the smallest size and one run, `--json FILE` writes what `python benchmarks` puts together.
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
    """A promise: `measured` is to be at most `limit`. `unmet` says why where it is not."""

    what: str
    limit: float
    measured: float
    unmet: str = ""

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
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
    """What a benchmark found. `table` has its headings as first row."""

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
    """How much is measured: the `smallest` is for a test, with one run of each."""

    smallest: bool

    @property
    def runs(self) -> int:
        """How often each thing is run."""
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
    """What a command cost: seconds of wall and of CPU (its children included), MiB at the most."""

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
    """Each contender `runs` times, in turns, so that a busy machine is busy for all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(runs):
        order = list(contenders)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            found[name].append(contenders[name]())
    return found


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most, such as `1.20 (1.10 to 1.40)`."""
    middle, least, most = median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of runs that went side by side."""
    return median([a / b for a, b in zip(ours, theirs, strict=True)])


# -- bilbo ---------------------------------------------------------------------------------


@contextlib.contextmanager
def standin_home() -> Iterator[Path]:
    """A bilbo home of its own, with a running stand-in AWS that ends with it."""
    with tempfile.TemporaryDirectory(prefix="bilbo-bench-") as folder:
        home = Path(folder)
        local.start(home)
        try:
            yield home
        finally:
            local.stop(home)


def environment(home: Path) -> dict[str, str]:
    """The caller's environment with this home, without AWS's settings, and with this project.

    Python may write its bytecode: what a package manager installs has it.
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
    """Saves a profile in the home; its path."""
    path = home / "profiles" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def script(name: str, *arguments: str) -> list[str]:
    """The command line of one of the scripts beside the benchmarks."""
    return [sys.executable, str(Path(__file__).parent / name), *arguments]
