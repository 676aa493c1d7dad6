"""The command `check`: the same versions on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bilbo.cli.context import Context, pass_context
from bilbo.cli.hosts import TIMEOUT_OPTION, reaching
from bilbo.cli.look import JSON_OPTION
from bilbo.cli.names import CLUSTER
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.errors import BilboError, PartlyDone

if TYPE_CHECKING:
    from bilbo.cluster.check import Checked


@click.command(short_help="Compare package versions.")
@click.argument("name", type=CLUSTER)
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False),
    help="Your environment's Python; else the one that runs bilbo.",
)
@TIMEOUT_OPTION
@JSON_OPTION
@pass_context
def check(
    context: Context, name: str, python: str | None, timeout: float | None, as_json: bool
) -> None:
    """Compare Python and its packages on all hosts of the cluster NAME, and here.

    \b
    What breaks keeps hosts, or your own Client, from working together: Python's
    minor version, distributed, msgpack and cloudpickle. The exit code is 1 if
    hosts do not fit together, 3 if some cannot be asked, else 0: also when only
    the local Python does not fit.

    \b
    Examples:
      bilbo check test
      bilbo check test --python ~/venv/bin/python
      bilbo check test --json
    """
    from bilbo import report, versions
    from bilbo.cluster.check import check as check_cluster

    record = context.store.load(name)
    with reaching(context, record, timeout) as w:
        found = check_cluster(record, w, python)
    if as_json:
        print_json(_document(name, found))
    else:
        where = found.reference.where
        if found.differences:
            echo_table(versions.rows(found.differences, where))
        else:
            echo(report.versions_text(where, found.differences))
        for line in report.mending(found.local_differences):
            echo(line)
    _judge(name, found)


def _judge(name: str, found: Checked) -> None:
    """Raises BilboError where hosts do not fit together, PartlyDone where some kept silent."""
    if found.broken_hosts:
        count = len({each.where for each in found.broken_hosts})
        raise BilboError(
            f"{count} host(s) of cluster {name!r} cannot work with {found.reference.where}",
            hint="Use the same image for all roles, or bring the versions together with "
            "`packages` in the profile.",
        )
    if found.failures:
        raise PartlyDone(
            f"{len(found.failures)} host(s) of cluster {name!r} could not be asked",
            details=tuple(
                f"{node.role} {node.instance_id}: {why.what}" for node, why in found.failures
            ),
        )


def _document(name: str, found: Checked) -> dict[str, Any]:
    from bilbo.versions import mend

    return {
        "cluster": name,
        "reference": found.reference.where,
        "hosts": [
            {
                "where": each.where,
                "role": node.role,
                "instance_id": node.instance_id,
                "python": each.python,
                "packages": dict(each.packages),
            }
            for node, each in found.hosts
        ],
        "local": {
            "executable": found.python,
            "python": found.local.python,
            "packages": dict(found.local.packages),
        },
        "differences": [
            {
                "where": each.where,
                "package": each.package,
                "version": each.version,
                "expected": each.expected,
                "breaks": each.breaks,
            }
            for each in found.differences
        ],
        "install": mend(found.local_differences),
        "unreachable": {node.instance_id: why.what for node, why in found.failures},
    }
