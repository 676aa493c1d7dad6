"""`make demo`: creates a cluster on the stand-in AWS, and computes on it.

Creates the cluster `demo`, or completes and uses an existing one, estimates pi on its workers with
Dask, and prints the addresses to open. Exits with bilbo's own code if bilbo fails, 1 if something
else is wrong, 130 if interrupted.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

from demo_computation import TASKS, estimate_pi

from bilbo import local
from bilbo.cli.context import home
from bilbo.errors import BilboError
from bilbo.record import Record, Store

NAME = "demo"
PROFILE = Path(__file__).with_name("demo.json")
BILBO = Path(sys.executable).with_name("bilbo")


def main() -> None:
    """Runs the whole demo."""
    began = time.monotonic()
    check_machine()
    check_cluster()
    say(f"bilbo's home: {home()}")
    bilbo("local", "start")
    bilbo("--local", "create", near(PROFILE))
    record = Store(home()).load(NAME)
    computed = compute(record)
    show_result(record, computed)
    show_next_steps(record)
    say(f"\nThis took {time.monotonic() - began:.0f} s.")


def check_machine() -> None:
    """Exits with one sentence if the demo cannot run here."""
    if sys.platform != "linux":
        fail(
            "make demo needs Linux: its stand-in AWS gives each instance an address in 127.0.0.0/8."
        )
    if not (shutil.which("terraform") or shutil.which("tofu")):
        fail(
            "make demo needs Terraform 1.6 or later (terraform) or OpenTofu (tofu) on PATH: "
            "https://developer.hashicorp.com/terraform/install"
        )


def check_cluster() -> None:
    """Exits with one sentence if the cluster of that name does not belong to the demo."""
    record = Store(home()).find(NAME)
    if record and not (record.endpoint_url and local.owns(home(), record.endpoint_url)):
        fail(
            f"The cluster {NAME!r} of {home()} is not in the stand-in AWS. Nothing was changed. "
            "Run the demo in another home: BILBO_HOME=/tmp/bilbo-demo make demo"
        )


def bilbo(*arguments: str) -> None:
    """Shows and runs a bilbo command as a person would; exits with its code if it fails."""
    say(f"\n$ {shlex.join(['bilbo', *arguments])}")
    with subprocess.Popen([BILBO, *arguments]) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                # bilbo got the Ctrl-C too: it saves Terraform's state, then exits.
                continue
    if process.returncode:
        sys.exit(process.returncode if process.returncode > 0 else 1)


def compute(record: Record) -> Counter[str]:
    """Estimates pi on the cluster: the points of each Dask worker, and under `inside` the hits."""
    scheduler = record.addresses["dask_scheduler_address"]
    say(f"\nComputing pi on the cluster: dask.distributed.Client({scheduler!r})")
    try:
        return estimate_pi(scheduler, len(record.inventory.workers), progress)
    except Exception as error:  # Dask raises many kinds, and the demo shows a sentence for each
        fail(
            f"The cluster {NAME!r} cannot compute ({str(error) or type(error).__name__}); "
            f"remove it with `{command('destroy', NAME)}` and run the demo again."
        )


def progress(done: int) -> None:
    """Shows the finished tasks: a live line on a terminal, else a line per quarter."""
    line = f"  {done}/{TASKS} tasks"
    if sys.stderr.isatty():
        bar = "#" * (40 * done // TASKS)
        end = "\n" if done == TASKS else ""
        sys.stderr.write(f"\r  [{bar:<40}]{line}{end}")
    elif done % (TASKS // 4) == 0:
        sys.stderr.write(line + "\n")
    sys.stderr.flush()


def show_result(record: Record, computed: Counter[str]) -> None:
    """Shows the estimate, and how much of it each instance computed."""
    inside = computed.pop("inside")
    points = computed.total()
    say(f"\npi is about {4 * inside / points:.4f}, from {points:,} random points:")
    for number, node in enumerate(record.inventory.nodes(), start=1):
        share = sum(count for name, count in computed.items() if name.startswith(node.instance_id))
        if share:
            say(f"  [{number}] {node.instance_id} computed {share:,} ({share / points:.0%})")


def show_next_steps(record: Record) -> None:
    """Shows the addresses to open, and how to remove everything."""
    say("\nOpen in a browser on this machine:")
    say(f"  JupyterLab:       {record.notebook_url}")
    say(f"  Dask's dashboard: {record.dashboard_url}")
    say("\nRemove the cluster, then stop the stand-in AWS:")
    say(f"  {command('destroy', NAME)}")
    say(f"  {command('local', 'stop')}")


def command(*arguments: str) -> str:
    """A bilbo command to type in this folder, with the demo's home."""
    named = [f"BILBO_HOME={shlex.quote(str(home()))}"] if os.environ.get("BILBO_HOME") else []
    return " ".join([*named, shlex.join([near(BILBO), *arguments])])


def near(path: Path) -> str:
    """The path to type: relative if it is below the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def say(text: str) -> None:
    """Prints at once, so that it appears before a command's output."""
    print(text, flush=True)


def fail(sentence: str) -> NoReturn:
    """Exits with a sentence on stderr."""
    print(f"demo: {sentence}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except BilboError as error:
        print(f"bilbo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)
