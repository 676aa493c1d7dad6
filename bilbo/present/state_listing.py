"""What Terraform's state holds of a cluster, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bilbo.addresses import of_instance
from bilbo.plans.reading import SENSITIVE
from bilbo.present.settings import redacted


def state_document(folder: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Resources and outputs of a state as Terraform stores it; `folder` is where terraform works.

    Sensitive outputs are left out by their value, and so are passwords in URLs, which bilbo wrote
    there once; attributes of resources are not shown at all.
    """
    resources = [
        {"address": of_instance(resource, instance), "type": resource["type"],
         "id": instance["attributes"].get("id")}
        for resource in state.get("resources", [])
        if resource["mode"] == "managed"
        for instance in resource["instances"]
    ]  # fmt: skip
    outputs = {
        name: SENSITIVE if output.get("sensitive") else redacted(output["value"])
        for name, output in state.get("outputs", {}).items()
    }
    return {
        "folder": folder,
        "lineage": state.get("lineage"),
        "serial": state.get("serial"),
        "terraform_version": state.get("terraform_version"),
        "resources": sorted(resources, key=lambda resource: str(resource["address"])),
        "outputs": outputs,
    }


def state_text(document: Mapping[str, Any]) -> str:
    """`state_document` for a terminal."""
    resources = document["resources"]
    width = max((len(resource["address"]) for resource in resources), default=0)
    lines = [f"Folder: {document['folder']}", f"Serial: {document['serial']}", "", "Resources:"]
    lines += [f"  {each['address']:<{width}}  {each['id']}" for each in resources]
    lines += ["", "Outputs:"]
    lines += [
        f"  {name} = {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
        for name, value in sorted(document["outputs"].items())
    ]
    return "\n".join(lines)
