"""Reviewed plans: packed into a bundle, and applied exactly or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bilbo import __version__, addresses, aws, bundle
from bilbo.bundle import Bundle, Manifest
from bilbo.cluster.ownership import Own
from bilbo.cluster.planning import PLAN_FILE, Planned, write_rendered
from bilbo.cluster.shared_state import not_moving
from bilbo.cluster.work import Work
from bilbo.errors import RenderError, ReviewError
from bilbo.files import private_write
from bilbo.model import FALLBACK, ClusterSpec
from bilbo.plans import drift_digests, open_to_world, read
from bilbo.record import Store
from bilbo.render import render
from bilbo.terraform import PROVIDERS, PlannedChange, Terraform, locked_providers
from bilbo.terraform import planfile as terraform_plan

# The platforms of reviewers, and of runners that apply.
PLATFORMS = ("linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64")
_LOCK_FILE = ".terraform.lock.hcl"
_AGAIN = "Make a new plan with `bilbo plan PROFILE -o FILE` and have it reviewed."


def must_name_its_callers(spec: ClusterSpec, what: str) -> None:
    """Raises RenderError unless the profile itself says who is admitted: the machine that applies
    it, such as a CI runner, must not be admitted for that."""
    if spec.needs_security_group and not spec.cidrs:
        raise RenderError(
            f"{what} requires `access.cidrs` in the profile",
            hint='Add "access": {"cidrs": ["YOUR.ADDRESS/32"]}, or a security_group for every '
            "instance.",
        )


def must_be_one_apply(spec: ClusterSpec) -> None:
    """Raises ReviewError if a group may need a second apply, which no saved plan holds."""
    groups = [group.name for group in spec.workers if group.spot == FALLBACK]
    if groups:
        raise ReviewError(
            'a saved plan cannot hold what "spot": "fallback" may need: on demand what spot '
            f"cannot give, in a second apply (group {', '.join(groups)})",
            hint='Run `bilbo create` without a saved plan, or set "spot": true: a group that is '
            "short then stays short, and the next plan says so.",
        )


def allowed(spec: ClusterSpec) -> None:
    """Raises ReviewError if the specification opens ports to the internet without saying that this
    is intended, RenderError if it has shared state and would admit the machine that applies it."""
    if spec.state:
        must_name_its_callers(spec, "a shared state")
    if (ports := open_to_world(spec)) and not spec.public:
        raise ReviewError(
            "ports would be open to the whole internet; nothing was created",
            details=tuple(ports),
            hint="List your own networks in access.cidrs. If this is intended: "
            '"access": {"public": true}.',
        )


def home_id(store: Store) -> str:
    """Returns this bilbo home's random id, which ties plans of a local state to it."""
    path = store.home / "identity"
    if not path.is_file():
        private_write(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8").strip()


# -- packing -------------------------------------------------------------------------------


def save(planned: Planned, work: Work, path: Path, overrides: tuple[str, ...]) -> str:
    """Packs the plan into a bundle at `path`, and returns its digest.

    Raises ReviewError and TerraformError. Side effects: writes a file of mode 0600 and, if the
    registry is reachable, hashes for other platforms into the lock file.
    """
    spec, terraform = planned.spec, work.terraform(planned.spec.name)
    must_be_one_apply(spec)
    if planned.outcome is None:
        raise ReviewError("nothing to plan: the profile has no instances")
    if planned.paused:
        raise ReviewError(
            f"cluster {spec.name!r} is paused: until it runs, there is nothing to review",
            hint=f"Resume it first: bilbo resume {spec.name}",
        )
    terraform.lock_platforms(PLATFORMS)
    state = terraform.state()
    manifest = Manifest(
        cluster=spec.name,
        region=spec.region,
        profile=bundle.profile_digest(spec.profile),
        profile_name=spec.profile_name,
        overrides=overrides,
        amis={g.name: g.machine.ami for g in spec.groups() if g.machine.image},
        endpoint=work.target.endpoint_url,
        account=spec.account,
        owner=spec.owner,
        home="" if spec.state else home_id(work.store),
        lineage=state.get("lineage", "") if state.get("resources") else "",
        serial=state.get("serial", 0) if state.get("resources") else 0,
        versions={"bilbo": __version__, **terraform.versions()},
        instances=_instances(spec, work),
        drift=drift_digests(planned.shown),
    )
    hcl = {**planned.files, _LOCK_FILE: (terraform.folder / _LOCK_FILE).read_text(encoding="utf-8")}
    contents = {f"{bundle.HCL}{name}": text.encode() for name, text in hcl.items()}
    contents[bundle.PLAN] = planned.saved
    return bundle.write(path, manifest, contents)


def _instances(spec: ClusterSpec, work: Work) -> tuple[str, ...]:
    """Returns the cluster's running instances, without those of other owners."""
    own = Own(spec.owner)
    return tuple(
        sorted(
            found.id
            for found in aws.tagged(work.target, spec.name)
            if found.kind == "aws_instance" and found.state in ("pending", "running")
            if own.has(found)
        )
    )


# -- applying ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reviewed:
    """A bundle to apply. Every method raises ReviewError; none makes a new plan."""

    bundle: Bundle
    path: Path

    def suits(self, spec: ClusterSpec, work: Work) -> None:
        """Checks that it is for this cluster, profile, target and bilbo. Reads only."""
        manifest = self.bundle.manifest
        self._same("for cluster", manifest.cluster, spec.name, "Give the cluster's name with -n.")
        self._same("for region", manifest.region, spec.region)
        self._same(
            "for the AWS at",
            manifest.endpoint or "AWS itself",
            work.target.endpoint_url or "AWS itself",
            "For the stand-in AWS, use bilbo --local create; for another endpoint, set "
            "AWS_ENDPOINT_URL.",
        )
        if manifest.profile != bundle.profile_digest(spec.profile):
            raise ReviewError(
                "the profile has changed since the review",
                where=str(self.path),
                hint=f"Revert the change, or {_AGAIN[0].lower()}{_AGAIN[1:]}",
            )
        self._same("made by bilbo", manifest.versions.get("bilbo", "?"), __version__)
        if spec.state is None and manifest.home != home_id(work.store):
            raise ReviewError(
                "the plan is based on a state on another machine; applying it here would create a "
                "second cluster",
                where=str(self.path),
                hint="Apply it where it was made, or share the state: add `state` to the profile "
                "and plan again.",
            )

    def is_rendered(self, spec: ClusterSpec) -> None:
        """Checks that its HCL and the configuration inside Terraform's plan are what this bilbo
        renders from the settled `spec`, and that it locks only the AWS provider. Pure."""
        manifest = self.bundle.manifest
        self._same("for the AWS account", manifest.account or "none", spec.account or "none")
        must_name_its_callers(spec, "a plan for review")
        self._same("for the owner", manifest.owner or "none", spec.owner or "none")
        found = self.bundle.hcl
        lock = found.pop(_LOCK_FILE, "")
        rendered = render(replace(spec, profile_name=manifest.profile_name))
        self._nothing_but("holds", found, rendered)
        try:
            planned = terraform_plan.read(self.bundle.contents[bundle.PLAN])
        except ValueError as error:
            raise self._forged(f"cannot read its Terraform plan: {error}") from error
        self._nothing_but("plans with", planned.configuration, rendered)
        if planned.lock != lock:
            raise self._forged("its Terraform plan was made with another lock file")
        try:
            locked = locked_providers(lock)
        except ValueError as error:
            raise self._forged(str(error)) from error
        foreign = sorted({*locked, *planned.providers} - PROVIDERS)
        if foreign or not locked:
            raise self._forged(f"it uses {', '.join(foreign) or 'no provider'}")

    def _nothing_but(
        self, verb: str, found: Mapping[str, str], rendered: Mapping[str, str]
    ) -> None:
        for name in sorted(found.keys() | rendered.keys()):
            if found.get(name) != rendered.get(name):
                raise self._forged(
                    f"it {verb} {name}, which differs from what bilbo renders from the profile"
                )

    def _forged(self, why: str) -> ReviewError:
        return ReviewError(
            f"bilbo would not make this plan from this profile: {why}",
            where=str(self.path),
            hint=_AGAIN,
        )

    def place(self, spec: ClusterSpec, terraform: Terraform) -> None:
        """Writes the reviewed files, the lock file included, into the cluster's folder."""
        files = self.bundle.hcl
        lock = files.pop(_LOCK_FILE)
        write_rendered(spec, terraform, files)
        terraform.write_extra(_LOCK_FILE, lock)
        private_write(terraform.cluster_folder / PLAN_FILE, self.bundle.contents[bundle.PLAN])

    def still_true(
        self, spec: ClusterSpec, work: Work, terraform: Terraform
    ) -> list[PlannedChange]:
        """Checks that versions, state and AWS are unchanged, and that the plan changes only what
        bilbo renders. Returns its changes. Works in a scratch folder, not in the cluster's."""
        not_moving(spec, terraform)
        with TemporaryDirectory(prefix="bilbo-review-") as scratch:
            looking = work.terraform(spec.name, Path(scratch))
            looking.borrow(terraform)
            self.place(spec, looking)
            self._versions(looking)  # from the lock file: nothing is installed yet
            looking.init()
            changes = self._changes(looking)
            self._state(looking)
            self._reality(spec, work, looking)
            terraform.inherit(looking)
        return changes

    def _versions(self, terraform: Terraform) -> None:
        reviewed = {**self.bundle.manifest.versions}
        now = {"bilbo": __version__, **terraform.versions()}
        for name in sorted(reviewed.keys() | now.keys()):
            self._same(f"made with {name}", reviewed.get(name, "none"), now.get(name, "none"))

    def _changes(self, terraform: Terraform) -> list[PlannedChange]:
        """Returns what it changes, and checks that all is of types that bilbo renders."""
        shown = terraform.show(terraform.cluster_folder / PLAN_FILE)
        for change in shown.get("resource_changes", []):
            if change["type"] not in addresses.RESOURCE_TYPES:
                raise self._forged(f"it would change {change['address']}")
        changes = read(shown).changes
        return [PlannedChange(each.address, each.kind, each.action) for each in changes]

    def _state(self, terraform: Terraform) -> None:
        state = terraform.state()
        kept = bool(state.get("resources"))
        now = (state.get("lineage", ""), state.get("serial", 0)) if kept else ("", 0)
        reviewed = (self.bundle.manifest.lineage, self.bundle.manifest.serial)
        if now != reviewed:
            raise ReviewError(
                "the cluster has changed since the plan was made: Terraform's state is at serial "
                f"{now[1]}, but the plan is based on {reviewed[1]}",
                where=str(self.path),
                hint=_AGAIN,
            )

    def _reality(self, spec: ClusterSpec, work: Work, terraform: Terraform) -> None:
        """Compares instances too: the state does not show that a worker was terminated by hand."""
        reviewed, running = set(self.bundle.manifest.instances), set(_instances(spec, work))
        details = [f"{name} no longer runs" for name in sorted(reviewed - running)]
        details += [f"{name} runs, but did not then" for name in sorted(running - reviewed)]
        if not details and self.bundle.manifest.serial:
            details += self._drifted(spec, work, terraform)
        if details:
            raise ReviewError(
                "something was changed outside Terraform since the plan was made",
                where=str(self.path),
                details=tuple(details),
                hint=_AGAIN,
            )

    def _drifted(self, spec: ClusterSpec, work: Work, terraform: Terraform) -> list[str]:
        work.progress.status("Checking that AWS is as it was reviewed")
        looked = terraform.cluster_folder / "look.tfplan"
        outcome = terraform.plan(looked, work.progress.terraform, refresh_only=True)
        if not outcome.ok:
            raise terraform.error(outcome, f"cannot compare AWS with the state of {spec.name!r}")
        if not outcome.drift and not self.bundle.manifest.drift:
            return []
        now, then = drift_digests(terraform.show(looked)), self.bundle.manifest.drift
        return [
            f"{address} has changed"
            for address in sorted(now.keys() | then.keys())
            if now.get(address) != then.get(address)
        ]

    def _same(self, what: str, reviewed: str, now: str, hint: str = _AGAIN) -> None:
        if reviewed != now:
            raise ReviewError(
                f"the plan is {what} {reviewed}, but here it is {now}",
                where=str(self.path),
                hint=hint,
            )
