"""Hypothesis strategies for profiles, valid and broken, full of texts that break careless tools."""

from __future__ import annotations

import copy
import ipaddress
import json
import os
import string
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st


def examples(whole: int) -> int:
    """How many inputs a property is tried with: `make quick` tries a tenth of what CI does."""
    return whole // 10 if os.environ.get("BILBO_QUICK") else whole


FRAGMENTS = (
    *(
        "${",
        "}",
        "${var.x}",
        "%{",
        "%{ if true }",
        "$${",
        "%%{",
        "$(reboot)",
        "`id`",
        ";",
        "&&",
        "|",
    ),
    *(
        '"',
        "'",
        '\\"',
        "\\",
        "\\n",
        "\n",
        "\r\n",
        "\t",
        " ",
        "#",
        "//",
        "/*",
        "*/",
        "<<EOF",
        "{{ x }}",
    ),
    *(
        "클러스터",
        "é",
        "e\u0301",
        "ß",
        "😀",
        "\u202e",
        "\ufeff",
        "../",
        "-rf",
        "~",
        "*",
        "?",
        "!",
        "\x1b[31m",
    ),
)
HEX = "0123456789abcdef"
FREE = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
PRINTED = st.characters(exclude_characters="\x7f", exclude_categories=["Cs", "Cc"])
PRINTED_FRAGMENTS = tuple(each for each in FRAGMENTS if min(each) >= " ")


@lru_cache
def texts(max_pieces: int = 4) -> st.SearchStrategy[str]:
    """Texts full of what HCL, shells, Jinja and terminals give a meaning to; never NUL."""
    piece = st.sampled_from(FRAGMENTS) | st.text(FREE, max_size=4)
    return st.lists(piece, max_size=max_pieces).map("".join)


@lru_cache
def one_line_texts(max_pieces: int = 4) -> st.SearchStrategy[str]:
    """As `texts`, without control characters."""
    piece = st.sampled_from(PRINTED_FRAGMENTS) | st.text(PRINTED, max_size=4)
    return st.lists(piece, max_size=max_pieces).map("".join)


def aws_ids(prefix: str) -> st.SearchStrategy[str]:
    """Ids of AWS resources, such as `ami-0f49fa254e1806b72`."""
    digits = st.sampled_from((8, 17)).flatmap(lambda n: st.text(HEX, min_size=n, max_size=n))
    return digits.map(lambda each: f"{prefix}-{each}")


def tags() -> st.SearchStrategy[dict[str, str]]:
    """Tags that AWS takes and bilbo does not keep for itself."""
    keys = one_line_texts().map(lambda each: f"k{each}"[:128])
    values = texts().map(lambda each: "".join(c for c in each if c >= " " and c != "\x7f")[:256])
    return st.dictionaries(keys, values, max_size=3)


REQUIRED = {
    "ami": aws_ids("ami"),
    "ec2type": st.sampled_from(("t3.micro", "m5.xlarge", "g3s.xlarge", "u-6tb1.56xlarge")),
    "keyname": st.text(string.ascii_letters + "${}%\"'\\;` ", max_size=20).map(lambda s: f"k{s}k"),
    "ssh_user": st.sampled_from(("ubuntu", "ec2-user", "_a.b")),
    "ssh_private_key": one_line_texts().map(lambda each: f"~/{each}"),
}
OPTIONAL = {
    "security_group": aws_ids("sg"),
    "ssh_port": st.integers(1, 65535),
    "vol_size": st.integers(1, 16384),
    "tags": tags(),
    "subnet": aws_ids("subnet"),
    "iam_instance_profile": st.text(string.ascii_letters + "_+=,.@-", min_size=1, max_size=20),
    "init_cmd": st.lists(texts().map(lambda each: f"echo {each}"), max_size=3),
}


@lru_cache
def instances(*, complete: bool) -> st.SearchStrategy[dict[str, Any]]:
    """An `instance`; a `complete` one has every key that a role needs."""
    if complete:
        return st.fixed_dictionaries(REQUIRED, optional=OPTIONAL)
    return st.fixed_dictionaries({}, optional={**REQUIRED, **OPTIONAL})


def cidrs() -> st.SearchStrategy[list[str]]:
    """Different single addresses, as networks."""
    numbers = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True)
    return numbers.map(lambda each: [f"{ipaddress.IPv4Address(number)}/32" for number in each])


