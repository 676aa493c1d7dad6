"""Names and paths that a person gives lead to the right file, or to a refusal by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bilbo.errors import ProfileError, UsageError
from bilbo.profile import naming


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    return tmp_path


def save(home: Path, name: str) -> Path:
    path = home / "profiles" / name
    path.write_text("{}", encoding="utf-8")
    return path


def test_find_prefers_the_profiles_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is a profile of the home first, then a file here; a path is a path."""
    monkeypatch.chdir(home)
    here = home / "test.json"
    here.write_text("{}", encoding="utf-8")
    assert naming.find("test.json", home) == Path("test.json")
    saved = save(home, "test.json")
    assert naming.find("test.json", home) == saved
    assert naming.find("./test.json", home) == Path("test.json")
    assert naming.find(str(here), home) == here


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("test", "Include the file's extension: test.json"),
        ("tset.json", "Did you mean test.json?"),
        ("unlike", "There are: other.json, test.json"),
        ("", "There are: other.json, test.json"),
        ("a\0b", "There are: other.json, test.json"),
        ("x" * 5000, "There are: other.json, test.json"),
    ],
)
def test_find_says_what_there_is(name: str, hint: str, home: Path) -> None:
    """A profile that is not there is answered with those that are."""
    save(home, "test.json")
    save(home, "other.json")
    (home / "profiles" / "notes.txt").touch()
    assert naming.names(home) == ["other.json", "test.json"]
    with pytest.raises(ProfileError) as caught:
        naming.find(name, home)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "name", ["../x.json", "/none/x.json", "~nobody-here/x.json", "a/\0", "/" + "x" * 5000]
)
def test_find_refuses_missing_paths(name: str, home: Path) -> None:
    """A path that leads nowhere is named, however odd it is."""
    with pytest.raises(ProfileError, match="there is no such file"):
        naming.find(name, home)


def test_no_profiles_folder(tmp_path: Path) -> None:
    """A home without profiles has none, and says where they go."""
    assert naming.names(tmp_path) == []
    with pytest.raises(ProfileError, match="Save a profile there"):
        naming.find("test.json", tmp_path)


@pytest.mark.parametrize("name", ["a", "test-cluster", "my_cluster2", "A" * 40])
def test_good_cluster_names(name: str) -> None:
    """Ordinary names are taken."""
    naming.check_cluster_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is empty"),
        ("a" * 300, "has 300 characters; at most 40 are allowed"),
        ("../x", "must begin with a letter"),
        ("-rf", "must begin with a letter"),
        ("a\0b", "have only letters"),
        ("a\n", "have only letters"),
        ("a/b", "have only letters"),
        ("a b", "have only letters"),
        ("é", "must begin with a letter"),
        ("a-", "not end in -"),
        ("1a", "must begin with a letter"),
        ("Con", "the name of a device on Windows"),
        ("sg-1", "AWS reserves"),
    ],
)
def test_bad_cluster_names(name: str, words: str) -> None:
    """Names that would escape a folder, or that AWS or a file system refuses, are refused."""
    with pytest.raises(UsageError, match=words) as caught:
        naming.check_cluster_name(name)
    assert caught.value.exit_code == 2 and "\0" not in str(caught.value)


def test_key_path_follows_the_home(tmp_path: Path) -> None:
    """A key in bilbo's own folder is found wherever BILBO_HOME is; other paths stay."""
    assert (
        naming.expand_key_path("~/.bilbo/local/local.pem", tmp_path) == tmp_path / "local/local.pem"
    )
    assert naming.expand_key_path("~/.ssh/k.pem", tmp_path) == Path.home() / ".ssh/k.pem"
    assert naming.expand_key_path("/k $HOME.pem", tmp_path) == Path("/k $HOME.pem")
    assert naming.expand_key_path("~nobody-here/k", tmp_path) == Path("~nobody-here/k")
