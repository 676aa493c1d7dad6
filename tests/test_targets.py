"""What TARGET, a cluster's name and a time on the command line mean, and what they cannot be."""

from __future__ import annotations

import re

import click
import pytest

from bilbo.cli.params import CLUSTER, SECONDS
from bilbo.cluster import targets
from bilbo.errors import BilboError, UsageError
from bilbo.model import Inventory, Node
from bilbo.record import Record, now


def node(number: int, role: str) -> Node:
    """Instance `i-N` of a role, at 10.0.0.N and 203.0.113.N."""
    return Node(
        role=role,
        group=role,
        instance_id=f"i-{number}",
        public_ip=f"203.0.113.{number}",
        private_ip=f"10.0.0.{number}",
        private_dns_name=f"ip-10-0-0-{number}.ec2.internal",
        ec2type="t3.micro",
        image_id="ami-1",
        key_name="key",
        ssh_user="ubuntu",
        ssh_private_key="~/key",
    )


WORKERS = (node(3, "worker"), node(4, "worker"))
BOTH = Inventory(node(1, "notebook"), node(2, "scheduler"), WORKERS)
DASK = Inventory(None, node(1, "scheduler"), (node(2, "worker"),))


def record(inventory: Inventory = BOTH) -> Record:
    """The record of a cluster `test` with these instances."""
    return Record("test", "ready", "us-east-1", "dask", now(), {}, "", inventory=inventory)


@pytest.mark.parametrize(
    ("words", "ids", "command"),
    [
        ("ls -l", "1", "ls -l"),
        ("-- 3 ls", "1", "3 ls"),
        ("-- workers", "1", "workers"),
        ("3 ls", "3", "ls"),
        ("003 ls", "3", "ls"),
        ("3 -- -x", "3", None),
        ("3 -- ls -- -x", "3", "ls -- -x"),
        ("workers ls", "34", "ls"),
        ("all -- all", "1234", "all"),
        ("scheduler ls", "2", "ls"),
        ("i-4 ls", "4", "ls"),
        ("10.0.0.2 ls", "2", "ls"),
        ("203.0.113.3 -- ls", "3", "ls"),
        ("ip-10-0-0-4.ec2.internal ls", "4", "ls"),
        ("ls -- x", None, None),
        ("../x", "1", "../x"),
    ],
)
def test_words(words: str, ids: str | None, command: str | None) -> None:
    """The first word is a TARGET if it is one or if `--` follows; the rest is the command."""
    if ids is None or command is None:
        with pytest.raises(UsageError):
            targets.split(record(), words.split())
        return
    nodes, found = targets.split(record(), words.split())
    assert ("".join(node.instance_id[2:] for node in nodes), found) == (ids, command)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["9", "ls"], "has no instance '9'"),
        (["0", "ls"], "has no instance '0'"),
        (["9" * 300, "ls"], f"has no instance '{'9' * 39}…'"),
        (["i-0123456789abcdef0", "ls"], "has no instance 'i-0123456789abcdef0'"),
        (["198.51.100.1", "ls"], "has no instance '198.51.100.1'"),
        (["../x", "--", "ls"], "has no instance '../x'"),
        (["-rf", "--", "ls"], "has no instance '-rf'"),
        (["x\0y", "--", "ls"], r"has no instance 'x\u0000y'"),
        (["x" * 300, "--", "ls"], f"has no instance '{'x' * 39}…'"),
        (["", "ls"], "TARGET is empty"),
        ([" ", "ls"], "TARGET is empty"),
        (["-rf", "/"], "'-rf /' is neither a TARGET of cluster 'test' nor a command"),
        (["all"], "no command to run"),
        (["--"], "no command to run"),
        ([], "no command to run"),
    ],
)
def test_words_that_are_refused(words: list[str], says: str) -> None:
    """What is no TARGET and no command is refused by name, on one line that any terminal shows."""
    with pytest.raises(UsageError) as refused:
        targets.split(record(), words)
    assert refused.value.what.endswith(says)
    assert refused.value.hint


@pytest.mark.parametrize("target", ["", "../x", "-rf", "5", "x" * 300, "\0", "NOTEBOOK", "²"])
def test_targets_that_are_refused(target: str) -> None:
    """No text but the documented ones ever names an instance."""
    with pytest.raises(UsageError, match="a number from 1 to 4") as refused:
        targets.resolve(record(), target)
    assert "notebook, scheduler, workers, all" in refused.value.hint


def test_roles_that_a_cluster_has_not() -> None:
    """Without a notebook the scheduler is the default, and `notebook` is refused."""
    assert [each.role for each in targets.resolve(record(DASK), None)] == ["scheduler"]
    with pytest.raises(UsageError, match=r"has no notebook\n.*one of scheduler, workers, all,"):
        targets.resolve(record(DASK), "notebook")
    with pytest.raises(BilboError, match="has no instances"):
        targets.resolve(record(Inventory()), "all")


def test_one_instance_is_needed() -> None:
    """A role of several is refused with their numbers; a role of one is that one."""
    with pytest.raises(UsageError, match="by its number: 3, 4"):
        targets.only(record(), "workers")
    assert targets.only(record(DASK), "workers").instance_id == "i-2"


@pytest.mark.parametrize("name", ["../x", "-rf", "", "x" * 300, "a/b", "a\0", "sg-1", "con", "é"])
def test_names_of_clusters_that_are_refused(name: str) -> None:
    """What could leave bilbo's folder, or be no tag, is no cluster's name."""
    with pytest.raises(UsageError, match="the cluster's name"):
        CLUSTER.convert(name, None, None)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "", "86401", "1e400"])
def test_times_that_are_refused(text: str) -> None:
    """`--timeout` takes seconds above 0 and at most a day."""
    with pytest.raises(click.UsageError, match=re.escape(repr(text))):
        SECONDS.convert(text, None, None)
    assert SECONDS.convert("1.5", None, None) == 1.5
