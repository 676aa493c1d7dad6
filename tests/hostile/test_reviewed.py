"""Whoever proposes a change, or writes the shared state, hides nothing from who reviews it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bilbo import hostside
from bilbo.cluster.host_settings import told_spec
from bilbo.cluster.shared_state import told_digests
from bilbo.errors import ProfileError, RecordError
from bilbo.hostside import OTHER, SAME, UNTOLD, Known
from bilbo.model import ClusterSpec
from bilbo.plans import read
from bilbo.present.document import plan_document
from bilbo.present.markdown import plan_markdown
from bilbo.present.settings import settings_text
from bilbo.present.state_listing import state_document, state_text
from bilbo.profile import building, checking, loading
from bilbo.profile.checking import schema
from bilbo.render import render
from bilbo.text import visible, without_credentials

PLAN = json.loads(
    (Path(__file__).parents[2] / "schemas" / "plan-01.schema.json").read_text(encoding="utf-8")
)
INSTANCE = {
    "ami": "ami-12345678",
    "ec2type": "t3.micro",
    "keyname": "k",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.ssh/k.pem",
}
# Another good value for every key of a profile's schema.
OTHERS: dict[str, Any] = {
    "description": "another",
    "region": "eu-west-1",
    "webbrowser": "/tmp/evil",
    "access": {"cidrs": ["198.51.100.0/24"]},
    "access.public": True,
    "state": {"bucket": "another-bucket"},
    "ami": "ami-87654321",
    "ec2type": "m5.large",
    "keyname": "other",
    "ssh_user": "root",
    "ssh_private_key": "/etc/shadow",
    "security_group": "sg-87654321",
    "ssh_port": 2222,
    "vol_size": 99,
    "tags": {"a": "other"},
    "subnet": "subnet-87654321",
    "iam_instance_profile": "admin",
    "init_cmd": ["touch /tmp/evil"],
    "packages": ["evil==1.0"],
    "count": 7,
    "nproc": 7,
    "nthread": 7,
    "num_cpus": 7,
    "num_gpus": 7,
    "object_store_memory": 700000000,
    "resources": {"GPU": 7},
    "ray.head.resources": {"slot": 7},
    "ray.worker.resources": {"slot": 7},
    "env": {"LD_PRELOAD": "/tmp/evil.so"},
    "args": ["--preload", "/tmp/evil.py"],
    "config": {"distributed": {"worker": {"preload": ["/tmp/evil.py"]}}},
}


def nested(levels: int) -> Any:
    """A list in a list, and so on."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def spec(document: dict[str, Any]) -> ClusterSpec:
    """The cluster of a profile that is good."""
    checking.check_profile(document)
    return building.build(document, "team", "us-east-1")


def document(engine: str = "dask") -> dict[str, Any]:
    """A profile with a notebook and an engine."""
    return {
        "region": "us-east-1",
        "access": {"cidrs": ["203.0.113.0/24"]},
        "instance": dict(INSTANCE),
        "notebook": {},
        engine: {"worker": {"count": 1}},
    }


def places() -> list[tuple[str, ...]]:
    """The path of every key that a profile can have, but what has no effect and what an AMI is
    named by."""
    whole, found = schema(), []

    def walk(part: dict[str, Any], path: tuple[str, ...]) -> None:
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].rpartition("/")[2]]
        for key, child in part.get("properties", {}).items():
            if key in OTHERS:
                found.append((*path, key))
            elif key not in ("$schema", "image"):
                walk(child, (*path, key))

    walk(whole, ())
    return [*found, ("access", "public")]


@pytest.mark.parametrize("place", places(), ids=".".join)
def test_every_key_is_in_terraforms_plan_or_in_the_review(place: tuple[str, ...]) -> None:
    """A change of any key changes the HCL, or is named by what is shown beside it."""
    before = document("ray" if place[0] == "ray" else "dask")
    after = copy.deepcopy(before)
    part = after
    for step in place[:-1]:
        part = part.setdefault(step, {})
    part[place[-1]] = OTHERS.get(".".join(place), OTHERS.get(place[-1]))
    one, other = spec(before), spec(after)
    settings = hostside.compare(other, Known(hostside.values(one)))
    assert render(one) != render(other) or any(each.changed for each in settings)
    assert not hostside.compare(one, Known(hostside.values(one)))


