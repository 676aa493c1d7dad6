"""What keeps Ray busy, by its head's own figures."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

from typing import List

from bilbo.agent.figures import Finding, asked, counted

PORT = 8265


def engine(host: str) -> List[Finding]:
    """Tasks, actors and objects of the head at `host`. The objects, which every worker is asked
    for, only where nothing else is."""
    # Ray looks for `=` where actors are kept, which may be many. One that starts is a task.
    lists = (
        ("task", "tasks", _filters("state", "!%3D", "FINISHED", "FAILED")),
        ("actor", "actors", _filters("state", "%3D", "ALIVE")),
        ("object", "objects", ""),
    )
    for name, path, filters in lists:
        place = {"host": host, "port": PORT, "path": f"/api/v0/{path}?limit=1{filters}"}
        told = asked(place)["data"]["result"]
        count = int(told["num_filtered"] if filters else told["total"])
        if count:
            verb = "holds" if name == "object" else "has"
            return [(f"Ray {verb} {counted(count, name)}", 0.0)]
    return []


def _filters(key: str, predicate: str, *values: str) -> str:
    """What the state API counts, as it is asked."""
    return "".join(
        f"&filter_keys={key}&filter_predicates={predicate}&filter_values={value}"
        for value in values
    )
