"""A review as Markdown for a pull request: what ends comes first, the whole diff last, folded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bilbo.costs import Bill
from bilbo.hostside import Setting
from bilbo.model import ClusterSpec, NodeGroup
from bilbo.plans.effects import InstanceHours, effects, machines
from bilbo.plans.exposure import Rule, exposure
from bilbo.plans.reading import UNKNOWN, ResourceChange, Review
from bilbo.plans.shortages import Shortage, missing
from bilbo.present.cost_text import bill_line, bill_rows, over_budget
from bilbo.present.ending import ending
from bilbo.present.report import counts, spot_words
from bilbo.present.review_text import PUBLIC_HINT
from bilbo.present.settings import counted, diff, shown_override, title

# GitHub truncates a comment at 65,536 characters; this leaves room for the other sections.
_DIFF_CHARACTERS = 45_000
# What is done on the hosts comes before the diff, and takes room from it.
_SETTINGS_CHARACTERS = 30_000
_CODE_CHARACTERS = 300
_HOW = {
    "destroy": "**destroy**",
    "replace": "**replace**",
    "stop": "**stop and start**",
    "shrink": "**shrink**",
}
_NOTHING: tuple[Any, ...] = (None, [], {}, "", UNKNOWN)
_MARKS = {"create": "+", "delete": "-", "forget": "-", "replace": "-", "update": "!"}


@dataclass(frozen=True)
class ApplyCommand:
    """How to apply the reviewed plan: its bundle's digest, and the command."""

    digest: str
    command: str


def plan_markdown(
    spec: ClusterSpec,
    review: Review,
    *,
    sizes: Mapping[str, str],
    prices: Mapping[str, float],
    warnings: Sequence[str],
    settings: Sequence[Setting] = (),
    shortages: Sequence[Shortage] = (),
    overrides: Sequence[str] = (),
    applied: ApplyCommand | None = None,
    bill: Bill | None = None,
) -> str:
    """Returns the review of a plan. Takes the arguments of `plan_document`."""
    beside = [*_overrides(overrides), *_settings(settings), *_shortages(shortages)]
    room = _DIFF_CHARACTERS - sum(len(each) for each in beside)
    sections = [
        f"## Plan for cluster {code(spec.name)} in {code(spec.region)}",
        _counts(review, settings, shortages),
        *_ends(review),
        ending(spec),
        *_reach(review, warnings),
        *beside,
        *_drift(review.drift, []),
        *_workers(spec, sizes),
        *_hours(machines(review, prices)),
        *_costs(spec, bill),
        *_diff(review.changes, room),
        *_apply(applied),
    ]
    return "\n\n".join(sections) + "\n"


def drift_markdown(name: str, region: str, review: Review, instances: Sequence[str]) -> str:
    """Returns what was changed outside Terraform; `instances` as for `drift_text`."""
    sections = [f"## Drift of cluster {code(name)} in {code(region)}"]
    if not review.drift and not instances:
        sections.append("Nothing was changed outside Terraform.")
    sections += _drift(review.drift, instances)
    sections += _diff(review.drift)
    return "\n\n".join(sections) + "\n"


