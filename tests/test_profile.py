"""A profile becomes a specification, or a refusal that says what to do; never anything else."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import broken_profiles, broken_texts, examples, json_values, texts, valid_profiles

from bilbo import profile
from bilbo.errors import BilboError, ProfileError
from bilbo.model import ClusterSpec
from bilbo.profile import building, checking, loading, parsing
from bilbo.profile.checking import schema
from bilbo.profile.overrides import override_with_paths
from bilbo.resources import folder

CASES = Path(__file__).parent / "profiles"
EXAMPLES = Path(__file__).parent.parent / "examples"
REGION = "ap-northeast-2"
COMMON = {
    "ami": "ami-0f49fa254e1806b72",
    "ec2type": "t3.micro",
    "keyname": "my-keypair",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.ssh/my-keypair.pem",
}
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cases(suffix: str) -> list[str]:
    return sorted(path.stem for path in CASES.glob(f"*{suffix}"))


def spec_as_json(spec: ClusterSpec) -> dict[str, Any]:
    fields = dataclasses.asdict(spec)
    del fields["profile"], fields["profile_name"], fields["root_devices"]
    loaded: dict[str, Any] = told(json.loads(json.dumps(fields)))
    return loaded


def told(value: Any) -> Any:
    """`value` without what is empty: a case says what its profile asks for, and no more."""
    if isinstance(value, list):
        return [told(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: told(value[key]) for key in value if value[key] not in (None, [], {}, "")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    return tmp_path


def save(home: Path, name: str, document: Any) -> Path:
    path = home / "profiles" / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", cases(".spec"))
def test_good_profile(name: str, home: Path) -> None:
    """Each good profile of the data cases gives exactly the specification beside it."""
    spec = loading.load(str(CASES / f"{name}.json"), home, cluster="test", region=REGION)
    expected = json.loads((CASES / f"{name}.spec").read_text(encoding="utf-8"))
    assert spec_as_json(spec) == told(expected)


@pytest.mark.parametrize("name", cases(".error"))
def test_bad_profile(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bad profile of the data cases is refused with exactly the text beside it."""
    monkeypatch.chdir(CASES)
    with pytest.raises(ProfileError) as caught:
        loading.load(f"./{name}.json", home, cluster="test", region=REGION)
    expected = (CASES / f"{name}.error").read_text(encoding="utf-8")
    assert str(caught.value) == expected.rstrip("\n")


def test_every_case_has_its_answer() -> None:
    """No data case lies there unused."""
    assert cases(".json") == sorted(cases(".spec") + cases(".error"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_examples(path: Path, home: Path) -> None:
    """Every example is a good profile, and its file name a good cluster name."""
    assert loading.load(str(path), home, region=REGION).name == path.stem


def test_schema_is_documented() -> None:
    """The schema is a valid one, refuses unknown keys everywhere and describes every key."""
    from jsonschema import Draft202012Validator

    whole = schema()
    Draft202012Validator.check_schema(whole)
    assert whole["$id"].endswith("/schemas/profile-01.schema.json")
    for part in (whole, *whole["$defs"].values()):
        assert part["additionalProperties"] is False and part["description"]
        assert all(key["description"] for key in part["properties"].values())


def test_schema_examples_and_defaults_are_valid() -> None:
    """What the schema gives as an example or a default, it accepts."""
    from jsonschema import Draft202012Validator

    whole = schema()
    for part in (whole, *whole["$defs"].values()):
        for key in part["properties"].values():
            check = Draft202012Validator({**key, "$defs": whole["$defs"]}).validate
            for value in (
                *key.get("examples", ()),
                *([key["default"]] if "default" in key else ()),
            ):
                check(value)


def test_byte_order_mark_and_windows_lines(home: Path) -> None:
    """A profile saved by a Windows editor is read, and its lines are counted right."""
    path = home / "profiles" / "test.json"
    path.write_bytes(b"\xef\xbb\xbf{\r\n// x\r\n}\r\n")
    assert parsing.read(path) == {}
    path.write_bytes(b"\xef\xbb\xbf{\r\n// x\r\n 1}\r\n")
    with pytest.raises(ProfileError, match=r"test\.json:3:2: expected a key in double quotes"):
        parsing.read(path)


def test_unreadable_files(home: Path) -> None:
    """What is not a text of reasonable size is refused by name."""
    path = home / "profiles" / "test.json"
    path.write_bytes(b'{\n"description": "\xff"}')
    with pytest.raises(ProfileError, match=r"test\.json:2: the byte 0xff is not UTF-8"):
        parsing.read(path)
    path.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(ProfileError, match="larger than 1 MiB"):
        parsing.read(path)
    with pytest.raises(ProfileError, match="this is a folder"):
        parsing.read(home)
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        parsing.read(home / "none.json")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dask.worker.count=4", {"a": [1, 2], "dask": {"worker": {"count": 4}}}),
        ("a.0=x=y", {"a": ["x=y", 2]}),
        ("a.2={}", {"a": [1, 2, {}]}),
        ("a=", {"a": ""}),
        ("b.0=[ -f x ] || y", {"a": [1, 2], "b": ["[ -f x ] || y"]}),
        ('a="4"', {"a": "4"}),
        ("a=NaN", {"a": "NaN"}),
        ("a=[1,]", {"a": [1]}),
        ("a=" + "[" * 9999, {"a": "[" * 9999}),
    ],
)
def test_override(text: str, expected: Any) -> None:
    """`-p` sets JSON where the value is JSON, else a text, and leaves its input alone."""
    document = {"a": [1, 2]}
    assert override_with_paths(document, [text])[0] == expected
    assert document == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "has no ="),
        ("=1", "has an empty key"),
        ("a..b=1", "has an empty key"),
        ("a.3=1", "is past the end of a, which has 2 items"),
        ("a.-1=1", "needs an index after a"),
        ("a." + "9" * 5000 + "=1", "needs an index after a"),
        ("a.0.b=1", "goes into a.0"),
        (".".join("a" * 99) + "=1", "is nested deeper"),
        ('a={"b": 1, "b": 2}', "the key b is already on line 1"),
    ],
)
def test_bad_override(text: str, words: str) -> None:
    """A `-p` that cannot be is refused, and named."""
    with pytest.raises(ProfileError, match=words) as caught:
        override_with_paths({"a": [1, 2]}, [text])
    assert caught.value.where.startswith(f"-p {text[:20]}")


