"""`state-bucket create`: an S3 bucket for shared states, from its own Terraform root module."""

from __future__ import annotations

import json
from typing import Any

from bilbo.cluster.work import Work, interruptible
from bilbo.model import Target
from bilbo.resources import folder
from bilbo.terraform import Terraform


def create_bucket(name: str, work: Work) -> bool:
    """Creates the bucket: versioned, encrypted, private, and closed to requests without TLS.

    Returns whether anything changed. Raises TerraformError. Side effects: writes the root module
    and its state to `state-buckets/NAME` in bilbo's home.
    """
    target = work.target
    terraform = Terraform(
        work.store.home / "state-buckets" / name, target.environment, work.store.home
    )
    root = folder("templates") / "terraform" / "state_bucket"
    terraform.write(
        {path.name: path.read_text(encoding="utf-8") for path in sorted(root.glob("*.tf"))}
    )
    text = json.dumps(variables(name, target), indent=2) + "\n"
    terraform.write_extra("terraform.tfvars.json", text)
    terraform.init()
    what = "what exists of the bucket is in its Terraform state"
    with interruptible(what, f"To continue: bilbo state-bucket create {name}"):
        outcome = terraform.apply(work.progress.terraform)
    if not outcome.ok:
        raise terraform.error(outcome, f"cannot create the bucket {name!r}")
    return bool(outcome.changes)


def variables(name: str, target: Target) -> dict[str, Any]:
    """Returns the root module's variables. `only_tls` would lock out an endpoint without TLS."""
    endpoint = target.endpoint_url
    return {
        "bucket": name,
        "region": target.region,
        "path_style": endpoint is not None,
        "only_tls": endpoint is None or endpoint.startswith("https://"),
    }