def _profiles(*, shared: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Profiles whose common instance is complete (`shared`), or whose roles' own ones are."""
    own = {"instance": instances(complete=not shared)}
    must, may = ({}, own) if shared else (own, {})
    numbers = {
        "count": st.integers(0, 10_000),
        "nproc": st.integers(1, 64),
        "nthread": st.integers(1, 64),
        "spot": st.sampled_from((True, False, "fallback")),
        "types": st.lists(st.sampled_from(("m5a.xlarge", "c6i.large", "t3.micro")), min_size=1),
    }
    part = st.fixed_dictionaries(must, optional=may)
    worker = st.fixed_dictionaries(must, optional={**may, **numbers})
    roles = {"scheduler": part, "worker": worker}
    return st.fixed_dictionaries(
        {
            "region": st.sampled_from(("ap-northeast-2", "us-gov-west-1")),
            "instance": instances(complete=shared),
        },
        optional={
            "$schema": texts(),
            "account": st.just("123456789012"),
            "description": texts(),
            "webbrowser": one_line_texts().map(lambda each: f"C:\\{each}"),
            "access": st.fixed_dictionaries({"cidrs": cidrs()}, optional={"public": st.booleans()}),
            "state": st.fixed_dictionaries(
                {"bucket": st.sampled_from(("team-state", "a.b"))},
                optional={
                    "prefix": st.sampled_from(("bilbo", "teams/data")),
                    "region": st.just("us-east-1"),
                },
            ),
            "notebook": part,
            "dask": st.fixed_dictionaries({}, optional=roles)
            if shared
            else st.fixed_dictionaries(roles),
        },
    )


@lru_cache
def valid_profiles() -> st.SearchStrategy[dict[str, Any]]:
    """Profiles that bilbo must accept; all name their region."""
    return _profiles(shared=True) | _profiles(shared=False)


@lru_cache
def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say, NUL and half surrogate pairs included."""
    anything = st.text(max_size=5) | texts() | st.sampled_from(("\0", "\ud800", "NaN"))
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | anything
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
        max_leaves=6,
    )


WRONG: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("region",), "Seoul\n"),
    (("account",), "123456789012\n"),
    (("account",), 123456789012),
    (("webbrowser",), "--help"),
    (("description",), "a\0b"),
    (("instance",), []),
    (("instance", "ami"), "ami-${x}"),
    (("instance", "ssh_user"), "-oProxyCommand=reboot"),
    (("instance", "ssh_user"), "ubuntu\n"),
    (("instance", "ssh_private_key"), "-i"),
    (("instance", "ssh_port"), 0),
    (("instance", "vol_size"), 1.5),
    (("instance", "tags"), {"Name": "x"}),
    (("instance", "tags"), {"\ud800": "x"}),
    (("instance", "init_cmd"), "ls"),
    (("access",), {"cidrs": ["10.0.0.1/8"]}),
    (("access",), {"public": "yes"}),
    (("state",), {}),
    (("state",), {"bucket": "${x}"}),
    (("state",), {"bucket": "team-state", "prefix": "../x"}),
    (("notebook",), None),
    (("dask",), {"worker": {"count": "2"}}),
    (("dask",), {"worker": {"spot": "yes"}}),
    (("dask",), {"worker": {"types": []}}),
    (("dask",), {"worker": {"nproc": True}}),
    (("dask",), {"schedular": {}}),
)


@st.composite
def broken_profiles(draw: st.DrawFn) -> Any:
    """Documents that are JSON and that bilbo must refuse: a valid profile with one to three
    mistakes in it, or something else altogether."""
    if draw(st.integers(0, 4)) == 0:
        return draw(json_values().filter(lambda value: value != {}))
    profile = copy.deepcopy(draw(valid_profiles()))
    for path, value in draw(st.lists(st.sampled_from(WRONG), min_size=1, max_size=3)):
        inside = profile
        for key in path[:-1]:
            if not isinstance(inside.get(key), dict):
                inside[key] = {}
            inside = inside[key]
        inside[path[-1]] = value
    if draw(st.booleans()):
        profile[draw(texts()) + "?"] = draw(json_values())
    return profile


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """The text of a profile with pieces cut out or put in anywhere: mostly not JSON."""
    text = json.dumps(draw(valid_profiles()), indent=1, ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 5))
        piece = draw(
            st.sampled_from(("", ",", "[" * 40, "{", "}", "1e999", "9" * 5000, *FRAGMENTS))
        )
        text = text[:start] + piece + text[end:]
    return text
