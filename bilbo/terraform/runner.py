"""Terraform's commands, one method each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from python_terraform import IsFlagged
from python_terraform import Terraform as ArgvBuilder

from bilbo import process
from bilbo.errors import TerraformError
from bilbo.files import private_write
from bilbo.shape import Check, anything, having, mapped, string
from bilbo.terraform import installing, running, state_files
from bilbo.terraform.environment import binary, environment
from bilbo.terraform.planfile import LOCK_FILE, plan_misfit
from bilbo.terraform.stream import Diagnostic, OnEvent, Outcome, to_error
from bilbo.tfstate import misfit

_OUTPUTS = mapped(having({"value": anything}))
_TOLD = "rendered.json"
_MAKE_ROOM = (
    "Free some space, then run the same command again: what AWS has of the cluster is found by its "
    "tags."
)
_VERSIONS = having({}, provider_selections=mapped(string))


def _ignore(_event: Mapping[str, Any]) -> None:
    pass


class _Argv(ArgvBuilder):
    def read_state_file(self, file_path: str | None = None) -> None:
        """Reads nothing: with a remote backend it would mistake its settings for the state."""


def _place(config: Any) -> dict[str, str]:
    """Bucket, key and region of an S3 backend; `{}` where one is missing."""
    keys = ("bucket", "key", "region")
    if not isinstance(config, dict) or not all(isinstance(config.get(key), str) for key in keys):
        return {}
    return {key: config[key] for key in keys}


class Terraform:
    """Terraform in the folder of one cluster: `CLUSTER_FOLDER/terraform`.

    Logs and the pid file are beside it in `CLUSTER_FOLDER`. `extra` is the environment for the
    target's AWS, `backend_extra` the settings of a shared state's backend that are not rendered.
    """

    def __init__(
        self,
        cluster_folder: Path,
        extra: Mapping[str, str],
        home: Path,
        backend_extra: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster_folder = cluster_folder
        self._backend_extra = dict(backend_extra or {})
        self.folder = cluster_folder / "terraform"
        self._extra = extra
        self._home = home

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of every process started here."""
        return environment(os.environ, self._extra, self._home)

    @cached_property
    def _builder(self) -> _Argv:
        make: Any = _Argv  # python-terraform has no annotations
        builder: _Argv = make(terraform_bin_path=binary(self.environment))
        return builder

    def argv(self, command: str, *arguments: str, **options: Any) -> list[str]:
        """The exact argv of a command, binary first."""
        generate: Any = self._builder.generate_cmd_string
        built: list[str] = generate(command, *arguments, **options)
        return built

    # -- without the provider ------------------------------------------------------------

    def write(self, files: Mapping[str, str], told: Mapping[str, Any] | None = None) -> None:
        """Makes these the only HCL files in the folder, apart from those of `init`.

        `told` is what the next bilbo must know about them without reading HCL.
        """
        text = json.dumps(dict(told or {}), sort_keys=True)
        private_write(self.cluster_folder / _TOLD, text)
        for path in [*self.folder.rglob("*.tf"), *self.folder.glob("*.tf.json")]:
            relative = path.relative_to(self.folder)
            if relative.parts[0] != ".terraform" and relative.as_posix() not in files:
                path.unlink()
        for name, text in files.items():
            path = self.folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                private_write(path, text)

    def write_extra(self, name: str, text: str) -> None:
        """Adds a file that is not rendered to the folder."""
        private_write(self.folder / name, text)

    def borrow(self, other: Terraform) -> None:
        """Copies the `other` folder's local state and links its installed providers.

        Linked, not copied, because the AWS provider is hundreds of MB.
        """
        state = other.folder / "terraform.tfstate"
        if state.is_file():
            private_write(self.folder / state.name, state.read_bytes())
        self.inherit(other)

    def inherit(self, other: Terraform) -> None:
        """Links the providers installed in the `other` folder, if this one has none."""
        installing.link(other.folder, self.folder)

    def resume(self, on_event: OnEvent = _ignore) -> Outcome | None:
        """Waits for the Terraform that an earlier bilbo left running; None if there is none."""
        return running.resume(self.cluster_folder, on_event)

    def init(self) -> bool:
        """Runs `terraform init` if any of its inputs has changed since the last run.

        Copies the state to a new backend. Returns whether it ran. Raises TerraformError.
        """
        stamp = self.folder / installing.STAMP
        wanted = self._inputs()
        if (
            stamp.is_file()
            and stamp.read_text(encoding="utf-8") == wanted
            and installing.installed(self.folder)
        ):
            return False
        options: dict[str, Any] = {"input": False, "no_color": IsFlagged}
        if self.backend() and self._backend_extra:
            options["backend_config"] = self._backend_extra
        if self.moves():
            options |= {"migrate_state": IsFlagged, "force_copy": IsFlagged}
        code, said = installing.install(
            self.argv("init", **options), self.folder, self.environment, self._home,
            new=not self.keeps_state(),
        )  # fmt: skip
        if code:
            raise self._failed("terraform init failed", said)
        private_write(stamp, self._inputs())
        return True

    def _inputs(self) -> str:
        binary_path = self._builder.terraform_bin_path
        return installing.inputs(self.folder, binary_path, self._backend_extra)

    def told(self) -> dict[str, Any]:
        """What `write` was told about the files; `{}` if an earlier release wrote them."""
        return self._read_json(self.cluster_folder / _TOLD)

    def backend(self) -> dict[str, str]:
        """Where the rendered files store the state: bucket, key and region; `{}` if locally."""
        found = self.told().get("backend")
        return self._initialised_backend() if found is None else _place(found)

    def _initialised_backend(self) -> dict[str, str]:
        """The backend that `init` was last run with."""
        recorded = self._read_json(self.folder / ".terraform" / "terraform.tfstate")
        found = recorded.get("backend")
        return _place(found.get("config")) if isinstance(found, dict) else {}

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any]:
        """The object in a file; `{}` if it is missing or damaged, since `init` writes it again."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def moves(self) -> bool:
        """Whether `init` would move the state, from this folder or from another bucket."""
        local = self.folder / "terraform.tfstate"
        before = self._initialised_backend()
        kept = bool(before) or (local.is_file() and local.stat().st_size > 0)
        return kept and before != self.backend()

    def keeps_state(self) -> bool:
        """Whether this folder ever had a state, local or remote."""
        local = self.folder / "terraform.tfstate"
        return (self.folder / ".terraform" / "terraform.tfstate").is_file() or (
            local.is_file() and local.stat().st_size > 0
        )

    def versions(self) -> dict[str, str]:
        """The versions of `terraform` and of each provider's address, and the `platform`."""
        found = self._fits(_VERSIONS, self._json("version", json=IsFlagged))
        return {
            "terraform": str(found.get("terraform_version")),
            "platform": str(found.get("platform")),
            **found.get("provider_selections", {}),
        }

    def lock_platforms(self, platforms: Sequence[str]) -> bool:
        """Adds other platforms' hashes to the lock file; False if no registry is reachable.

        If `init` used a registry, they are all there already (`zh:`).
        """
        lock = self.folder / LOCK_FILE
        if not lock.is_file() or '"zh:' in lock.read_text(encoding="utf-8"):
            return lock.is_file()
        try:
            self._captured("providers lock", no_color=IsFlagged, platform=list(platforms))
        except TerraformError:
            return False
        return True

    def unlock(self, lock_id: str) -> None:
        """Removes the lock of a process that is gone. Raises TerraformError."""
        self._captured("force-unlock", lock_id, force=IsFlagged, no_color=IsFlagged)

    def outputs(self) -> dict[str, Any]:
        """`{name: value}` from the state. Raises TerraformError."""
        found = self._json("output", json=IsFlagged, no_color=IsFlagged)
        return {name: output["value"] for name, output in self._fits(_OUTPUTS, found).items()}

    def state(self) -> dict[str, Any]:
        """The state as Terraform stores it; `{}` if there is none. Raises TerraformError."""
        if not (self.folder / ".terraform").is_dir():
            return {}
        return self._fits(misfit, self._json("state pull"))

    def amend_state(self, resource_type: str, attributes: Mapping[str, Any]) -> None:
        """Sets attributes of every resource of a type, only in the state.

        This is for arguments that AWS does not store, so that `import` cannot read them. Raises
        TerraformError.
        """
        state = self.state()
        for resource in state.get("resources", []):
            if resource["type"] == resource_type and resource["mode"] == "managed":
                for instance in resource["instances"]:
                    instance["attributes"] |= attributes
        state["serial"] += 1
        amended = self.cluster_folder / "amended.tfstate"
        private_write(amended, json.dumps(state))
        self._captured("state push", str(amended))
        amended.unlink()

    @property
    def unwritten(self) -> Path | None:
        """The state that Terraform could not write where it belongs; None if there is none."""
        path = self.folder / state_files.ERRORED
        return path if state_files.is_whole(path) else None

    @property
    def cut_off(self) -> list[Path]:
        """The files with a state that were not written to their end."""
        return state_files.cut_off(self.folder)

    def push_unwritten(self) -> None:
        """Writes that state where it belongs. Raises TerraformError, with the file kept: if the
        state is locked, or has changed since."""
        if path := self.unwritten:
            self._captured("state push", path.name)
            path.unlink()

    def unwritten_text(self) -> str:
        """Where the state is that could not be written, and what to do; empty if there is none."""
        if not (path := self.unwritten):
            return ""
        return (
            f"Terraform could not write its state. What exists is in {path}; keep that file. The "
            "next `bilbo create`, `scale` or `destroy` of the cluster writes it first."
        )

    def untaint(self, address: str) -> None:
        """Removes the taint of a resource, so that Terraform keeps it. Raises TerraformError."""
        self._captured("untaint", address, no_color=IsFlagged)

    # -- with the provider ---------------------------------------------------------------

    def plan(
        self,
        out: Path,
        on_event: OnEvent = _ignore,
        *,
        refresh: bool = True,
        refresh_only: bool = False,
    ) -> Outcome:
        """Plans into the file `out`; exit code 2 means that there are changes.

        Without `refresh` it relies on the state and reads only data sources from AWS.
        """
        options: dict[str, Any] = {
            "json": IsFlagged,
            "input": False,
            "detailed_exitcode": IsFlagged,
            "out": str(out),
        }
        if not refresh:
            options["refresh"] = False
        if refresh_only:
            options["refresh_only"] = IsFlagged
        return self._streamed("plan", on_event, **options)

    def apply(
        self,
        on_event: OnEvent = _ignore,
        *,
        plan_file: Path | None = None,
        refresh_only: bool = False,
        target: str | None = None,
    ) -> Outcome:
        """Applies a saved plan, or plans and applies in one process, `target` alone if given."""
        options: dict[str, Any] = {"json": IsFlagged, "input": False, "auto_approve": IsFlagged}
        if refresh_only:
            options["refresh_only"] = IsFlagged
        if target:
            options["target"] = target
        arguments = [str(plan_file)] if plan_file else []
        return self._streamed("apply", on_event, *arguments, **options)

    def destroy(self, on_event: OnEvent = _ignore, *, refresh: bool = True) -> Outcome:
        """Destroys everything in the state. Without `refresh`, reads nothing from AWS before."""
        options: dict[str, Any] = {"json": IsFlagged, "input": False, "auto_approve": IsFlagged}
        if not refresh:
            options["refresh"] = False
        return self._streamed("destroy", on_event, **options)

    def show(self, plan_file: Path) -> dict[str, Any]:
        """A saved plan as Terraform's JSON. Raises TerraformError."""
        shown = self._json("show", str(plan_file), json=IsFlagged, no_color=IsFlagged)
        return self._fits(plan_misfit, shown)

    def import_(self, address: str, identifier: str) -> None:
        """Imports an existing resource into the state. Raises TerraformError.

        `resume` finds it as it finds an apply: it locks the state and writes it, and goes on if
        bilbo is killed.
        """
        log = self.cluster_folder / "import.log"
        found = running.run(
            self.argv("import", address, identifier, input=False, no_color=IsFlagged),
            folder=self.folder,
            environment=self.environment,
            log=log,
            operation="import",
            on_event=_ignore,
        )
        if not found.ok:
            text = log.read_text(encoding="utf-8", errors="replace")
            raise self._failed("terraform import failed", text)

    # -- together ------------------------------------------------------------------------

    def error(self, outcome: Outcome, what: str) -> TerraformError:
        """The outcome's errors as one error for people, and where an unwritten state is.

        If the disk is full, that is the cause, which Terraform could not write down either.
        """
        error = to_error(outcome, what, self.cluster_folder)
        full = state_files.full_text(self.cluster_folder)
        if full:
            error.details = (full, *(error.details if outcome.errors else ()))
            error.hint = _MAKE_ROOM
        if installing.is_altered(str(error)):
            installing.discard(self.folder, self.environment, self._home)
        if text := self.unwritten_text():
            error.details = (*error.details, text)
        return error

    def _streamed(
        self, command: str, on_event: OnEvent, *arguments: str, **options: Any
    ) -> Outcome:
        log = self.cluster_folder / f"{command}.jsonl"
        found = running.run(
            self.argv(command, *arguments, **options),
            folder=self.folder,
            environment=self.environment,
            log=log,
            operation=command,
            on_event=on_event,
        )
        if found.ok and not found.summarised:
            raise self._no_terraform(command, log.read_text(encoding="utf-8", errors="replace"))
        return found

    def _no_terraform(self, command: str, said: str) -> TerraformError:
        """The error for output that is not Terraform's. It must never pass as `Nothing to do.`"""
        if full := state_files.full_text(self.cluster_folder):
            what = f"cannot know how `terraform {command}` ended: its output was cut off"
            return TerraformError(what, details=(full,), hint=_MAKE_ROOM)
        written = [line for line in said.splitlines() if line.strip()]
        lines = [line[:200] for line in filter(running.is_odd, written)] or written
        return TerraformError(
            f"this program did not answer `{command}` as Terraform does",
            where=self._builder.terraform_bin_path,
            details=("Its output:", *(f"  {line}" for line in lines[:10]))
            if lines
            else ("It printed nothing.",),
            hint="Is it a wrapper or a version manager that prints lines of its own? Put "
            "Terraform itself first on PATH.",
        )

    def _json(self, command: str, *arguments: str, **options: Any) -> dict[str, Any]:
        """A command's JSON output. Raises TerraformError."""
        text = self._captured(command, *arguments, **options)
        try:
            found = json.loads(text or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._no_terraform(command, text)
        return found

    def _fits(self, check: Check, found: dict[str, Any]) -> dict[str, Any]:
        """Terraform's answer `found`, checked for its structure. Raises TerraformError."""
        if why := check(found):
            raise TerraformError(
                f"Terraform's answer has an unexpected structure: {why}",
                where=str(self.folder),
                hint="Did something other than Terraform write the state, or is this a version of "
                "Terraform that bilbo does not know?",
            )
        return found

    def _captured(self, command: str, *arguments: str, **options: Any) -> str:
        done = process.capture(
            self.argv(command, *arguments, **options),
            folder=self.folder,
            environment=self.environment,
        )
        if done.returncode:
            raise self._failed(f"terraform {command} failed", done.stdout + done.stderr)
        return done.stdout

    def _failed(self, what: str, text: str) -> TerraformError:
        lines = [line.strip("╷╵│ \t") for line in text.splitlines()]
        said = Diagnostic("error", "Terraform said", "\n".join(line for line in lines if line))
        return to_error(Outcome(exit_code=1, diagnostics=(said,)), what, self.cluster_folder)
