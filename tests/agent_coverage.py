"""A step of `make coverage`: puts what was seen of the agent on hosts to the files it came from.

The agent is sent as text, and its modules are compiled under their names: coverage takes
`bilbo.agent.serve` for a file in the folder where the host's Python ran.
"""

from __future__ import annotations

from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "bilbo" / "agent"


def main() -> None:
    """Writes what each data file has of the agent's modules into another beside it."""
    for path in ROOT.glob(".coverage.*"):
        data = CoverageData(str(path))
        data.read()
        seen = {
            str(AGENT / f"{Path(name).name.removeprefix('bilbo.agent.')}.py"): data.lines(name)
            for name in data.measured_files()
            if Path(name).name.startswith("bilbo.agent.")
        }
        if seen:
            found = CoverageData(f"{path}.agent")
            found.add_lines({name: lines or () for name, lines in seen.items()})
            found.write()


if __name__ == "__main__":
    main()