def test_override_is_checked_and_named(home: Path) -> None:
    """A mistake that a `-p` makes is said of the `-p`, not of the file."""
    save(home, "test.json", {"instance": COMMON, "dask": {}})
    overrides = ["dask.worker.count=many", "dask.worker.nproc=2"]
    with pytest.raises(ProfileError) as caught:
        loading.load("test.json", home, overrides=overrides, region=REGION)
    words = '-p dask.worker.count=many: dask.worker.count: must be a whole number, not "many"'
    assert caught.value.details == (words,)


def test_spec_holds_the_profile_after_overrides(home: Path) -> None:
    """The specification keeps the profile as it was used."""
    save(home, "test.json", {"instance": COMMON, "dask": {}})
    spec = loading.load("test.json", home, overrides=["dask.worker.count=0"], region=REGION)
    assert spec.profile == {"instance": COMMON, "dask": {"worker": {"count": 0}}}
    assert spec.workers[0].count == 0 and spec.profile_name == "test.json"


def test_region(home: Path) -> None:
    """The profile's region wins over the environment's; one of them there must be, and good."""
    save(home, "test.json", {"region": "eu-west-1"})
    assert loading.load("test.json", home, region="not used").region == "eu-west-1"
    save(home, "none.json", {})
    assert loading.load("none.json", home, region=REGION).region == REGION
    for missing in (None, ""):
        with pytest.raises(ProfileError, match="AWS_DEFAULT_REGION"):
            loading.load("none.json", home, region=missing)
    with pytest.raises(ProfileError, match="must be an AWS region"):
        loading.load("none.json", home, region="Seoul")


@pytest.mark.parametrize(
    ("each", "common", "said"),
    [
        (15, 0, ""),
        (20, 0, "the generated security group gets the tags of all roles, 60 different ones"),
        (20, 26, "the notebook has 46 tags with the common ones; AWS allows 45"),
    ],
)
def test_tags_are_counted_where_they_end_up(each: int, common: int, said: str) -> None:
    """A tag limit that only the merged machines, or the security group, exceed is found here."""

    def tags(prefix: str, count: int) -> dict[str, Any]:
        return {"instance": {"tags": {f"{prefix}{number}": "x" for number in range(count)}}}

    document = {
        "region": "us-east-1",
        "instance": {
            "ami": "ami-12345678", "ec2type": "t3.micro", "keyname": "k", "ssh_user": "u",
            "ssh_private_key": "k.pem", **tags("common", common)["instance"],
        },
        "notebook": tags("notebook", each),
        "dask": {"scheduler": tags("scheduler", each), "worker": tags("worker", each)},
    }  # fmt: skip
    if not said:
        building.build(document, "tags")
        return
    with pytest.raises(ProfileError) as caught:
        building.build(document, "tags")
    assert any(said in line for line in caught.value.details)