def shown(other: ClusterSpec, known: Known) -> tuple[str, str, str]:
    """What a review says of a change, in its three forms."""
    import jsonschema  # late, as it is slow to import

    settings = hostside.compare(other, known)
    found = read({})
    more: dict[str, Any] = {"sizes": {}, "prices": {}, "warnings": [], "settings": settings}
    made = plan_document(other, found, **more)
    jsonschema.validate(made, PLAN)
    return (
        settings_text(settings),
        plan_markdown(other, found, **more),
        json.dumps(made, ensure_ascii=False),
    )


def with_commands(*commands: str) -> ClusterSpec:
    """A cluster that runs these on its hosts."""
    made = document()
    made["instance"]["init_cmd"] = list(commands)
    return spec(made)


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("true; " + "x" * 3000 + "; evil", "; evil"),
        ("a\u200bb\u202eevil\u2066", "a\\u200bb\\u202eevil\\u2066"),
        ("\x1b[2Kevil\x9b", "\\u001b[2Kevil\\u009b"),
        ("evil\n```\n</details>\n**Nothing to do.**", "evil\\n```\\n</details>"),
        ("curl https://$(evil)@example.com/", "https://$(evil)@example.com/"),
        ("curl https://`evil`@example.com/", "https://`evil`@example.com/"),
        ("curl https://a;evil@example.com/", "a;evil@"),
    ],
)
def test_a_command_is_shown_whole(command: str, seen: str) -> None:
    """No length, character, Markdown or URL hides what would be run."""
    text, marked, made = shown(with_commands(command), Known(hostside.values(with_commands())))
    assert seen in text
    assert seen in marked
    assert command in json.loads(made)["settings"][0]["after"]
    assert "\n```\n" not in marked.split("```diff")[0]
    for char in ("\u200b", "\u202e", "\x1b", "\x9b"):
        assert char not in text + marked
    assert "\n**Nothing to do.**" not in marked


def test_what_is_too_long_for_a_comment_says_so() -> None:
    """A comment that cannot hold every command says that there are more."""
    commands = [f"echo {number} {'x' * 900}" for number in range(99)]
    _, marked, made = shown(with_commands(*commands), Known(hostside.values(with_commands())))
    assert len(marked) < 60_000
    assert "**The rest is too long for a comment; `--format json` has it.**" in marked
    assert commands[-1] in json.loads(made)["settings"][0]["after"]


def test_one_line_among_many() -> None:
    """A line that is put into a long list is shown, and the many that stay are not."""
    before = [f"echo {number}" for number in range(100)]
    after = [*before[:50], "evil", *before[50:]]
    text, marked, _ = shown(
        with_commands(*after[:100]), Known(hostside.values(with_commands(*before)))
    )
    assert '+ "evil"' in text
    assert '+     "evil"' in marked
    assert '"echo 3"' not in text


def test_passwords_in_urls_are_taken_out() -> None:
    """They are in no form of the review; that they differ is."""
    one = with_commands("git clone https://user:hunter2@example.com/x")
    other = with_commands("git clone https://user:hunter3@example.com/x")
    for each in shown(other, Known(hostside.values(one))):
        assert "hunter" not in each
        assert "https://***@example.com/x" in each
    assert "+ " in shown(other, Known(hostside.values(one)))[0]
    assert without_credentials("a@b https://x/?a@b") == "a@b https://x/?a@b"


def test_passwords_in_urls_are_in_no_error(tmp_path: Path) -> None:
    """What refuses one does not print it, neither from a file nor from `-p`; and where an old bilbo
    has written one into a state, `desc --state` does not show it."""
    path = tmp_path / "team.json"
    line = "--index-url https://user:hunter2@example.com/simple"
    for packages, given in (([line], ()), ([], (f'instance.packages=["{line}"]',))):
        made = document()
        made["instance"]["packages"] = packages
        path.write_text(json.dumps(made), encoding="utf-8")
        with pytest.raises(ProfileError) as caught:
            loading.load(str(path), tmp_path, overrides=given)
        assert "a password or token" in str(caught.value)
        assert "hunter2" not in str(caught.value)
    old = {"outputs": {"profile": {"value": {"instance": {"packages": [line]}}}}}
    state = state_document("/folder", old)
    assert "hunter2" not in json.dumps(state) + state_text(state)


@pytest.mark.parametrize("text", ["plain", "클러스터 ö", "a b"])
def test_what_can_be_read_stays(text: str) -> None:
    """Nothing is written out that anybody can read."""
    assert visible(text) == text


# -- the shared state -----------------------------------------------------------------------


def told(there: ClusterSpec) -> Known:
    """What the shared state of a cluster tells of it."""
    private = (*hostside.HASHED, *hostside.OWN)
    open_ones = {k: v for k, v in hostside.values(there).items() if k[1] not in private}
    return Known(open_ones, hostside.digests(there), shared=True)


