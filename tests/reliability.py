"""docs/reliability.md: a test produces each row, and checks that the page has it.

With BILBO_WRITE_DOCS=1 in the environment the tests write their rows instead.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from filelock import FileLock

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
_HEADING = """# When things break

What you see when something breaks, and what is left behind. A test on the stand-in AWS writes
and checks each row. `…` replaces ids, addresses, times and folders.

A laptop that dies while `create` or `scale` works leaves a worker group open. AWS goes on to launch
the workers that were asked for, and no more; the next `create`, `scale` or `restart` closes the
group, and `create` or `scale` takes them in. A new group is closed by Terraform, too, once it has
its workers. AWS may replace workers of a new group in its first 2 seconds alone, which the provider
cannot prevent; after that, only if bilbo died within them and Terraform could not close the group.

| fault | what is shown | exit code | what is left |
|---|---|---|---|
"""
_VARYING = (
    (r"\[\d+\] (worker|scheduler|notebook)", r"\1"),
    (r"\b(i|sg|lt|ami|subnet|vol|vpc|eni)-[0-9a-f]{8,17}\b", r"\1-…"),
    (r"\b127\.\d+\.\d+\.\d+(:\d+)?", "ADDRESS"),
    (r"RequestID: [\w-]+", "RequestID: …"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "…"),
    (r"(/[\w.-]+)+/(clusters|local|\.ssh)\b", r"~/.bilbo/\2"),
    (r"\b(pid|port) \d+", r"\1 …"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([+-]\d\d:\d\d)?", "TIME"),
    (r"\bus-east-1[b-f]\b", "us-east-1a"),  # whichever zone's default subnet sorts first
    (r"SHA256:[\w+/]+", "SHA256:…"),
    (r"[0-9a-f]{40,}", "…"),
)


def settled(text: str) -> str:
    """`text` without the parts that differ from run to run."""
    for pattern, shown in _VARYING:
        text = re.sub(pattern, shown, text)
    return text


def told(fault: str, shown: str, code: int, left: str) -> None:
    """Asserts that the page has this row, word for word."""
    lines = [re.sub(r"([|<>])", r"\\\1", line) for line in settled(shown).strip().splitlines()]
    text = "<br>".join(line.replace("  ", "&nbsp; ") for line in lines)
    row = f"| {fault} | {text} | {code} | {left} |"
    with FileLock(str(PAGE) + ".lock"):
        rows = _rows()
        if os.environ.get("BILBO_WRITE_DOCS"):
            rows[fault] = row
            PAGE.write_text(_HEADING + "".join(f"{line}\n" for line in rows.values()))
    Path(str(PAGE) + ".lock").unlink(missing_ok=True)
    assert rows.get(fault) == row, f"docs/reliability.md is out of date; the new row:\n{row}"


def _rows() -> dict[str, str]:
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    body = text.partition("|---|---|---|---|\n")[2]
    return {line.split(" | ")[0].removeprefix("| "): line for line in body.splitlines()}


def errors(stderr: str) -> str:
    """bilbo's final error: its output from its own error on."""
    start = stderr.rfind("\nbilbo: ")
    return stderr[start + 1 :] if start >= 0 or stderr.startswith("bilbo: ") else ""