def test_wild_profiles_do_not_take_long(home: Path) -> None:
    """Thousands of mistakes are answered at once, with the first hundred of them."""
    keys = {f"key{number}": number for number in range(5000)}
    cidrs: list[Any] = [number if number % 2 else str(number) for number in range(5000)]
    path = save(home, "test.json", {**keys, "access": {"cidrs": cidrs}})
    with pytest.raises(ProfileError) as caught:
        loading.load(str(path), home, region=REGION)
    assert len(caught.value.details) == 101 and caught.value.details[-1].startswith("and ")


def test_import_is_cheap() -> None:
    """Importing the module loads no jsonschema, and checking never loads rfc3987_syntax."""
    code = (
        "import sys, bilbo.profile.checking as p; assert 'jsonschema' not in sys.modules;"
        "p.check_profile({}); assert 'jsonschema' in sys.modules;"
        "assert 'rfc3987_syntax' not in sys.modules"
    )
    root = str(Path(profile.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_resources() -> None:
    """The folders of data files are found; one that is not there is named."""
    assert (folder("schemas") / "profile-01.schema.json").is_file()
    with pytest.raises(BilboError, match="lacks the folder none"):
        folder("none")


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts_of(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


@settings(quick, max_examples=examples(700))
@given(document=valid_profiles(), ascii_only=st.booleans())
def test_valid_profiles_are_taken(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], ascii_only: bool
) -> None:
    """Every valid profile becomes a specification that holds its texts unchanged."""
    path = tmp_path_factory.getbasetemp() / "valid.json"
    path.write_text(json.dumps(document, ensure_ascii=ascii_only), encoding="utf-8", newline="")
    spec = loading.load(str(path), path.parent, cluster="test")
    assert spec.profile == document
    assert spec.description == document.get("description", "")
    assert spec.webbrowser == document.get("webbrowser")
    for group in spec.groups():
        machine = dataclasses.asdict(group.machine)
        own = [document.get("notebook"), *document.get("dask", {}).values()]
        sources = [document["instance"], *(part.get("instance", {}) for part in own if part)]
        known = {unicodedata.normalize("NFC", text) for text in texts_of(sources)} | set(
            texts_of(sources)
        )
        assert (
            set(texts_of({**machine, "init_cmd": list(machine["init_cmd"])})) - set(machine)
            <= known
        )


@settings(quick, max_examples=examples(700))
@given(document=broken_profiles())
def test_broken_profiles_are_refused(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    """Every broken profile is a ProfileError whose text is safe to print."""
    path = tmp_path_factory.getbasetemp() / "broken.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        loading.load(str(path), path.parent, cluster="test", region=REGION)
    assert caught.value.details or caught.value.hint
    assert all(is_safe(line) for line in str(caught.value).split("\n"))


@settings(quick, max_examples=examples(400))
@given(text=broken_texts() | texts() | st.text())
def test_any_text_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any file at all is a specification or a ProfileError whose text is safe to print."""
    path = tmp_path_factory.getbasetemp() / "text.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loading.load(str(path), path.parent, cluster="test", region=REGION)
    except ProfileError as error:
        assert all(is_safe(line) for line in str(error).split("\n"))


@settings(quick, max_examples=examples(300))
@given(
    document=valid_profiles(),
    key=st.sampled_from(("instance.init_cmd.0", "dask.worker.count", "dask", "", "instance.ami.x"))
    | texts(),
    value=texts() | json_values().map(json.dumps),
)
def test_any_override_is_taken_or_refused(document: dict[str, Any], key: str, value: str) -> None:
    """Any `-p` on a valid profile gives a specification or a ProfileError."""
    before = json.dumps(document)
    try:
        changed = override_with_paths(document, [f"{key}={value}"])[0]
        checking.check_profile(changed)
        assert isinstance(building.build(changed, "test", REGION), ClusterSpec)
    except ProfileError as error:
        assert all(is_safe(line) for line in str(error).split("\n"))
    assert json.dumps(document) == before


def is_safe(line: str) -> bool:
    """Whether a terminal takes `line` as nothing but letters."""
    line.encode("utf-8")
    return not any(unicodedata.category(char) == "Cc" or char in "\u202e\u2028" for char in line)