def code(value: Any) -> str:
    """Returns a value as code that cannot become Markdown, HTML or another table cell."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+", " ", text)
    if len(text) > _CODE_CHARACTERS:
        text = text[:_CODE_CHARACTERS] + "…"
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text[:1] + text[-1:] else ""
    return f"{ticks}{space}{text}{space}{ticks}".replace("|", "\\|") if text else "` `"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in GitHub's Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counts(review: Review, settings: Sequence[Setting], shortages: Sequence[Shortage]) -> str:
    beside = "".join(f", **{said}**" for said in (counted(settings), missing(shortages)) if said)
    if not review.changes and not beside:
        return "**Nothing to do.**"
    more = []
    if replaced := review.count("replace"):
        more.append(f"{replaced} of them replaced")
    if stopped := sum(effect.how == "stop" for effect in effects(review)):
        more.append(f"{stopped} machine{'s' * (stopped > 1)} stopped and started again")
    return (
        f"**{counts(each.action for each in review.changes)}**"
        + (f" ({', '.join(more)})" if more else "")
        + beside
    )


def _ends(review: Review) -> Iterator[str]:
    rows = [
        [
            _HOW[effect.how],
            code(effect.address),
            ", ".join(code(each) for each in effect.because),
            effect.lost,
        ]
        for effect in effects(review)
    ]
    if rows:
        yield "### ⚠️ Ends something that runs"
        yield table(("", "Resource", "Because of", "What is lost"), rows)


def _reach(review: Review, warnings: Sequence[str]) -> Iterator[str]:
    found = exposure(review)
    rows = [_rule("opened", rule) for rule in found.opened]
    rows += [_rule("closed", rule) for rule in found.closed]
    if not rows and not found.public_addresses and not warnings:
        return
    yield "### Who can reach it"
    if warnings:
        yield "\n".join([f"- ⚠️ **{each}**" for each in warnings] + [f"- {PUBLIC_HINT}"])
    if rows:
        yield table(("", "Port", "From", "What"), rows)
    if found.public_addresses:
        listed = "\n".join(f"- {code(address)}" for address in found.public_addresses)
        yield f"New machines with public addresses:\n\n{listed}"


def _rule(done: str, rule: Rule) -> list[str]:
    world = " **the whole internet**" if rule.public else ""
    return [done, code(rule.ports), code(rule.source) + world, code(rule.what)]


def _settings(settings: Sequence[Setting]) -> Iterator[str]:
    """What is done on the hosts: never folded, because Terraform's diff does not show it."""
    lines = []
    for setting in settings:
        lines.append(f"{'!' if setting.changed else ' '} {title(setting)}")
        lines += [f"{mark}     {text}" for mark, text in diff(setting)]
    if lines:
        yield "### On the hosts, outside Terraform"
        yield _fenced("diff", "\n".join(lines), _SETTINGS_CHARACTERS // 2)


def _shortages(shortages: Sequence[Shortage]) -> Iterator[str]:
    if shortages:
        yield "### Missing workers, outside Terraform"
        yield "\n".join(f"- {each.text}" for each in shortages)


def _overrides(overrides: Sequence[str]) -> Iterator[str]:
    if overrides:
        yield "### Changed by `-p`"
        text = "\n".join(shown_override(each) for each in overrides)
        yield _fenced("text", text, _SETTINGS_CHARACTERS // 2)


def _drift(drift: Sequence[ResourceChange], instances: Sequence[str]) -> Iterator[str]:
    if not drift and not instances:
        return
    yield "### Changed outside Terraform"
    rows = [
        [code(change.address), "gone" if change.action == "delete" else change.action, _few(change)]
        for change in drift
    ]
    if rows:
        yield table(("Resource", "", "Attributes"), rows)
    if instances:
        yield "\n".join(f"- {line}" for line in instances)


def _few(change: ResourceChange) -> str:
    shown = [code(attribute.path) for attribute in change.attributes[:6]]
    more = len(change.attributes) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _workers(spec: ClusterSpec, sizes: Mapping[str, str]) -> Iterator[str]:
    rows = [
        [code(group.name), str(group.count), _types(group), sizes.get(group.name, "")]
        for group in spec.workers
    ]
    if rows:
        yield "### Workers"
        yield table(("Group", "Machines", "Type", "Estimated, each machine"), rows)


def _types(group: NodeGroup) -> str:
    types = " or ".join(map(code, group.ec2types))
    return f"{types}; spot: {spot_words(group)}" if group.spot else types


def _hours(found: Sequence[InstanceHours]) -> Iterator[str]:
    if not found:
        return
    priced = any(each.price is not None for each in found)
    heading = ["Type", "Now", "Then", *(["USD per hour each", "USD per hour then"] * priced)]
    rows = [
        [code(each.ec2type), str(each.before), str(each.after), *(_price(each) if priced else ())]
        for each in found
    ]
    totals = ["", *(f"**{sum(getattr(m, side) for m in found)}**" for side in ("before", "after"))]
    if priced:
        total = sum((each.price or 0) * each.after for each in found)
        unknown = any(each.price is None and each.after for each in found)
        totals += ["", f"**{'at least ' * unknown}{total:.4f}**"]
    yield "### Instance-hours per hour"
    yield table(heading, [*rows, totals])


def _price(each: InstanceHours) -> list[str]:
    if each.price is None:
        return ["?", "?"]
    return [f"{each.price:.4f}", f"{each.price * each.after:.4f}"]


def _costs(spec: ClusterSpec, bill: Bill | None) -> Iterator[str]:
    if bill is None or not bill.groups:
        return
    yield "### What it costs"
    if bill.date:
        heading = ("Group", "USD per hour now", "Then", "USD per month then")
        yield table(heading, [[code(group), *cells] for group, *cells in bill_rows(bill)])
    if bill.total_then.unknown:
        yield bill_line(bill, spec.region)
    if over := over_budget(bill, spec.budget):
        yield f"⚠️ **{over}**"


def _diff(changes: Sequence[ResourceChange], room: int = _DIFF_CHARACTERS) -> Iterator[str]:
    if not changes:
        return
    text = "\n".join(line for change in changes for line in _diff_lines(change))
    plural = "s" * (len(changes) > 1)
    yield (
        f"<details><summary>Full diff: {len(changes)} resource{plural}</summary>\n\n"
        f"{_fenced('diff', text, room)}\n\n</details>"
    )


def _fenced(language: str, text: str, room: int) -> str:
    """Returns text in a block that it cannot close, cut if it is too long for a comment."""
    cut = ""
    if len(text) > room:
        text = text[:room].rpartition("\n")[0]
        cut = "\n\n**The rest is too long for a comment; `--format json` has it.**"
    fence = "`" * max(3, *(len(run) + 1 for run in [*re.findall("`+", text), ""]))
    return f"{fence}{language}\n{text}\n{fence}{cut}"


def _diff_lines(change: ResourceChange) -> Iterator[str]:
    mark = _MARKS.get(change.action, " ")
    yield f"{mark} {change.action} {change.address}"
    for attribute in change.attributes:
        forces = "  # forces replacement" if attribute.forces else ""
        yield f"-     {attribute.path}: {_line(attribute.before)}{forces}"
        yield f"+     {attribute.path}: {_line(attribute.after)}"
    if change.action == "create":
        for key, value in sorted(pruned(change.after).items()):
            if key != "tags_all":
                yield f"+     {key}: {_line(value)}"


def pruned(value: Any) -> Any:
    """Returns `value` without what is empty or unknown."""
    if isinstance(value, Mapping):
        kept = {key: pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in _NOTHING}
    if isinstance(value, list):
        return [item for item in map(pruned, value) if item not in _NOTHING]
    return value


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return re.sub(r"[\u2028-\u202e\u2066-\u2069\x7f-\x9f]", "?", text)[:2000]


def _apply(applied: ApplyCommand | None) -> Iterator[str]:
    if applied is None:
        return
    yield "### Apply exactly this"
    yield f"Digest of the bundle: {code(applied.digest)}"
    yield f"```sh\n{applied.command}\n```"