def test_a_state_hides_no_command() -> None:
    """Whoever writes the hash of a command there has not made it unseen."""
    evil = with_commands("evil")
    text, marked, made = shown(evil, told(evil))
    for each in (text, marked, made):
        assert "evil" in each
        assert SAME in each
    assert "**Nothing to do.**" in marked
    (setting,) = (s for s in json.loads(made)["settings"] if s["key"] == "init_cmd")
    assert setting["changed"] is False


def test_what_the_state_says_is_another() -> None:
    """A command that is not the one of the hash is a change, and so is its absence."""
    for ours in (with_commands("good"), with_commands()):
        settings = hostside.compare(ours, told(with_commands("other")))
        (found,) = (each for each in settings if each.key == "init_cmd")
        assert (found.before, found.changed) == (OTHER, True)
        assert hostside.unlike(ours, hostside.digests(with_commands("other")))
    assert not hostside.unlike(with_commands("x"), None)


def test_a_state_of_before_tells_no_hashes() -> None:
    """Then a command counts as a change, and none as none."""
    old = replace(told(with_commands()), digests=None)
    (found,) = (e for e in hostside.compare(with_commands("x"), old) if e.key == "init_cmd")
    assert (found.before, found.changed) == (UNTOLD, True)
    assert not any(each.changed for each in hostside.compare(with_commands(), old))


def test_what_is_remembered_goes_by_the_hash() -> None:
    """What this machine remembers is what was, if it has the state's hash; else the state's word
    stands. What is a person's own is remembered in any case."""
    was = hostside.remembered(told(with_commands("was")), with_commands("was"))
    (found,) = hostside.compare(with_commands("is"), was)
    assert (found.key, found.before, found.after) == ("init_cmd", ["was"], ["is"])
    stale = hostside.remembered(told(with_commands("was")), with_commands("older"))
    (found,) = hostside.compare(with_commands("older"), stale)
    assert (found.before, found.changed) == (OTHER, True)
    made = document()
    made["webbrowser"] = "/tmp/evil"
    (found,) = hostside.compare(
        spec(made), hostside.remembered(told(spec(document())), spec(document()))
    )
    assert (found.key, found.before, found.changed) == ("webbrowser", None, True)


def test_a_persons_own_is_shown_where_nobody_remembers() -> None:
    """On a machine that has never seen the cluster, a browser and a key's path are shown."""
    made = document()
    made["webbrowser"] = "/tmp/evil"
    text, marked, _ = shown(spec(made), told(spec(made)))
    for each in (text, marked):
        assert "/tmp/evil" in each
        assert "~/.ssh/k.pem" in each
    assert "**Nothing to do.**" in marked


def test_no_command_is_in_the_hcl() -> None:
    """Commands and packages are in the rendered files by their hashes alone, and each cluster has
    hashes of its own."""
    made = document()
    made["state"] = {"bucket": "team-state"}
    made["instance"] |= {"init_cmd": ["echo hunter2"], "packages": ["hunter3"]}
    text = "".join(render(spec(made)).values())
    assert "hunter" not in text
    assert hostside.digests(spec(made))["worker"]["init_cmd"] in text
    other = replace(spec(made), name="other")
    assert hostside.digests(other) != hostside.digests(spec(made))


@pytest.mark.parametrize(
    "hashes", [[], "x", 3, {"a": 3}, {"a": ["x"]}, {"a": {"init_cmd": "x"}}, {"a": {"b": None}}]
)
def test_hashes_that_are_none(hashes: Any) -> None:
    """What is no hash in a state's outputs is refused."""
    with pytest.raises(RecordError, match="bilbo did not write the hashes"):
        told_digests({"host_side": hashes})
    assert told_digests({}) is None
    assert told_digests({"host_side": {"worker": {}}}) == {"worker": {}}


@pytest.mark.parametrize(
    "profile_there",
    [
        None,
        [],
        {"region": 3},
        {"description": nested(900)},
        {"dask": {"worker": [3]}},
        {"dask": {"worker": {"nproc": "x"}}},
        {},
    ],
)
def test_a_told_profile_that_is_none(profile_there: Any) -> None:
    """What is no profile in a state's outputs is refused with a named error."""
    if profile_there == {}:
        assert told_spec({}, "team", "us-east-1").name == "team"
        return
    with pytest.raises(RecordError, match="bilbo did not write the profile"):
        told_spec(profile_there, "team", "us-east-1")
