"""The read-only commands: `clusters`, `desc`, `drift`, `check`, `logs`, `profiles`, and pages.

They import little; docs/design.md explains the late imports.
"""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bilbo.cli.context import Context, pass_context, target_of, work
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.cli.pages import open_dashboard, open_notebook
from bilbo.cli.params import (
    CLUSTER,
    FORMAT_OPTION,
    JSON_OPTION,
    TARGET,
    TIMEOUT_OPTION,
)
from bilbo.cli.reaching import awake, numbers_of, reaching
from bilbo.errors import BilboError, PartlyDone, ProfileError, RecordError
from bilbo.present import report
from bilbo.record import Record, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from bilbo.cluster.compatibility import Checked
    from bilbo.model import Inventory, Node


@click.command(short_help="List active clusters.")
@click.option("--refresh", is_flag=True, help="Ask AWS and the hosts what runs.")
@JSON_OPTION
@pass_context
def clusters(context: Context, refresh: bool, as_json: bool) -> None:
    """List active clusters: a table on a terminal, one name per line elsewhere.

    \b
    --refresh asks AWS and the hosts of every cluster at once and always prints the
    table, followed by what is not as recorded; the exit code is then 3.

    \b
    Examples:
      bilbo clusters
      bilbo clusters --refresh
      bilbo clusters --json
      bilbo clusters | xargs -n 1 bilbo desc
    """
    names = context.store.names()
    if not as_json and not refresh and not sys.stdout.isatty():
        echo("".join(f"{name}\n" for name in names), nl=False)
        return
    records, damaged = [], []
    for name in names:
        try:
            records.append(context.store.load(name))
        except RecordError:
            damaged.append(name)
    if refresh:
        from bilbo.cli.refreshing import show_all

        show_all(context, records, damaged, as_json=as_json)
    elif as_json:
        print_json(report.clusters_document(records, damaged))
    elif names:
        from bilbo.cli.spending import spent

        echo_table(report.clusters(records, damaged, spent(context, records)))
    else:
        echo("No clusters.", err=True)


@click.command(short_help="Describe a cluster.")
@click.argument("name", type=CLUSTER)
@click.option("-d", "--detail", "--json", is_flag=True, help="Print the whole record as JSON.")
@click.option("--refresh", is_flag=True, help="Ask AWS and the hosts what runs.")
@click.option("--state", is_flag=True, help="List Terraform's resources and outputs.")
@pass_context
def desc(context: Context, name: str, detail: bool, refresh: bool, state: bool) -> None:
    """Describe the cluster NAME.

    \b
    --refresh asks AWS, the hosts and the engine's head at once, for ten seconds at
    most: what runs, what has ended and how, who has joined. The exit code is 3 if
    something is not as recorded.

    \b
    Examples:
      bilbo desc test
      bilbo desc test -d
      bilbo desc test --refresh
      bilbo desc test --state --json
    """
    record = context.store.load(name)
    if state:
        _show_state(context, record, as_json=detail)
        return
    if refresh:
        from bilbo.cli.refreshing import show_one

        show_one(context, record, _describe, as_json=detail)
    elif detail:
        print_json(to_json(record))
    else:
        _describe(record)


def _describe(record: Record) -> None:
    echo(report.summary(record))
    echo(f"\nTerraform's folder:   {record.terraform_dir}", err=True)


def _show_state(context: Context, record: Record, *, as_json: bool) -> None:
    from bilbo.cli.context import target_of, work
    from bilbo.present.state_listing import state_document, state_text

    with work(context, target_of(context, record)) as w:
        terraform = w.terraform(record.name)
        document = state_document(str(terraform.folder), terraform.state())
    if as_json:
        print_json(document)
    else:
        echo(state_text(document))


URL_OPTION = click.option("-u", "--url", is_flag=True, help="Print the URL instead of opening it.")


@click.command(short_help="Open notebook.")
@click.argument("name", type=CLUSTER)
@URL_OPTION
@pass_context
def notebook(context: Context, name: str, url: bool) -> None:
    """Open the JupyterLab of the cluster NAME in the browser.

    \b
    Examples:
      bilbo notebook test
      bilbo notebook test -u
    """
    record = _found_again(context, name, lambda there: there.notebook)
    open_notebook(context.store, record, only_print=url)


@click.command(short_help="Open dashboard.")
@click.argument("name", type=CLUSTER)
@URL_OPTION
@pass_context
def dashboard(context: Context, name: str, url: bool) -> None:
    """Open the engine dashboard of the cluster NAME in the browser.

    \b
    Examples:
      bilbo dashboard test
      bilbo dashboard test -u
    """
    record = _found_again(context, name, lambda there: there.head)
    open_dashboard(context.store, record, only_print=url)


def _found_again(context: Context, name: str, needed: Callable[[Inventory], Node | None]) -> Record:
    """Returns the record with its machines' present addresses: AWS may have given the recorded one
    to somebody else, who would be sent the token. Raises BilboError if the machine that is `needed`
    does not run."""
    from bilbo.cluster.whereabouts import present

    record = awake(context, name)
    if not any(True for _ in record.inventory.nodes()):
        return record
    with work(context, target_of(context, record)) as w:
        return present(record, w, needed(record.inventory))


