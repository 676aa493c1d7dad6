"""`state-bucket create`: an S3 bucket for shared states, by a Terraform root of its own."""

from __future__ import annotations

import json
from typing import Any

from bilbo.cluster.work import Work
from bilbo.errors import Interrupted
from bilbo.model import Target
from bilbo.resources import folder
from bilbo.terraform import Terraform


def create_bucket(name: str, work: Work) -> bool:
    """Makes the bucket versioned, encrypted, private, and closed to what comes without TLS.

    Returns whether there was anything to do.
    Raises TerraformError. Side effects: `state-buckets/NAME` in bilbo's home holds the root and
    its state.
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
    outcome = terraform.apply(work.progress.terraform)
    if outcome.interrupted:
        raise Interrupted(
            "interrupted; what was made of the bucket is in its Terraform state",
            hint=f"Go on with: bilbo state-bucket create {name}",
        )
    if not outcome.ok:
        raise terraform.error(outcome, f"the bucket {name!r} could not be made")
    return bool(outcome.changes)


def variables(name: str, target: Target) -> dict[str, Any]:
    """What the root is told of the bucket. An endpoint without TLS would be refused itself."""
    endpoint = target.endpoint_url
    return {
        "bucket": name,
        "region": target.region,
        "path_style": endpoint is not None,
        "only_tls": endpoint is None or endpoint.startswith("https://"),
    }
