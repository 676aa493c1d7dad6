"""Plans that are reviewed first: packed into a bundle, and applied exactly or not at all."""

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
from bilbo.cluster.work import Work, interrupted
from bilbo.errors import RenderError, ReviewError
from bilbo.files import private_write
from bilbo.model import ClusterSpec
from bilbo.plans import drift_digests, open_to_world
from bilbo.record import Store
from bilbo.render import render
from bilbo.terraform import PROVIDERS, Terraform, locked_providers
from bilbo.terraform import planfile as terraform_plan

# Where those who review, and the runners that apply, may sit.
PLATFORMS = ("linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64", "windows_amd64")
_LOCK_FILE = ".terraform.lock.hcl"
_AGAIN = "Make a new plan with `bilbo plan PROFILE -o FILE`, and have it reviewed."


def must_name_its_callers(spec: ClusterSpec, what: str) -> None:
    """Raises RenderError unless the profile itself says who is admitted: whoever carries it out,
    a CI runner say, must never be admitted for that."""
    if spec.needs_security_group and not spec.cidrs:
        raise RenderError(
            f"{what} needs the networks to admit to stand in the profile: access.cidrs is missing",
            hint='Add "access": {"cidrs": ["YOUR.ADDRESS/32"]}, or a security_group to every '
            "instance.",
        )


def allowed(spec: ClusterSpec) -> None:
    """Raises ReviewError where the specification opens ports to the world and does not say that
    it means to, RenderError where it shares its state and would admit whoever carries it out."""
    if spec.state:
        must_name_its_callers(spec, "a shared state")
    if (ports := open_to_world(spec)) and not spec.public:
        raise ReviewError(
            "ports would be open to the whole internet, and nothing was created",
            details=tuple(ports),
            hint="Name your own networks in access.cidrs. If it is meant so: "
            '"access": {"public": true}.',
        )


