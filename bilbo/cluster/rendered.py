"""The rendered files in a cluster's Terraform folder."""

from __future__ import annotations

from collections.abc import Mapping

from bilbo.model import ClusterSpec
from bilbo.render import render
from bilbo.terraform import Terraform


def write_rendered(
    spec: ClusterSpec, terraform: Terraform, files: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Makes the folder hold what `spec` renders to, `files` where that is done already."""
    found = render(spec) if files is None else files
    backend = spec.state.backend(spec.name) if spec.state else {}
    terraform.write(found, {"backend": backend, "owner": spec.owner})
    return found