@click.command(short_help="List all profiles.")
@JSON_OPTION
@pass_context
def profiles(context: Context, as_json: bool) -> None:
    """List all profiles in bilbo's home, one name per line.

    \b
    Examples:
      bilbo profiles
      bilbo profiles --json
    """
    paths = sorted((context.home / "profiles").glob("*.json"))
    if as_json:
        print_json([_profile_document(path) for path in paths])
    else:
        echo("".join(f"{path.name}\n" for path in paths), nl=False)


def _profile_document(path: Path) -> dict[str, object]:
    from bilbo.profile.parsing import read

    document: dict[str, object] = {"name": path.name, "path": str(path)}
    try:
        document["description"] = read(path).get("description", "")
    except ProfileError as error:
        document["error"] = str(error)
    return document


# -- drift ---------------------------------------------------------------------------------


@click.command(short_help="Show changes made outside Terraform.")
@click.argument("name", type=CLUSTER)
@FORMAT_OPTION
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there is drift, else 0.")
@pass_context
def drift(context: Context, name: str, form: str, as_json: bool, detailed_exitcode: bool) -> None:
    """Show changes to the cluster NAME that were made outside Terraform. Changes nothing.

    \b
    Examples:
      bilbo drift test
      bilbo drift test --format markdown --detailed-exitcode
    """
    from bilbo.cluster.drift import drift as look_for_drift
    from bilbo.present import report
    from bilbo.present.document import drift_document
    from bilbo.present.markdown import drift_markdown
    from bilbo.present.review_text import drift_text

    record = context.store.load(name)
    with work(context, target_of(context, record)) as w:
        found = look_for_drift(record, w)
    lines = report.reality_lines(found.instances)
    if as_json or form == "json":
        instances = [asdict(each) for each in found.instances]
        print_json(drift_document(name, record.region, found.review, instances))
    elif form == "markdown":
        text = drift_markdown(name, record.region, found.review, lines)
        echo(text.rstrip("\n"))
    else:
        echo(drift_text(name, found.review, lines))
    if detailed_exitcode and found:
        raise click.exceptions.Exit(2)


@click.command(short_help="Compare package versions.")
@click.argument("name", type=CLUSTER)
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False),
    help="Your environment's Python; default: the one that runs bilbo.",
)
@TIMEOUT_OPTION
@JSON_OPTION
@pass_context
def check(
    context: Context, name: str, python: str | None, timeout: float | None, as_json: bool
) -> None:
    """Compare Python and its packages on all hosts of the cluster NAME and on this machine.

    \b
    A difference that breaks the cluster or your own Client is marked: Python's
    minor version, distributed, msgpack or cloudpickle. The exit code is 1 if
    hosts are incompatible, 3 if some are unreachable, and 0 otherwise, even if
    the local Python is incompatible.

    \b
    Examples:
      bilbo check test
      bilbo check test --python ~/venv/bin/python
      bilbo check test --json
    """
    from bilbo import versions
    from bilbo.cluster.check import check as check_cluster
    from bilbo.present import report

    record = awake(context, name)
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
    """Raises BilboError if hosts are incompatible, PartlyDone if some did not answer."""
    if found.broken_hosts:
        count = len({each.where for each in found.broken_hosts})
        raise BilboError(
            f"{count} host(s) of cluster {name!r} cannot work with {found.reference.where}",
            hint="Use one image for all roles, or align the versions with `packages` in the "
            "profile.",
        )
    if found.failures:
        raise PartlyDone(
            f"{len(found.failures)} host(s) of cluster {name!r} did not answer",
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


def _checked_services(
    _ctx: click.Context, _param: click.Parameter, services: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns service names, which are file names on the host, never paths. Raises BadParameter."""
    for name in services:
        if not re.fullmatch("[a-z][a-z0-9-]{0,40}", name):
            raise click.BadParameter(f"{name[:40]!r} is not a service name, such as dask-worker.")
    return services


@click.command(short_help="Show service logs.")
@click.argument("name", type=CLUSTER)
@click.argument("target", type=TARGET, required=False)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 100_000), default=100, show_default=True,
    help="How many lines from the end.",
)  # fmt: skip
@click.option(
    "-s",
    "--service",
    multiple=True,
    callback=_checked_services,
    help="Only this service, such as dask-worker; init is init_cmd.",
)
@TIMEOUT_OPTION
@pass_context
def logs(
    context: Context,
    name: str,
    target: str | None,
    follow: bool,
    lines: int,
    service: tuple[str, ...],
    timeout: float | None,
) -> None:
    """Show the logs of the cluster NAME: JupyterLab, head and workers.

    \b
    TARGET is a number from `bilbo desc`, a role (notebook, scheduler, head,
    workers, all), a worker group, an instance id or an address; the default is
    all. With several instances, each line starts with its instance's number.

    \b
    Examples:
      bilbo logs test
      bilbo logs test scheduler -f
      bilbo logs test 3 -n 1000
      bilbo logs test -s init
    """
    from bilbo.cli.streams import HostStreams
    from bilbo.cluster import host_access, targets
    from bilbo.remote import LogLines

    record = awake(context, name)
    nodes = targets.resolve(record, target, otherwise="all")
    streams = HostStreams(numbers_of(record, nodes))
    seen: list[bool] = []

    def show(found: LogLines) -> None:
        seen.extend([True] * bool(found.lines))
        text = "".join(f"{line}\n" for line in found.lines)
        streams.write(found.node.instance_id, text.encode(errors="replace"), False)

    with reaching(context, record, timeout) as w:
        host_access.logs(
            w, record, nodes, on_lines=show, services=service, lines=lines, follow=follow
        )
    if not seen:
        echo("No log lines found.", err=True)
