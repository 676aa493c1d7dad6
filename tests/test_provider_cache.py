"""Which AWS provider a cluster gets, and that all clusters link it from one folder."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import stat
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from bilbo.errors import TerraformError
from bilbo.terraform import Terraform, installing, locked_providers
from bilbo.terraform.environment import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the provider here is Linux's")

MAIN = """terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.70, < 7"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

resource "aws_s3_bucket" "this" {}
"""
MACHINE = "amd64" if platform.machine() == "x86_64" else "arm64"
BINARY = f"#!/bin/sh\necho {'no provider' * 100}\n".encode()


def package(home: Path, version: str) -> str:
    """Puts a package of a provider that does nothing into Terraform's own plugin folder of `home`,
    and returns a lock file for it."""
    folder = home / ".terraform.d" / "plugins" / "registry.terraform.io" / "hashicorp" / "aws"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"terraform-provider-aws_v{version}_x5"
    path = folder / f"terraform-provider-aws_{version}_linux_{MACHINE}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o755 << 16
        archive.writestr(info, BINARY)
    # Go's dirhash.Hash1: the hash of a listing of the files' hashes.
    listing = f"{hashlib.sha256(BINARY).hexdigest()}  {name}\n".encode()
    digest = base64.b64encode(hashlib.sha256(listing).digest()).decode()
    return (
        f'provider "registry.terraform.io/hashicorp/aws" {{\n  version     = "{version}"\n'
        f'  constraints = ">= 5.70.0, < 7.0.0"\n  hashes = [\n    "h1:{digest}",\n  ]\n}}\n'
    )


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Terraform]:
    """Makes clusters of one home on a machine whose only source is its own plugin folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TF_CLI_CONFIG_FILE", raising=False)
    monkeypatch.delenv("TF_PLUGIN_CACHE_DIR", raising=False)
    monkeypatch.setattr("bilbo.terraform.environment._unlisted_mirror", lambda: None)

    def make(name: str) -> Terraform:
        terraform = Terraform(tmp_path / "clusters" / name, {}, tmp_path / "home")
        terraform.write({"main.tf": MAIN})
        return terraform

    return make


def binary_of(terraform: Terraform) -> Path:
    """The provider that a folder has, where it really is."""
    found = (terraform.folder / ".terraform" / "providers").glob("*/*/*/*/*/*")
    return next(iter(found)).resolve()


def test_two_clusters_have_one_provider(
    tmp_path: Path, made: Callable[[str], Terraform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clusters that are initialised at once link the same file, in a folder of their owner's; a
    cache that was deleted or damaged is made anew."""
    lock = package(tmp_path, "5.100.0")
    monkeypatch.setattr(installing, "shipped_lock", lambda _: lock)
    both = [made("one"), made("two")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(Terraform.init, both)) == [True, True]
    cache = tmp_path / "home" / "providers"
    first, second = map(binary_of, both)
    assert first == second and first.is_relative_to(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for name, damage in (("cut", b""), ("altered", b"#!/bin/sh\nexit 1\n")):
        first.write_bytes(damage)
        another = made(name)
        another.init()
        assert binary_of(another).read_bytes() == BINARY
    assert both[0].init() is False
    for path in sorted(cache.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert both[0].init() is True
    assert binary_of(both[0]).read_bytes() == BINARY


def test_a_damaged_provider_is_named_and_installed_anew(
    tmp_path: Path, made: Callable[[str], Terraform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terraform refuses it at the next plan; the plan after that finds another one."""
    lock = package(tmp_path, "5.100.0")
    monkeypatch.setattr(installing, "shipped_lock", lambda _: lock)
    terraform = made("one")
    terraform.init()
    binary_of(terraform).write_bytes(b"#!/bin/sh\nexit 1\n")
    outcome = terraform.plan(tmp_path / "plan")
    assert not outcome.ok
    assert "run the command again to install it anew" in str(terraform.error(outcome, "failed"))
    assert terraform.init() is True
    assert binary_of(terraform).read_bytes() == BINARY


def test_only_the_release_of_the_lock_file_is_installed(
    tmp_path: Path, made: Callable[[str], Terraform]
) -> None:
    """Another package under its name is refused, and so is another major version; an older release
    of the same one is all that an old mirror has."""
    package(tmp_path, "5.100.0")
    with pytest.raises(TerraformError, match="not the provider that HashiCorp released"):
        made("altered").init()
    for path in (tmp_path / ".terraform.d").rglob("*.zip"):
        path.unlink()
    package(tmp_path, "6.1.0")
    terraform = made("untested")
    with pytest.raises(TerraformError, match="bilbo is tested with version 5"):
        terraform.init()
    # Such a cluster may have been made before.
    terraform.write_extra(".terraform.lock.hcl", package(tmp_path, "6.1.0"))
    assert terraform.init() is True
    for path in (tmp_path / ".terraform.d").rglob("*.zip"):
        path.unlink()
    package(tmp_path, "5.90.0")
    old = made("old")
    assert old.init() is True
    assert 'version     = "5.90.0"' in (old.folder / ".terraform.lock.hcl").read_text()


def test_new_clusters_get_the_tested_release(tmp_path: Path) -> None:
    """The lock file of a new cluster is the one that bilbo ships, with checksums for every
    platform, this machine's among them: Terraform has nothing to add."""
    terraform = Terraform(tmp_path / "new", {}, tmp_path)
    terraform.write({"main.tf": MAIN})
    terraform.init()
    shipped = installing.shipped_lock("terraform")
    assert (terraform.folder / ".terraform.lock.hcl").read_text(encoding="utf-8") == shipped
    assert locked_providers(shipped) == {"registry.terraform.io/hashicorp/aws"}
    assert terraform.lock_platforms(["windows_amd64"])
    tofus = installing.shipped_lock("/usr/bin/tofu")
    assert locked_providers(tofus) == {"registry.opentofu.org/hashicorp/aws"}
    assert 'version     = "5.100.0"' in shipped and 'version     = "5.100.0"' in tofus


def test_a_persons_own_cache_and_configuration_win(
    tmp_path: Path, made: Callable[[str], Terraform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bilbo sets its cache only where nobody has said anything, and where nobody else can write."""
    home = tmp_path / "home"
    cache = home / "providers"
    assert environment(os.environ, {}, home)[installing.CACHE] == str(cache)
    own = environment({**os.environ, installing.CACHE: "/own"}, {}, home)
    assert own[installing.CACHE] == "/own"
    configuration = tmp_path / "own.tfrc"
    configuration.write_text("", encoding="utf-8")
    configured = {**os.environ, "TF_CLI_CONFIG_FILE": str(configuration)}
    assert installing.CACHE not in environment(configured, {}, home)
    monkeypatch.setattr("bilbo.terraform.environment._unlisted_mirror", lambda: tmp_path)
    assert installing.CACHE not in environment(os.environ, {}, home)
    monkeypatch.setattr("bilbo.terraform.environment._unlisted_mirror", lambda: None)
    cache.chmod(0o777)
    assert installing.CACHE not in environment(os.environ, {}, home)


def test_an_install_that_never_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for another's `init` does so for some time only."""
    monkeypatch.setattr(installing, "_LOCK_SECONDS", 0.2)
    cache = installing.cache_folder(tmp_path)
    cache.mkdir()
    settings = {installing.CACHE: str(cache)}
    with (
        FileLock(cache / ".lock"),
        pytest.raises(TerraformError, match="another bilbo has been installing"),
        installing.exclusive(settings, tmp_path),
    ):
        pass
