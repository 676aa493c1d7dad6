"""Every wait of bilbo's commands, and of what runs on hosts, has a deadline: looked at in the code
itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bilbo"
# Coroutines that wait for as long as their callers let them: each of their callers has a deadline.
CALLERS_DECIDE = {
    ("remote/agent_session.py", "event"): "`within` has one; watching has none, see below",
    ("remote/roll.py", "wait"): "`until_joined` has one",
    ("remote/fetching.py", "*"): "`Moving.watched` ends a copy that does not move",
}
# Waits whose deadline, or whose reason to have none, is elsewhere: by file, function and text.
ELSEWHERE = {
    ("remote/bringup.py", "_steps", "self.head_started.wait()"): "the head's host has deadlines",
    ("remote/bringup.py", "_notebook", "self.head_measured.wait()"): "the head's host has them",
    (
        "remote/bringup.py",
        "_worker",
        "(self.head_started if self.plan.patient else self.head_settled).wait()",
    ): "the head's host has deadlines",
    (
        "remote/bringup.py",
        "_keep_roll",
        "asyncio.wait((done, keeping), return_when=asyncio.FIRST_COMPLETED)",
    ): "every worker has a deadline, and is done then",
    ("remote/host.py", "keep_roll", "self._session.event()"): "ends with the last worker",
    ("remote/commands.py", "run_one", "stream.ended.wait()"): "a person's command may take days",
    ("remote/commands.py", "feed", "stream.takes_more.wait()"): "ends with the command",
    ("remote/commands.py", "feed", "stdin"): "ends with the command",
    (
        "remote/commands.py",
        "one",
        "session.event() if follow else session.within(seconds)",
    ): "following ends with Ctrl-C",
    ("remote/terminal.py", "attached", "stream.ended.wait()"): "a person sits before it",
    ("remote/transfer.py", "with_client", "connection.start_sftp_client()"): "`Moving.watched`",
    ("remote/transfer.py", "work", "client.put(source, in_home(target), recurse=True, "
     "preserve=True, follow_symlinks=True, progress_handler=moving.progress)"): "`Moving.watched`",
    (
        "remote/connection.py",
        "_log_in_over",
        "asyncssh.connect",
    ): "`log_in` has one",
    ("cluster/host_access.py", "main", "running"): "a person's command may take days",
    ("cluster/look.py", "where", "asyncio.wrap_future(asked)"): "`look` has a deadline for all",
    ("cluster/whereabouts.py", "__call__", "asyncio.shield(self._asked)"): "`found_in_aws`",
    ("cluster/whereabouts.py", "_ask", "asyncio.wrap_future(aside(lambda: "
     "found_in_aws(record, work)))"): "`found_in_aws`",
    ("agent/settings_dask.py", "dask_teardown", "_started.pop(id(nanny)).teardown()"): "a preload "
    "of the machine's own, which Dask awaits in the same way",
    ("cli/streams.py", "standard_input", "chunks.get()"): "a person types, or a pipe is slow",
    ("agent/await_dask.py", "answer", "asyncio.open_connection(host, DASHBOARD_PORT)"): "`SILENCE`",
    ("agent/await_dask.py", "answer", "reader.read(1)"): "`SILENCE`",
    (
        "agent/leave_dask.py",
        "on_scheduler",
        "dask_scheduler.retire_workers(workers=addresses, close_workers=True)",
    ): "the client ends the program",
    (
        "agent/leave_dask.py",
        "on_scheduler",
        "dask_scheduler.close_worker(each.address)",
    ): "the client ends the program",
}  # fmt: skip
# Coroutines of these modules whose names asyncio or asyncssh have too.
OWN = ("Session.open(", "Fetching(", "connect(node", "work(", "one(")
# Calls that may wait for ever unless they are told not to.
ENDLESS = {
    *("urlopen", "HTTPConnection", "HTTPSConnection", "create_connection"),
    *("run", "call", "check_call", "check_output", "communicate", "wait", "get", "join", "flock"),
}
# Those of the host's side that are not told, by file, function and called name.
ON_THE_HOST = {
    ("agent/channel.py", "requests", "get"): "the client's next request, or its end",
    ("agent/service.py", "locked", "flock"): "the client has a deadline",
    ("agent/serve.py", "on_init", "call"): "a person's command runs to its end",
    ("agent/software.py", "install", "call"): "pip runs to its end",
    ("agent/supervisor.py", "run", "wait"): "a service runs until it ends",
    ("agent/watcher.py", "main", "flock"): "LOCK_NB waits for nobody",
    ("agent/watcher.py", "main", "join"): "the watcher runs until it is ended",
    ("agent/supervisor.py", "main", "run"): "a service runs until it ends",
}
# The person's side, without `await`: by file, function and called name.
HERE = {
    ("aws/tagged.py", "start_instances", "wait"): "boto3's waiter gives up after ten minutes",
    ("aws/prerequisites.py", "problems", "result"): "boto3's clients have",
    ("aws/prerequisites.py", "notes", "result"): "boto3's clients have",
    ("cli/commands/hosts.py", "_become", "call"): "a person's ssh",
    ("cli/streams.py", "read", "acquire"): "a person's input waits for the host, which has one",
    ("cluster/apply.py", "_prepare", "result"): "`init` has one",
    ("cluster/create.py", "create", "result"): "`look` has one",
    ("record.py", "lock", "acquire"): "the lock itself has one",
    ("terraform/installing.py", "exclusive", "acquire"): "the lock itself has one",
    ("remote/host.py", "until_joined", "result"): "it is done",
    ("remote/bringup.py", "_keep_roll", "result"): "it is done",
    ("remote/transfer.py", "watched", "result"): "it is done",
}
ENDLESS_HERE = (ENDLESS - {"run"}) | {"subprocess.run", "result", "acquire", "recv", "readline"}


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of these folders, or single ones: their place and their code."""
    for folder in folders:
        place = PACKAGE / folder
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def in_functions(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node below, with the innermost function that it is in."""
    for child in ast.iter_child_nodes(tree):
        inside = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = child.name
        yield inside, child
        yield from in_functions(child, inside)


def called(node: ast.AST) -> str:
    """The last part of the name that is called; empty if nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def bounded(node: ast.AST, own: set[str]) -> bool:
    """Whether a wait ends by itself: it has a deadline, or is for a coroutine of `own`, whose waits
    are looked at too."""
    name = called(node)
    if not isinstance(node, ast.Call):
        return False
    options = {each.arg: each.value for each in node.keywords}
    if name in ("wait_for", "wait"):
        given = options.get("timeout") or (node.args[1] if len(node.args) > 1 else None)
        return given is not None and not (isinstance(given, ast.Constant) and given.value is None)
    return name in own or name in ("sleep", "gather")


def waits(place: str, tree: ast.Module) -> Iterator[tuple[str, str, ast.AST]]:
    """Whatever a module's coroutines wait for: `await`, `async with`, `async for`."""
    for function, node in in_functions(tree):
        if isinstance(node, ast.Await):
            yield place, function, node.value
        elif isinstance(node, ast.AsyncWith):
            for item in node.items:
                yield place, function, item.context_expr
        elif isinstance(node, ast.AsyncFor):
            yield place, function, node.iter


def test_every_wait_has_a_deadline() -> None:
    """Or a reason above, and no reason is left over."""
    modules = [(place, tree) for place, tree in sources("remote", "cluster", "cli", "agent")]
    # A name that asyncio or asyncssh has too says nothing.
    foreign = {"wait", "get", "connect", "open", "run", "read", "put", "event", "one", "work"}
    own = {
        node.name
        for _, tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
    } - foreign
    without, used = [], set()
    for place, tree in modules:
        for _, function, value in waits(place, tree):
            text = ast.unparse(value)
            if bounded(value, own) or text.startswith(OWN):
                continue
            reasons = [
                key
                for key in (*CALLERS_DECIDE, *ELSEWHERE)
                if key[0] == place
                and key[1] in (function, "*")
                and (len(key) == 2 or text == key[2] or text.startswith(key[2] + "("))
            ]
            used.update(reasons)
            if not reasons:
                without.append(f"{place}: {function}: {text}")
    assert not without, "\n".join(without)
    assert used == CALLERS_DECIDE.keys() | ELSEWHERE.keys()


def test_every_call_here_has_a_deadline() -> None:
    """What commands call that may wait, beside coroutines: `timeout`, or a reason above. Terraform
    and Packer at work have deadlines of their own, and follow Ctrl-C."""
    folders = ("aws", "cli", "cluster", "images", "remote", "terraform", "process.py", "record.py")
    without, used = [], set()
    for place, tree in sources(*folders):
        awaited = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.Await) or called(node) in ("ensure_future", "wait_for")
            for part in ast.walk(node)
        }
        for function, node in in_functions(tree):
            if not isinstance(node, ast.Call) or id(node) in awaited:
                continue
            name = called(node)
            name = name if name in ENDLESS_HERE else ast.unparse(node.func)
            # A number of seconds, or an item of a dict.
            told = bool(node.args) and name in ("get", "join", "wait", "result")
            if (
                name in ENDLESS_HERE
                and not told
                and "timeout" not in {each.arg for each in node.keywords}
            ):
                used.add((place, function, name))
                if (place, function, name) not in HERE:
                    without.append(f"{place}: {function}: {ast.unparse(node)}")
    assert not without, "\n".join(without)
    assert used == HERE.keys()


def test_every_call_on_a_host_has_a_deadline() -> None:
    """What the agent and its programs call that may wait: `timeout`, or a reason above."""
    without, used = [], set()
    for place, tree in sources("agent"):
        for function, node in in_functions(tree):
            name = called(node)
            assert isinstance(node, ast.Call) or not name
            if name not in ENDLESS or not isinstance(node, ast.Call):
                continue
            if name in ("get", "join") and node.args:  # of a dict, of a string
                continue
            if "timeout" in {each.arg for each in node.keywords}:
                continue
            used.add((place, function, name))
            if (place, function, name) not in ON_THE_HOST:
                without.append(f"{place}: {function}: {ast.unparse(node)}")
    assert not without, "\n".join(without)
    assert used == ON_THE_HOST.keys()
