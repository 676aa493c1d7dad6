"""Sick hosts: each is named with its cause, the others go on, and create again completes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, nothing_is_left
from reliability import errors, told

from bilbo import local

LEFT = "nothing, after `bilbo destroy`"


def sick_hosts(folder: Path) -> list[str]:
    """Commands by which the first host that runs them lacks dask, and the next one's dask dies.

    What they change is in the host's own home.
    """
    python = Path(sys.executable).parent / "python3"
    return [
        f"if mkdir {folder}/lacks 2>/dev/null; then mkdir -p ~/only; ln -s {python} ~/only/python3;"
        " echo 'PATH=~/only:/usr/bin:/bin # sick' >> ~/.profile;"
        f" elif mkdir {folder}/dies 2>/dev/null; then mkdir -p ~/bad; "
        f"printf '#!{python}\\nprint(\"Illegal instruction\")\\nraise SystemExit(132)\\n'"
        " > ~/bad/dask;"
        " chmod +x ~/bad/dask; echo 'PATH=~/bad:$PATH # sick' >> ~/.profile; fi"
    ]


def in_order(said: str) -> str:
    """The failed hosts sorted by how they fail: their numbers differ from run to run."""
    first, *blocks = re.split(r"\n(?=  \[)", said.rstrip())
    blocks[-1], advice = blocks[-1].rsplit("\n", 1)
    blocks.sort(key=lambda block: block.partition("failed at")[2])
    return "\n".join([first, *blocks, advice])


def test_five_sick_workers_of_ten(bilbo: Bilbo, tmp_path: Path) -> None:
    """Five workers fail in five ways, five run; when all is well, create completes the ten."""
    worker: dict[str, Any] = {"count": 10, **ONE_PROCESS}
    worker["instance"] = {"init_cmd": sick_hosts(tmp_path)}
    profile = bilbo.profile("ten", {"instance": INSTANCE, "dask": {"worker": worker}})
    for number, mode in enumerate(("refuse", "silent", "reject"), start=1):
        local.inject(bilbo.home, f"ssh=ten-dask-worker#{number}:{mode}")
    done = bilbo("--local", "create", profile, "--timeout", "25", code=3)
    said = errors(done.stderr)
    for cause in (
        "refuses connections",
        "no SSH banner",
        "refuses the key",
        "PATH: dask",
        "Illegal",
    ):
        assert cause in said, said
    record = bilbo.record("ten")
    assert record["status"] == "partial"
    assert len(record["problems"]) == 5
    told("Five workers of ten are sick, each in its own way", in_order(said), 3,
         "the five that run; " + LEFT)  # fmt: skip

    local.inject(bilbo.home, "clear")
    for home in (bilbo.home / "local" / "instances").iterdir():
        path = home / "home" / ".profile"
        if not path.exists():  # a host that refused connections gets it only now
            continue
        well = [line for line in path.read_text().splitlines() if "# sick" not in line]
        path.write_text("".join(f"{line}\n" for line in well))
    bilbo("create", profile)
    assert bilbo.record("ten")["status"] == "ready"
    bilbo("destroy", "ten", "-y")
    nothing_is_left(bilbo.home)


def test_a_sick_notebook_then_a_sick_scheduler(bilbo: Bilbo) -> None:
    """A notebook that fails beside Dask is exit 3; a scheduler that fails is 1 and starts none."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 1, **ONE_PROCESS}},
    }
    profile = bilbo.profile("sick", document)
    local.inject(bilbo.home, "ssh=sick-dask-scheduler:reject")
    local.inject(bilbo.home, "ssh=sick-notebook:refuse")
    done = bilbo("--local", "create", profile, "--timeout", "8", code=1)
    said = errors(done.stderr)
    assert "not started: dask-scheduler failed" in said
    assert bilbo.record("sick")["status"] == "failed"
    told("The scheduler's host rejects the key, the notebook's refuses SSH", said, 1, LEFT)

    local.inject(bilbo.home, "clear")
    local.inject(bilbo.home, "ssh=sick-notebook:refuse")
    done = bilbo("create", profile, "--timeout", "15", code=3)
    assert bilbo.record("sick")["status"] == "partial"
    told("The notebook's host refuses SSH, Dask works", errors(done.stderr), 3, LEFT)

    local.inject(bilbo.home, "clear")
    bilbo("create", profile)
    known = bilbo.home / "clusters" / "sick" / "known_hosts"
    lines = known.read_text().splitlines()
    keys = [line.partition(" ")[2] for line in lines]
    known.write_text("".join(f"{line.split()[0]} {keys[i - 1]}\n" for i, line in enumerate(lines)))
    done = bilbo("rcmd", "sick", "scheduler", "true", code=1)
    assert "host key" in done.stderr
    told("A host's key is not the one it had", errors(done.stderr), 1, LEFT)
    bilbo("destroy", "sick", "-y")
    nothing_is_left(bilbo.home)
