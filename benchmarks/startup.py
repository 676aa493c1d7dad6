"""How long does bilbo take to start, in addition to click?"""

from __future__ import annotations

import sys

from bench import Bound, Result, Size, environment, interleaved, main, median, run, spread

from bilbo.record import Record, Store, now

LIMIT_MS = 60.0


def measure(size: Size) -> Result:
    """`version`, `--help`, `clusters` and `desc` against `python -c "import click"`."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = Store(home)
        store.prepare()
        store.save(Record("one", "ready", "us-east-1", "dask", now(), {}, ""))
        env = environment(home)
        commands = {
            "python -c 'import click'": [sys.executable, "-c", "import click"],
            **{
                f"bilbo {words}": [sys.executable, "-m", "bilbo", *words.split()]
                for words in ("version", "--help", "clusters", "desc one")
            },
        }
        contenders = {
            name: (lambda argv=argv: run(argv, env=env)) for name, argv in commands.items()
        }
        interleaved(contenders, 1)  # warms the disk's cache, and writes bytecode
        found = interleaved(contenders, 1 if size.smallest else 20)
    walls = {name: [1000 * cost.wall for cost in costs] for name, costs in found.items()}
    base, *ours = walls
    table: list[list[object]] = [["command", "wall in ms", "over click in ms"]]
    bounds = []
    for name in walls:
        over = median([a - b for a, b in zip(walls[name], walls[base], strict=True)])
        table.append([f"`{name}`", spread(walls[name], 0), f"{over:.0f}" if name != base else ""])
        if name in ours:
            bounds.append(Bound(f"`{name}` over click, in ms", LIMIT_MS, over))
    installed = "with" if _has_jupyter() else "without"
    return Result(
        "How long does bilbo take to start, in addition to click?",
        table,
        bounds,
        [f"In an environment {installed} JupyterLab installed; median, minimum and maximum."],
    )


def _has_jupyter() -> bool:
    import importlib.util

    return importlib.util.find_spec("jupyterlab") is not None


if __name__ == "__main__":
    main(measure)
