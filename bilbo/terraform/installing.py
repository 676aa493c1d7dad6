"""The AWS provider that a new cluster gets, and the folder from which all clusters link it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bilbo import process
from bilbo.errors import TerraformError
from bilbo.files import private_write
from bilbo.resources import folder
from bilbo.terraform.planfile import LOCK_FILE

# What a folder was last initialised for.
STAMP = Path(".terraform") / "bilbo-init"
CACHE = "TF_PLUGIN_CACHE_DIR"
# The major version that bilbo is tested with; the lock files in templates/terraform/locks choose
# the release.
TESTED_MAJOR = 5
# How long an `init` waits for another one, which may be downloading the provider.
_LOCK_SECONDS = 600
# Terraform's words for a source that does not have the locked release, and for an installed
# package that is not the locked one. Source: internal/providercache/installer.go, and
# internal/command/meta_providers.go.
_NOT_THERE = re.compile(r"previously-selected\s+version\s+\S+\s+is\s+no\s+longer\s+available")
_ALTERED = re.compile(r"does\s+not\s+match\s+any\s+of\s+the\s+checksums")
_LOCKED_VERSION = re.compile(r'(?m)^provider "[^"]+/hashicorp/aws" \{\s+version\s+= "(\d+)\.[^"]*"')


def shipped_lock(binary: str) -> str:
    """The lock file for new clusters: the release that bilbo is tested with, as the registry of
    `binary` names it."""
    registry = "opentofu.org" if Path(binary).stem == "tofu" else "terraform.io"
    path = folder("templates") / "terraform" / "locks" / f"registry.{registry}.hcl"
    return path.read_text(encoding="utf-8")


def inputs(terraform_folder: Path, binary: str, backend: Mapping[str, str]) -> str:
    """A hash of the inputs of `init`: providers, modules, `backend` settings, lock file, binary."""
    main, lock = terraform_folder / "main.tf", terraform_folder / LOCK_FILE
    looked_at = [
        line.strip()
        for line in (main.read_text(encoding="utf-8").splitlines() if main.is_file() else [])
        if line.strip().startswith(("source", "version", "module", "backend", "bucket", "key "))
    ]
    parts = [
        binary,
        *looked_at,
        json.dumps(dict(backend), sort_keys=True),
        lock.read_text(encoding="utf-8") if lock.is_file() else "",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def link(there: Path, here: Path) -> None:
    """Links the providers installed in the Terraform folder `there` into `here`, if it has none."""
    source, target = (each / ".terraform" / "providers" for each in (there, here))
    if source.is_dir() and not target.exists():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def install(
    argv: Sequence[str],
    terraform_folder: Path,
    environment: Mapping[str, str],
    home: Path,
    *,
    new: bool,
) -> tuple[int, str]:
    """Runs `terraform init`, and returns its exit code and output. A `new` folder without a lock
    file gets the release that bilbo is tested with; if the source, a mirror, does not have it,
    another one of that major version will do.

    Raises TerraformError if there is only an untested major version.
    """  # fmt: skip
    lock = terraform_folder / LOCK_FILE
    new = new and not lock.is_file()
    with exclusive(environment, home):
        if new:
            private_write(lock, shipped_lock(argv[0]))
        done = _init(argv, terraform_folder, environment)
        if done.returncode and new:
            lock.unlink(missing_ok=True)
            if _NOT_THERE.search(done.stdout + done.stderr):
                done = _init(argv, terraform_folder, environment)
        if new and not done.returncode:
            _tested(lock)
    return done.returncode, done.stdout + done.stderr


def _init(
    argv: Sequence[str], terraform_folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return process.capture(
        argv, folder=terraform_folder, environment=environment, seconds=process.INIT_SECONDS
    )


def _tested(lock: Path) -> None:
    """Raises TerraformError, and removes the lock file, if it chooses an untested major version."""
    found = _LOCKED_VERSION.search(lock.read_text(encoding="utf-8")) if lock.is_file() else None
    if found and int(found[1]) != TESTED_MAJOR:
        lock.unlink()
        raise TerraformError(
            f"this machine's provider mirror has version {found[1]} of the AWS provider; "
            f"bilbo is tested with version {TESTED_MAJOR}",
            where=str(lock.parent),
            hint="Add the release that bilbo's lock files name to the mirror: "
            f"{folder('templates') / 'terraform' / 'locks'}",
        )


def is_altered(said: str) -> bool:
    """Whether Terraform refuses an installed provider: it is not the one of the lock file."""
    return bool(_ALTERED.search(said))


def installed(terraform_folder: Path) -> bool:
    """Whether the folder's providers are there: those in the cache may have been deleted."""
    providers = terraform_folder / ".terraform" / "providers"
    return all(path.exists() for path in providers.glob("*/*/*/*/*"))


def discard(terraform_folder: Path, environment: Mapping[str, str], home: Path) -> None:
    """Removes the folder's providers, and bilbo's cache, so that the next `init` installs them
    anew. A cache of the person's own, or a mirror, is left alone."""
    (terraform_folder / STAMP).unlink(missing_ok=True)
    shutil.rmtree(terraform_folder / ".terraform" / "providers", ignore_errors=True)
    if environment.get(CACHE) == str(cache_folder(home)):
        with exclusive(environment, home):
            shutil.rmtree(cache_folder(home) / "registry.terraform.io", ignore_errors=True)
            shutil.rmtree(cache_folder(home) / "registry.opentofu.org", ignore_errors=True)


def cache_folder(home: Path) -> Path:
    """Where bilbo keeps the providers of all clusters."""
    return home / "providers"


@contextmanager
def exclusive(environment: Mapping[str, str], home: Path) -> Iterator[None]:
    """Keeps other bilbos from installing into the cache: Terraform's is not made for two at once
    ("Provider Plugin Cache" in its documentation). Raises TerraformError after ten minutes.
    """
    cache = cache_folder(home)
    if environment.get(CACHE) != str(cache):
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(cache / ".lock", timeout=_LOCK_SECONDS, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise TerraformError(
            f"another bilbo has been installing Terraform's provider for {_LOCK_SECONDS // 60} "
            "minutes",
            where=str(cache),
            hint="Wait for it, or look what the network does to it; then run the command again.",
        ) from error
    try:
        yield
    finally:
        lock.release()
