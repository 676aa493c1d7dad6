"""What a cluster's Terraform state holds, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bilbo.addresses import of_instance
from bilbo.plans.reading import SENSITIVE
from bilbo.present.settings import redacted


def state_document(folder: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the resources and outputs of a state; `folder` is Terraform's working folder.

    The values of sensitive outputs are omitted, and so are passwords in URLs, which earlier
    versions of bilbo wrote there; resource attributes are not shown at all.
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
    """Returns `state_document` as text for a terminal."""
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
