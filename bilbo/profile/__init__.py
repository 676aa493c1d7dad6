"""Finds, reads, overrides and checks a profile, and builds the `ClusterSpec` that it asks for.

`load` is the whole way; the other names are its steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilbo.profile.building import build
    from bilbo.profile.checking import check_profile
    from bilbo.profile.loading import load
    from bilbo.profile.naming import (
        check_cluster_name,
        cluster_name,
        expand_key_path,
        find,
        names,
    )
    from bilbo.profile.parsing import read
    from bilbo.profile.places import Places

_HOMES = {
    "Places": "places",
    "build": "building",
    "check_profile": "checking",
    "check_cluster_name": "naming",
    "cluster_name": "naming",
    "expand_key_path": "naming",
    "find": "naming",
    "load": "loading",
    "names": "naming",
    "read": "reading",
}

__all__ = [
    "Places",
    "build",
    "check_cluster_name",
    "check_profile",
    "cluster_name",
    "expand_key_path",
    "find",
    "load",
    "names",
    "read",
]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is: many commands check a name and nothing more."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