def home_id(store: Store) -> str:
    """The random name of this bilbo home, by which a local state's plans know it again."""
    path = store.home / "identity"
    if not path.is_file():
        private_write(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8").strip()


# -- packing -------------------------------------------------------------------------------


def save(planned: Planned, work: Work, path: Path, overrides: tuple[str, ...]) -> str:
    """Packs what was planned into a bundle at `path`; its digest.

    Raises ReviewError and what Terraform raises. Side effects: a file of mode 0600; where the
    registry is in reach, hashes for other platforms in the lock file.
    """
    spec, terraform = planned.spec, work.terraform(planned.spec.name)
    if planned.outcome is None:
        raise ReviewError("there is nothing to plan: the profile asks for no instance")
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
    """The instances that run; another's, which only carry the cluster's tag, are left out."""
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
    """A bundle that is to be applied. Every method raises ReviewError, and re-plans nothing."""

    bundle: Bundle
    path: Path

    def suits(self, spec: ClusterSpec, work: Work) -> None:
        """Whether it is for this cluster, profile, place and bilbo. Touches nothing."""
        manifest = self.bundle.manifest
        self._same("for cluster", manifest.cluster, spec.name, "Name the cluster with -n.")
        self._same("for region", manifest.region, spec.region)
        self._same(
            "for the AWS at",
            manifest.endpoint or "AWS itself",
            work.target.endpoint_url or "AWS itself",
            "For the stand-in AWS: bilbo --local create. For another endpoint: AWS_ENDPOINT_URL.",
        )
        if manifest.profile != bundle.profile_digest(spec.profile):
            raise ReviewError(
                "the profile is not the one that was reviewed: it was changed since",
                where=str(self.path),
                hint=f"Take the change back, or: {_AGAIN[0].lower()}{_AGAIN[1:]}",
            )
        self._same("made by bilbo", manifest.versions.get("bilbo", "?"), __version__)
        if spec.state is None and manifest.home != home_id(work.store):
            raise ReviewError(
                "the plan rests on a state that is on another machine, and two clusters would "
                "come of it",
                where=str(self.path),
                hint="Apply it where it was made, or share the state: add `state` to the profile, "
                "and plan again.",
            )

    def is_rendered(self, spec: ClusterSpec) -> None:
        """Whether its HCL, and the configuration inside Terraform's plan, are what this bilbo
        renders from the settled `spec`, and nothing but the AWS provider is locked. Pure."""
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
            raise self._forged(f"its Terraform plan cannot be read: {error}") from error
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
                raise self._forged(f"it {verb} another {name} than bilbo renders from the profile")

    def _forged(self, why: str) -> ReviewError:
        return ReviewError(
            f"the plan is not one that bilbo makes of this profile: {why}",
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

    def still_true(self, spec: ClusterSpec, work: Work, terraform: Terraform) -> None:
        """Whether versions, state and reality are as they were, and the plan changes nothing but
        what bilbo renders. Looks from a scratch folder: the cluster's is not touched."""
        not_moving(spec, terraform)
        with TemporaryDirectory(prefix="bilbo-review-") as scratch:
            looking = work.terraform(spec.name, Path(scratch))
            looking.borrow(terraform)
            self.place(spec, looking)
            self._versions(looking)  # as the lock file has them: nothing is installed yet
            looking.init()
            self._types(looking)
            self._state(looking)
            self._reality(spec, work, looking)
            terraform.inherit(looking)

    def _versions(self, terraform: Terraform) -> None:
        reviewed = {**self.bundle.manifest.versions}
        now = {"bilbo": __version__, **terraform.versions()}
        for name in sorted(reviewed.keys() | now.keys()):
            self._same(f"made with {name}", reviewed.get(name, "none"), now.get(name, "none"))

    def _types(self, terraform: Terraform) -> None:
        """Whether each resource that would change is of a type that bilbo renders."""
        changes = terraform.show(terraform.cluster_folder / PLAN_FILE).get("resource_changes", [])
        for change in changes:
            if change["type"] not in addresses.RESOURCE_TYPES:
                raise self._forged(f"it would change {change['address']}")

    def _state(self, terraform: Terraform) -> None:
        state = terraform.state()
        kept = bool(state.get("resources"))
        now = (state.get("lineage", ""), state.get("serial", 0)) if kept else ("", 0)
        reviewed = (self.bundle.manifest.lineage, self.bundle.manifest.serial)
        if now != reviewed:
            raise ReviewError(
                "the cluster was changed since the plan was made: Terraform's state is at serial "
                f"{now[1]}, and the plan rests on {reviewed[1]}",
                where=str(self.path),
                hint=_AGAIN,
            )

    def _reality(self, spec: ClusterSpec, work: Work, terraform: Terraform) -> None:
        """An instance that ended by hand since is in no state: the state alone looks well."""
        reviewed, running = set(self.bundle.manifest.instances), set(_instances(spec, work))
        details = [f"{name} does not run any more" for name in sorted(reviewed - running)]
        details += [f"{name} runs, and did not then" for name in sorted(running - reviewed)]
        if not details and self.bundle.manifest.serial:
            details += self._drifted(spec, work, terraform)
        if details:
            raise ReviewError(
                "something was changed outside since the plan was made",
                where=str(self.path),
                details=tuple(details),
                hint=_AGAIN,
            )

    def _drifted(self, spec: ClusterSpec, work: Work, terraform: Terraform) -> list[str]:
        work.progress.status("Looking whether AWS is as it was reviewed")
        looked = terraform.cluster_folder / "look.tfplan"
        outcome = terraform.plan(looked, work.progress.terraform, refresh_only=True)
        if outcome.interrupted:
            raise interrupted(spec.name)
        if not outcome.ok:
            raise terraform.error(
                outcome, f"AWS cannot be compared with the state of {spec.name!r}"
            )
        if not outcome.drift and not self.bundle.manifest.drift:
            return []
        now, then = drift_digests(terraform.show(looked)), self.bundle.manifest.drift
        return [
            f"{address} is not as it was"
            for address in sorted(now.keys() | then.keys())
            if now.get(address) != then.get(address)
        ]

    def _same(self, what: str, reviewed: str, now: str, hint: str = _AGAIN) -> None:
        if reviewed != now:
            raise ReviewError(
                f"the plan is {what} {reviewed}, and here it is {now}",
                where=str(self.path),
                hint=hint,
            )
