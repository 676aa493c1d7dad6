"""Plans for a review: what `plan` shows and saves, and what `create --plan` reads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilbo.cli.context import Context
from bilbo.cli.output import echo
from bilbo.errors import UsageError
from bilbo.shape import mapped, number
from bilbo.text import json_text

if TYPE_CHECKING:
    from bilbo.cluster.planning import Planned
    from bilbo.cluster.reviewed import Reviewed
    from bilbo.cluster.work import Work
    from bilbo.model import ClusterSpec


# -- plans ---------------------------------------------------------------------------------


def read_prices(path: Path | None) -> dict[str, float]:
    """Reads USD per hour by instance type from a JSON file. Raises UsageError."""
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the prices: {error}", where=str(path)) from error
    good = not mapped(number)(document) and all(price >= 0 for price in document.values())
    if not good:
        raise UsageError(
            "the prices must be an object that maps instance types to USD per hour",
            where=str(path),
            hint='For example {"m5.xlarge": 0.236}.',
        )
    return {name: float(price) for name, price in document.items()}


def show_plan(
    planned: Planned,
    sizes: Mapping[str, str],
    form: str,
    prices: Mapping[str, float],
    digest: str,
    command: str,
    overrides: tuple[str, ...] = (),
) -> str:
    """Returns the plan in the requested format; `digest` is empty without a bundle."""
    from bilbo.plans import machines, open_to_world, read
    from bilbo.present import report
    from bilbo.present.document import plan_document
    from bilbo.present.markdown import ApplyCommand, plan_markdown
    from bilbo.present.review_text import hours_text, shortages_text, warnings_text
    from bilbo.present.settings import overrides_text, settings_text

    warnings = [] if planned.spec.public else open_to_world(planned.spec)
    given, prices = prices, {**planned.prices.machines, **prices}
    if form == "text":
        beside = (
            overrides_text(overrides),
            settings_text(planned.settings),
            shortages_text(planned.shortages),
        )
        more: dict[str, Any] = {"beside": beside, "has_changes": planned.has_changes}
        parts = [
            report.plan_text(planned.spec, sizes, planned.outcome, **more),
            warnings_text(warnings),
            hours_text(machines(read(planned.shown), given)) if given else "",
            f"Digest: {digest}\nApply exactly this: {command}" if digest else "",
        ]
        return "\n\n".join(part for part in parts if part)
    shown: dict[str, Any] = {
        "sizes": sizes,
        "prices": prices,
        "warnings": warnings,
        "settings": planned.settings,
        "shortages": planned.shortages,
        "overrides": overrides,
        "bill": planned.bill,
    }
    found = read(planned.shown)
    if form == "json":
        document = plan_document(planned.spec, found, digest=digest, **shown)
        return json_text(document)
    applied = ApplyCommand(digest, command) if digest else None
    return plan_markdown(planned.spec, found, applied=applied, **shown).rstrip("\n")


def tell_bill(planned: Planned) -> None:
    """Prints what the cluster costs, beside a plan as text: nothing if there is nothing to do and
    no price is known."""
    from bilbo.present.cost_text import bill_text

    bill = planned.bill
    if bill and bill.groups and (bill.date or planned.has_changes):
        echo("\n" + bill_text(bill, planned.spec.region, planned.spec.budget), err=True)


def save_plan(planned: Planned, w: Work, path: Path, overrides: tuple[str, ...]) -> str:
    """Writes the bundle and returns its digest."""
    from bilbo.cluster import reviewed

    return reviewed.save(planned, w, path, overrides)


def apply_command(context: Context, profile: str, name: str | None, path: Path, digest: str) -> str:
    """Returns the command that applies a bundle."""
    words = ["bilbo", *(["--local"] * context.local), "create", profile]
    words += ["-n", name] if name else []
    return shlex.join([*words, "--plan", str(path), "--digest", digest])


def read_plan(path: Path, digest: str | None, overrides: tuple[str, ...]) -> Reviewed:
    """Reads the reviewed plan in a file. Raises ReviewError and UsageError."""
    from bilbo import bundle
    from bilbo.cluster.reviewed import Reviewed
    from bilbo.errors import ReviewError

    if overrides:
        raise UsageError("--plan already holds the -p values it was made with; omit -p")
    found = bundle.read(path)
    if digest is not None and digest != found.digest:
        raise ReviewError(
            f"this is not the plan that was reviewed: its digest is {found.digest}",
            where=str(path),
            hint="Use the file from the review, or have this one reviewed.",
        )
    return Reviewed(found, path)


def check_plan(spec: ClusterSpec, *, saved: bool = False) -> None:
    """Raises RenderError if applying a bundle would admit the address that applies it; for a plan
    that is `saved`, ReviewError if it could not hold all that may be done."""
    from bilbo.cluster.reviewed import must_be_one_apply, must_name_its_callers

    must_name_its_callers(spec, "a plan for review")
    if saved:
        must_be_one_apply(spec)
