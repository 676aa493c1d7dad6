"""Terraform's binary, environment and provider mirror."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from bilbo.errors import TerraformError
from bilbo.files import private_folder, private_write
from bilbo.programs import find
from bilbo.terraform.installing import CACHE, cache_folder

MIRROR = "registry.terraform.io"

# Most of what a short Terraform costs is garbage collection while it reads the provider's schemas.
# Measured with `terraform validate`: 4.2 s of CPU and 617 MiB in place of 5.1 s and 575 MiB.
_GO_COLLECTS_LATER = {"GOGC": "400"}
# Settings of the caller's shell that would change what bilbo asks for.
_UNWANTED = ("TF_LOG", "TF_CLI_ARGS", "TF_WORKSPACE", "TF_DATA_DIR", "TF_REATTACH_PROVIDERS")


def binary(environment: Mapping[str, str]) -> str:
    """Path of `terraform`, else of OpenTofu's `tofu`. Raises TerraformError if neither exists."""
    for name in ("terraform", "tofu"):
        path = find(name, environment)
        if path:
            return path
    raise TerraformError(
        "neither terraform nor tofu is on PATH",
        hint="Install Terraform 1.6 or later: https://developer.hashicorp.com/terraform/install",
    )


def environment(base: Mapping[str, str], extra: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of every Terraform process; an empty value in `extra` removes a variable.

    Writes `home/terraform.rc` if the machine has a provider mirror that Terraform would not find by
    itself. Without one, and without settings of the person's own, all clusters of `home` link their
    provider from one folder there.
    """
    kept = {key: value for key, value in base.items() if not key.startswith(_UNWANTED)}
    merged = {**_GO_COLLECTS_LATER, **kept, **extra}
    result = {key: value for key, value in merged.items() if value or key not in extra}
    result |= {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
    configured = _cli_config(base)
    if configured is None:
        result.pop("TF_CLI_CONFIG_FILE", None)
        mirror = _unlisted_mirror()
        if mirror:  # it is linked as well, and checked each time
            result["TF_CLI_CONFIG_FILE"] = str(_write_config(home, mirror))
        elif CACHE not in result and (cache := _own_cache(home)):
            result[CACHE] = str(cache)
    return result


def _own_cache(home: Path) -> Path | None:
    """bilbo's folder of providers, made for its owner alone; None if others could write there."""
    cache = cache_folder(home)
    try:
        private_folder(cache)
    except OSError:
        return None
    return cache if os.name == "nt" or _ours_alone(cache) else None


def _cli_config(base: Mapping[str, str]) -> Path | None:
    """The user's own CLI configuration, which bilbo respects; None if there is none."""
    named = base.get("TF_CLI_CONFIG_FILE") or base.get("TERRAFORM_CONFIG")
    if os.name == "nt":
        default = Path(base.get("APPDATA", "")) / "terraform.rc"
    else:
        default = Path.home() / ".terraformrc"
    candidate = Path(named) if named else default
    return candidate if candidate.is_file() else None


def _unlisted_mirror() -> Path | None:
    """A mirror one level under /opt. Mirrors in Terraform's implied folders need no setting.

    Source: Terraform's documentation, "Implied Local Mirror Directories".
    """
    found = sorted(Path("/opt").glob(f"*/{MIRROR}/hashicorp/aws"))
    return next((path.parents[2] for path in found if trusted(path)), None)


def trusted(path: Path) -> bool:
    """Whether the folder, its contents and its parents belong to root or to this user, and nobody
    else can write there: a provider runs with the AWS keys in its environment."""
    path = path.resolve()
    return all(map(_ours_alone, (path, *path.parents, *path.rglob("*"))))


def _ours_alone(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid in (0, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write_config(home: Path, mirror: Path) -> Path:
    # Only the mirror's own providers come from it; the others come from their usual source.
    held = [f"{MIRROR}/{p.parent.name}/{p.name}" for p in sorted((mirror / MIRROR).glob("*/*"))]
    listed = ", ".join(f'"{name}"' for name in held)
    text = (
        "# Written by bilbo: this machine holds a provider mirror.\n"
        "provider_installation {\n"
        f'  filesystem_mirror {{\n    path    = "{mirror.as_posix()}"\n'
        f"    include = [{listed}]\n  }}\n"
        f"  direct {{\n    exclude = [{listed}]\n  }}\n"
        "}\n"
    )
    path = home / "terraform.rc"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        private_write(path, text)
    return path
