"""The stand-in's price list: `pricing`, which moto does not have, and spot prices.

The figures are in prices.json with their source: few types, one region. As in AWS's list, each type
is there several times, for other systems, tenancies, licences and states of capacity, and also at
0: who does not filter as one must reads the wrong price.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses.spot_instances import SpotInstances

from bilbo.local.replacements import put

FIGURES: dict[str, Any] = json.loads(
    Path(__file__).with_name("prices.json").read_text(encoding="utf-8")
)
_PAGE = 100
_ORDINARY = {
    "operatingSystem": "Linux", "tenancy": "Shared", "licenseModel": "No License required",
    "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand",
    "locationType": "AWS Region",
}  # fmt: skip
# What else AWS lists of each type: what differs, and how often the price it is.
_OTHERS: tuple[tuple[dict[str, str], float], ...] = (
    ({"operatingSystem": "Windows"}, 2.0),
    ({"operatingSystem": "RHEL"}, 1.5),
    ({"tenancy": "Dedicated"}, 1.1),
    ({"tenancy": "Host"}, 0.0),
    ({"preInstalledSw": "SQL Std"}, 5.0),
    ({"licenseModel": "Bring your own license"}, 1.2),
    ({"capacitystatus": "UnusedCapacityReservation"}, 1.0),
    ({"capacitystatus": "AllocatedCapacityReservation"}, 0.0),
    ({"marketoption": "CapacityBlock"}, 0.0),
    ({"locationType": "AWS Local Zone"}, 1.25),
)


def answer(action: str, body: str) -> tuple[str, dict[str, Any]]:
    """The HTTP status and the document that `pricing` answers a request with."""
    asked = json.loads(body or "{}")
    if action != "pricing:GetProducts":
        return "400 Bad Request", {"__type": "InvalidParameterException", "message": action}
    wanted = {each["Field"]: each["Value"] for each in asked.get("Filters", [])}
    found = [
        product
        for product in _products()
        if product["serviceCode"] == asked["ServiceCode"]
        and all(_value(product, field) == value for field, value in wanted.items())
    ]
    start, size = int(asked.get("NextToken") or 0), min(asked.get("MaxResults", _PAGE), _PAGE)
    more = {"NextToken": str(start + size)} if start + size < len(found) else {}
    texts = [json.dumps(each) for each in found[start : start + size]]
    return "200 OK", {"FormatVersion": "aws_v1", "PriceList": texts, **more}


def _value(product: dict[str, Any], field: str) -> Any:
    if field == "productFamily":
        return product["product"].get(field)
    return product["product"]["attributes"].get(field)


def _products() -> Iterator[dict[str, Any]]:
    for ec2type, price in FIGURES["machines"].items():
        for differs, times in (({}, 1.0), *_OTHERS):
            attributes = {"instanceType": ec2type, **_ORDINARY, **differs}
            yield _product("AmazonEC2", "Compute Instance", attributes, "Hrs", price * times)
    for name, price in (("gp3", FIGURES["disk"]), ("gp2", FIGURES["disk"] * 1.25)):
        attributes = {"volumeApiName": name, "locationType": "AWS Region"}
        yield _product("AmazonEC2", "Storage", attributes, "GB-Mo", price)
    for use, price in (("InUseAddress", FIGURES["address"]), ("ContiguousBlock", 0.008)):
        attributes = {"group": "VPCPublicIPv4Address", "usagetype": f"USE1-PublicIPv4:{use}"}
        yield _product("AmazonVPC", "", attributes, "Hrs", price)


def _product(
    service: str, family: str, attributes: dict[str, str], unit: str, price: float
) -> dict[str, Any]:
    told = {**attributes, "regionCode": FIGURES["region"], "servicecode": service}
    dimension = {
        "unit": unit, "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": f"{price:.10f}"}
    }  # fmt: skip
    return {
        "product": {**({"productFamily": family} if family else {}), "attributes": told},
        "serviceCode": service,
        "terms": {"OnDemand": {"S.T": {"priceDimensions": {"S.T.D": dimension}}}},
    }


def install() -> None:
    """Have moto tell spot prices, for the life of this process."""

    def history(self: Any) -> ActionResult:
        region = self.ec2_backend.region_name
        here = FIGURES["machines"] if region == FIGURES["region"] else {}
        asked = self._get_param("InstanceTypes", []) or list(here)
        now = datetime.now(timezone.utc)
        rows = [
            {
                "AvailabilityZone": zone.name,
                "InstanceType": ec2type,
                "ProductDescription": "Linux/UNIX",
                "SpotPrice": f"{here[ec2type] * FIGURES['spot_share']:.6f}",
                "Timestamp": now,
            }
            for ec2type in asked
            if ec2type in here
            for zone in self.ec2_backend.describe_availability_zones()
        ]
        return ActionResult({"SpotPriceHistory": rows, "NextToken": ""})

    put(SpotInstances, "describe_spot_price_history", history)
