"""From the name of a profile to its `ClusterSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bilbo.model import ClusterSpec
from bilbo.profile.building import build
from bilbo.profile.checking import check_profile
from bilbo.profile.home_settings import with_home_settings
from bilbo.profile.naming import check_cluster_name, cluster_name, find
from bilbo.profile.overrides import override_with_paths
from bilbo.profile.packages import with_packages
from bilbo.profile.parsing import source
from bilbo.profile.places import Places, shown


def load(
    name_or_path: str,
    home: Path,
    *,
    cluster: str | None = None,
    overrides: Sequence[str] = (),
    region: str | None = None,
) -> ClusterSpec:
    """The specification of the profile `name_or_path`, complete and checked.

    `home` is bilbo's folder, `cluster` the cluster's name (by default the profile's without
    `.json`), `overrides` the values of `-p`, `region` the default for a profile without one.
    Reads that file, the files that `packages` names and the home's `config.json`; writes nothing.
    Raises ProfileError, or UsageError for a bad name.
    """
    path = find(name_or_path, home)
    name = cluster_name(path) if cluster is None else cluster
    check_cluster_name(name)
    read_from = source(path)
    known = with_home_settings(read_from.document, home)
    document, set_by = override_with_paths(known, overrides)
    places = Places(shown(str(path), 500), read_from.lines, set_by)
    check_profile(document, places)
    if region and "region" not in document:
        check_profile(
            {"region": region}, Places("the environment (AWS_DEFAULT_REGION or AWS_REGION)")
        )
    document = with_packages(document, path.parent, places)
    return replace(build(document, name, region, places), profile_name=path.name)
