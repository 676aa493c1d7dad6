"""What AWS charges: its price list, and its spot prices.

Source of the filters: AWS's Price List Query API, GetProducts. Without all of them the list mixes
operating systems, tenancies, licences and installed software. Public IPv4 addresses are in it as
products of AmazonVPC. It is served from few regions and tells of all; China has its own, in CNY.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.errors import AwsError
from bilbo.model import Target
from bilbo.prices import Prices, usable

_SERVED_FROM = "us-east-1"
_EC2, _VPC = "AmazonEC2", "AmazonVPC"
# What every product of a kind has. The answer is held against it too, so that nothing else counts.
MACHINES = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "licenseModel": "No License required",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}
DISKS = {"productFamily": "Storage", "volumeApiName": "gp3"}
ADDRESSES = {"group": "VPCPublicIPv4Address"}
_IN_USE = "PublicIPv4:InUseAddress"
# What a product may have beside: zones outside a region, and blocks of capacity, have other prices.
_ORDINARY = {"locationType": "AWS Region", "marketoption": "OnDemand"}
# More pages than AWS has products in a region: an endless list ends here.
_MOST = 20_000


def price_list(target: Target, *, optional: bool = False) -> Prices:
    """The prices of the target's region now. About 15 calls; `optional` ones wait for seconds only.

    What the list does not tell, or tells in two ways, is not in it. Raises AwsError if AWS refuses,
    does not answer, or has no prices in USD. Without permission for spot prices there are none.
    """
    region = target.region
    if region.startswith("cn-"):
        raise AwsError(f"AWS charges CNY in {region}, and bilbo counts USD")
    with asking(f"cannot read AWS's price list for {region}"):
        pricing = client(target, "pricing", _SERVED_FROM, optional=optional)
        ec2 = client(target, "ec2", optional=optional)
        with ThreadPoolExecutor(4) as pool:
            spot = pool.submit(_spot, ec2)
            machines = pool.submit(_products, pricing, _EC2, region, MACHINES)
            disks = pool.submit(_products, pricing, _EC2, region, DISKS)
            addresses = pool.submit(_products, pricing, _VPC, region, ADDRESSES)
            return Prices(
                region,
                datetime.now(timezone.utc).isoformat(timespec="seconds"),
                by_type(machines.result()),
                spot.result(),
                one(disks.result(), "GB-Mo"),
                one([each for each in addresses.result() if _in_use(each)], "Hrs"),
            )


def spot_prices(target: Target, types: list[str]) -> dict[str, float]:
    """USD per hour of spot instances now, the highest of the region's zones, by instance type.
    Empty if AWS does not answer within seconds, or not to this user."""
    return _spot(client(target, "ec2", optional=True), types)


def _spot(ec2: Any, types: list[str] | None = None) -> dict[str, float]:
    from botocore.exceptions import BotoCoreError, ClientError

    asked: dict[str, Any] = {"InstanceTypes": types} if types else {}
    found: dict[str, float] = {}
    try:
        pages = ec2.get_paginator("describe_spot_price_history").paginate(
            ProductDescriptions=["Linux/UNIX"],
            StartTime=datetime.now(timezone.utc),
            PaginationConfig={"MaxItems": _MOST},
            **asked,
        )
        for page in pages:
            for each in page["SpotPriceHistory"]:
                if price := usable(each.get("SpotPrice")):
                    name = each["InstanceType"]
                    found[name] = max(price, found.get(name, 0.0))
    except (BotoCoreError, ClientError):
        return {}
    return found


def _products(
    pricing: Any, service: str, region: str, having: Mapping[str, str]
) -> list[dict[str, Any]]:
    filters = [
        {"Type": "TERM_MATCH", "Field": name, "Value": value}
        for name, value in {**having, "regionCode": region}.items()
    ]
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode=service, Filters=filters, PaginationConfig={"PageSize": 100, "MaxItems": _MOST}
    )
    found = [_product(text) for page in pages for text in page["PriceList"]]
    return [each for each in found if each and suits(each, {**having, "regionCode": region})]


def _product(text: Any) -> dict[str, Any]:
    """A product's document, which AWS sends as text; empty for anything else."""
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def suits(product: Mapping[str, Any], having: Mapping[str, str]) -> bool:
    """Whether a product has all these attributes, and is sold in the region itself, on demand."""
    told = {**_inner(product, "product", "attributes")}
    told.setdefault("productFamily", _inner(product, "product").get("productFamily"))
    wanted = {**having, **{name: value for name, value in _ORDINARY.items() if told.get(name)}}
    return all(told.get(name) == value for name, value in wanted.items())


def by_type(products: list[dict[str, Any]]) -> dict[str, float]:
    """USD per hour by instance type. A type that is told twice, differently, is left out. Pure."""
    found: dict[str, set[float]] = {}
    for product in products:
        name = _inner(product, "product", "attributes").get("instanceType")
        if isinstance(name, str):
            found.setdefault(name, set()).update(_prices(product, "Hrs"))
    return {name: prices.pop() for name, prices in sorted(found.items()) if len(prices) == 1}


def one(products: list[dict[str, Any]], unit: str) -> float | None:
    """The one price for a unit; None if there is none, or there are two. Pure."""
    found = {price for product in products for price in _prices(product, unit)}
    return found.pop() if len(found) == 1 else None


def _in_use(product: Mapping[str, Any]) -> bool:
    return str(_inner(product, "product", "attributes").get("usagetype")).endswith(_IN_USE)


def _prices(product: Mapping[str, Any], unit: str) -> Iterator[float]:
    """The on-demand prices of the first of a unit that are told and not 0."""
    for term in _inner(product, "terms", "OnDemand").values():
        for each in _inner(term, "priceDimensions").values():
            if isinstance(each, dict) and each.get("unit") == unit:
                first = each.get("beginRange", "0") == "0"
                if first and (price := usable(_inner(each, "pricePerUnit").get("USD"))):
                    yield price


def _inner(value: Any, *keys: str) -> Mapping[str, Any]:
    """The object below these keys; empty if there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
