"""A review as JSON for programs; `schemas/plan-01.schema.json` describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bilbo.costs import Bill
from bilbo.hostside import Setting
from bilbo.model import ClusterSpec, NodeGroup
from bilbo.plans.effects import InstanceHours, effects, machines
from bilbo.plans.exposure import Rule, exposure
from bilbo.plans.reading import ResourceChange, Review
from bilbo.plans.shortages import Shortage
from bilbo.present.cost_text import bill_document
from bilbo.present.ending import ending_document
from bilbo.present.report import counts
from bilbo.present.settings import redacted, shown_override

VERSION = 2


def plan_document(
    spec: ClusterSpec,
    review: Review,
    *,
    sizes: Mapping[str, str],
    prices: Mapping[str, float],
    warnings: Sequence[str],
    settings: Sequence[Setting] = (),
    shortages: Sequence[Shortage] = (),
    overrides: Sequence[str] = (),
    digest: str = "",
    bill: Bill | None = None,
) -> dict[str, Any]:
    """Returns what is requested, what would happen, and what that ends, opens and costs.

    `sizes` are estimates by group, `prices` USD per hour by instance type, `settings` what HCL does
    not hold, `shortages` the groups with missing workers, `overrides` the values of `-p`, `digest`
    the bundle's, `bill` what the cluster costs by the hour.
    """
    return {
        "version": VERSION,
        "kind": "plan",
        "name": spec.name,
        "region": spec.region,
        "type": spec.engine,
        "lifetime": ending_document(spec),
        "summary": counts(each.action for each in review.changes),
        "groups": [_group(spec, group, sizes) for group in spec.groups()],
        "changes": [_change(change) for change in review.changes],
        "settings": [_setting(each) for each in settings],
        "shortages": [asdict(each) for each in shortages],
        "overrides": [shown_override(each) for each in overrides],
        "drift": [_change(change) for change in review.drift],
        "effects": [
            {"address": e.address, "how": e.how, "because": list(e.because), "lost": e.lost}
            for e in effects(review)
        ],
        "exposure": _exposure(review),
        "machines": [_machines(each) for each in machines(review, prices)],
        "costs": bill_document(bill, spec.budget) if bill else None,
        "warnings": list(warnings),
        "digest": digest or None,
    }


def _machines(found: InstanceHours) -> dict[str, Any]:
    return {
        "ec2type": found.ec2type,
        "before": found.before,
        "after": found.after,
        "usd_per_hour": found.price,
    }


def drift_document(
    name: str, region: str, review: Review, instances: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns what was changed outside Terraform; `instances` are those that differ from the
    record, each with instance_id, role, state and public_ip."""
    return {
        "version": VERSION,
        "kind": "drift",
        "name": name,
        "region": region,
        "drift": [_change(change) for change in review.drift],
        "instances": [dict(each) for each in instances],
    }


def _change(change: ResourceChange) -> dict[str, Any]:
    return {
        "address": change.address,
        "type": change.kind,
        "action": change.action,
        "reason": change.reason or None,
        "attributes": [
            {
                "path": attribute.path,
                "before": attribute.before,
                "after": attribute.after,
                "forces_replacement": attribute.forces,
            }
            for attribute in change.attributes
        ],
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "groups": list(setting.groups),
        "key": setting.key,
        "before": redacted(setting.before),
        "after": redacted(setting.after),
        "changed": setting.changed,
    }


def _exposure(review: Review) -> dict[str, Any]:
    reached = exposure(review)
    return {
        "opened": [_rule(rule) for rule in reached.opened],
        "closed": [_rule(rule) for rule in reached.closed],
        "public_addresses": list(reached.public_addresses),
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {"ports": rule.ports, "source": rule.source, "what": rule.what, "public": rule.public}


def _group(spec: ClusterSpec, group: NodeGroup, sizes: Mapping[str, str]) -> dict[str, Any]:
    machine = group.machine
    return {
        "name": group.name,
        "role": group.role,
        "count": group.count,
        "ami": machine.ami,
        "ec2type": machine.ec2type,
        "types": list(group.ec2types),
        "spot": group.spot or None,
        "on_demand": group.on_demand or 0 if group.spot else group.count,
        "keyname": machine.keyname,
        "security_group": machine.security_group,
        "cidrs": [] if machine.security_group else list(spec.cidrs),
        "resources": dict(group.resources),
        "estimate": sizes.get(group.name),
    }
