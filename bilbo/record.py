"""A cluster's record: `clusters/NAME/cluster.json` under bilbo's home.

It is versioned, written in one step, and readable only by its owner. bilbo writes it before it
creates anything, so that nothing that costs money is ever without a record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from bilbo.engines import ENGINES
from bilbo.errors import RecordError
from bilbo.files import private_append, private_folder, private_write
from bilbo.model import SCHEDULER, Inventory, Node, digest

VERSION = 1

CREATING = "creating"
STARTING = "starting"
READY = "ready"
PARTIAL = "partial"
FAILED = "failed"
DESTROYING = "destroying"
PAUSING = "pausing"
PAUSED = "paused"
ENDED = "ended"
# No machine runs, or none is to: paused, or ended by itself.
RESTING = (PAUSING, PAUSED, ENDED)
# As `ends` of a cluster that is not to end by itself, whatever its profile says.
NEVER = "never"

_LOCK_TRY_SECONDS = 0.2
# A cluster's record, and the part that is written once: enough to destroy the cluster without it.
_RECORD, _PLACE = "cluster.json", "place.json"
# The values of the profile's `env` by their hashes, which is all that the record has of them.
_SECRETS = "env.json"
# A line for each cluster that was ever made from here: the value of its tag bilbo:owner.
_OWNERS = "owners"
# Every start and stop of its machines, kept beyond its end.
LEDGER, LEDGERS = "ledger.jsonl", "ledgers"
_HASH = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """A cluster as bilbo remembers it. Times are ISO 8601 with zone; `to_json` gives its JSON.

    `cidrs` are the networks that the generated security group allows, `token` is JupyterLab's.
    `addresses` are the engine's; in JSON each is a key that begins with the engine's name.
    `account` is the cluster's AWS account, `owner` the value of its resources' tag bilbo:owner.
    Both are None in older records, and `account` also if AWS did not say. `problems` are the last
    run's failures by instance id, a line each. `stays_down` has the instances whose services do not
    start again at a boot, each with the cause. `members` are how many processes of each worker
    joined the engine's head when it was last started, by instance id. `paused_workers` are the
    counts that `resume` restores, by group. `rest` says of a cluster at rest `since` when, if that
    is known, and `why`. `ends` is when the cluster ends at the latest, None without such a time and
    before it was ready, NEVER if nothing is to end it. In JSON, hashes stand for the values of the
    profile's `env`.
    """

    name: str
    status: str
    region: str
    type: str | None
    created_time: str
    profile: Mapping[str, Any]
    terraform_dir: str
    ready_time: str | None = None
    profile_name: str = ""
    endpoint_url: str | None = None
    inventory: Inventory = field(default_factory=Inventory)
    notebook_url: str | None = None
    addresses: Mapping[str, str] = field(default_factory=dict)
    cidrs: tuple[str, ...] = ()
    token: str = ""
    account: str | None = None
    owner: str | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    stays_down: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, int] = field(default_factory=dict)
    paused_workers: Mapping[str, int] = field(default_factory=dict)
    rest: Mapping[str, str] = field(default_factory=dict)
    ends: str | None = None

    @property
    def dashboard_url(self) -> str | None:
        """The engine's page for a browser."""
        engine = ENGINES.get(self.type or "")
        return self.addresses.get(engine.dashboard) if engine else None

    def changed(self, **values: Any) -> Record:
        """A copy with other values."""
        return replace(self, **values)


class NewerRecordError(RecordError):
    """A newer bilbo wrote the record, so this one must not change it."""


def now() -> str:
    """The present time, ISO 8601 with the local zone, to the second."""
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")


def ends_after(seconds: int | None) -> str | None:
    """The time so many seconds from now, as `now` gives it; None for None."""
    if seconds is None:
        return None
    end = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return end.astimezone().isoformat(timespec="seconds")


def to_json(record: Record) -> dict[str, Any]:
    """The record as it is stored and as `desc -d` prints it."""
    nodes = {
        "notebook": _node_json(record.inventory.notebook),
        _head_key(record.type): _node_json(record.inventory.head),
        "workers": [_node_json(node) for node in record.inventory.workers],
    }
    document: dict[str, Any] = {"version": VERSION}
    for name in (f.name for f in fields(Record)):
        if name == "inventory":
            document |= nodes
            document["instances"] = [node.instance_id for node in record.inventory.nodes()]
        elif name == "addresses":
            document |= record.addresses
        elif name == "profile":
            document[name] = with_env(record.profile, lambda key, value: _hash(record, key, value))
        else:
            value = getattr(record, name)
            document[name] = dict(value) if isinstance(value, Mapping) else value
    if record.endpoint_url is None:
        del document["endpoint_url"]
    return document


def from_json(document: Mapping[str, Any], path: Path) -> Record:
    """The record in a document of `to_json`. Raises RecordError for any other document."""
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise NewerRecordError(
            f"the record has version {version!r}, but this bilbo knows {VERSION}",
            where=str(path),
            hint="Use the newer bilbo that wrote it: pip install --upgrade bilbo",
        )
    try:
        known = {f.name for f in fields(Record)} - {"inventory", "cidrs", "addresses"}
        engine = document.get("type")
        return Record(
            **{name: document[name] for name in known if name in document},
            cidrs=tuple(document.get("cidrs") or ()),
            addresses={
                key: value
                for key, value in document.items()
                if engine and key.startswith(f"{engine}_") and value is not None
            },
            inventory=Inventory(
                notebook=_node(document.get("notebook")),
                head=_node(document.get(_head_key(engine))),
                workers=tuple(Node(**node) for node in document.get("workers") or ()),
            ),
        )
    except TypeError as error:
        raise _damaged(path, str(error)) from error


def with_env(profile: Any, value: Callable[[str, str], str]) -> Any:
    """A copy of a profile in which `value`, called with name and value, gives the values of every
    `env`."""
    if isinstance(profile, list):
        return [with_env(item, value) for item in profile]
    if not isinstance(profile, Mapping):
        return profile
    found = {key: with_env(item, value) for key, item in profile.items() if key != "config"}
    if "config" in profile:  # the engine's, whose keys are its own
        found["config"] = profile["config"]
    instance = found.get("instance")
    if isinstance(instance, dict) and isinstance(instance.get("env"), dict):
        instance["env"] = {name: value(name, text) for name, text in instance["env"].items()}
    return {key: found[key] for key in profile}


def is_hidden(value: str) -> bool:
    """Whether a value of `env` is only its hash: this machine has lost it."""
    return _HASH.fullmatch(value) is not None


def _hash(record: Record, name: str, value: str) -> str:
    return value if is_hidden(value) else f"sha256:{digest(record.name, name, value)}"


def _head_key(engine: str | None) -> str:
    known = ENGINES.get(engine or "")
    return known.head_role if known else SCHEDULER


def _node_json(node: Node | None) -> dict[str, Any] | None:
    return asdict(node) if node else None


def _node(document: Mapping[str, Any] | None) -> Node | None:
    return Node(**document) if document else None


def _damaged(path: Path, why: str) -> RecordError:
    name = path.parent.name
    return RecordError(
        f"the record of cluster {name!r} is damaged ({why})",
        where=str(path),
        hint=f"Its Terraform state is stored separately: `bilbo create` of its profile with "
        f"-n {name} repairs the record, `bilbo destroy {name}` removes the cluster.",
    )


class Store:
    """The records under one home (`~/.bilbo`, or BILBO_HOME)."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def prepare(self) -> None:
        """Creates the home and its folders. Raises RecordError if it cannot."""
        try:
            if not self.home.exists():
                self.home.mkdir(parents=True, mode=0o700)
            for name in ("clusters", "logs", "profiles"):
                (self.home / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RecordError(
                f"cannot use bilbo's home: {error.strerror}",
                where=str(self.home),
                hint="Make it writable, or set BILBO_HOME to another folder.",
            ) from error

    def open_to_others(self) -> int:
        """The home's mode if others can read or write it, else 0."""
        mode = self.home.stat().st_mode & 0o7777
        return mode if os.name == "posix" and mode & 0o077 else 0

    def folder(self, name: str) -> Path:
        """The folder of one cluster."""
        return self.home / "clusters" / name

    def path(self, name: str) -> Path:
        """The record's file."""
        return self.folder(name) / _RECORD

    def names(self) -> list[str]:
        """The clusters with a record, or with one that is lost, sorted."""
        found = (self.home / "clusters").glob("*/*.json")
        return sorted({each.parent.name for each in found if each.name in (_RECORD, _PLACE)})

    def load(self, name: str) -> Record:
        """The record of a cluster. Raises RecordError if it is missing or damaged."""
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if self._from_place(name):
                raise _damaged(path, "it is missing") from error
            raise self._unknown(name) from error
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(path, str(error)) from error
        try:
            document = json.loads(text)
        except ValueError as error:
            raise _damaged(path, "it is not valid JSON") from error
        if not isinstance(document, dict):
            raise _damaged(path, "it is not a JSON object")
        record = from_json(document, path)
        secrets = self._secrets(name)
        known = with_env(record.profile, lambda _, value: secrets.get(value, value))
        return replace(record, profile=known)

    def _secrets(self, name: str) -> dict[str, str]:
        try:
            found = json.loads((self.folder(name) / _SECRETS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        texts = found.items() if isinstance(found, dict) else ()
        return {key: value for key, value in texts if isinstance(value, str)}

    def find(self, name: str) -> Record | None:
        """The record of a cluster; None if there is none. Raises RecordError if it is damaged."""
        return self.load(name) if self.path(name).exists() else None

    def known(self, name: str) -> Record | None:
        """As `find`, but a lost or damaged record becomes a minimal one with region and account.

        Then `create` and `destroy` still work while Terraform's state exists. Raises RecordError
        for a record from a newer bilbo, and for a damaged one that cannot be restored.
        """
        try:
            record = self.find(name)
        except NewerRecordError:
            raise
        except RecordError:
            if (mended := self._from_place(name)) is None:
                raise
            return mended
        return record or self._from_place(name)

    def _from_place(self, name: str) -> Record | None:
        try:
            place = json.loads((self.folder(name) / _PLACE).read_text(encoding="utf-8"))
            return Record(
                name=name,
                status=FAILED,
                region=place["region"],
                type=None,
                created_time=place["created_time"],
                profile={},
                terraform_dir=str(self.folder(name) / "terraform"),
                endpoint_url=place["endpoint_url"],
                account=place.get("account"),
                owner=place.get("owner"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, record: Record) -> Record:
        """Writes the record in one step, mode 0600, and returns it. Raises BilboError."""
        path = self.path(record.name)
        place = path.with_name(_PLACE)
        where = {
            "region": record.region,
            "endpoint_url": record.endpoint_url,
            "created_time": record.created_time,
            "account": record.account,
            "owner": record.owner,
        }
        text = json.dumps(to_json(record), indent=4, ensure_ascii=False, sort_keys=True) + "\n"
        if not place.exists():
            self._keep_owner(record.owner)
            private_write(place, json.dumps(where))
        self._keep_secrets(record)
        private_write(path, text)
        return record

    def owners(self) -> frozenset[str]:
        """The owners of all clusters that were ever made from this home."""
        try:
            text = (self.home / _OWNERS).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return frozenset()
        return frozenset(text.split())

    def _keep_owner(self, owner: str | None) -> None:
        """Remembers an owner beyond its cluster's end, for what turns up later."""
        if owner and owner not in self.owners():
            private_append(self.home / _OWNERS, f"{owner}\n")

    def _keep_secrets(self, record: Record) -> None:
        """Writes the values of `env` beside the record, before it names them by their hashes."""
        found: dict[str, str] = {}

        def keep(name: str, value: str) -> str:
            if not is_hidden(value):
                found[_hash(record, name, value)] = value
            return value

        with_env(record.profile, keep)
        path = self.folder(record.name) / _SECRETS
        if found:
            private_write(path, json.dumps(found))
        else:
            path.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Removes everything stored about a cluster but its ledger, which moves to `ledgers`."""
        import shutil

        if (ledger := self.folder(name) / LEDGER).is_file():
            ended = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
            private_folder(self.home / LEDGERS)
            ledger.replace(self.home / LEDGERS / f"{name}-{ended}.jsonl")
        shutil.rmtree(self.folder(name), ignore_errors=True)

    @contextmanager
    def lock(self, name: str, command: str) -> Iterator[None]:
        """Locks the cluster for this process. Raises RecordError that names the holder.

        The operating system releases the lock with the process, so a lock is never stale.
        """
        from filelock import FileLock, Timeout

        folder = self.home / "clusters" / ".locks"
        holder = folder / f"{name}.json"
        try:
            private_folder(folder)
            lock = FileLock(folder / f"{name}.lock", timeout=_LOCK_TRY_SECONDS, mode=0o600)
            lock.acquire()
        except Timeout as error:
            raise self._held(name, holder) from error
        except OSError as error:
            raise RecordError(
                f"cannot lock the cluster: {error.strerror}", where=str(folder)
            ) from error
        try:
            with suppress(OSError):  # a full disk must not prevent destroy
                private_write(
                    holder, json.dumps({"pid": os.getpid(), "command": command, "since": now()})
                )
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _held(self, name: str, holder: Path) -> RecordError:
        try:
            held = json.loads(holder.read_text(encoding="utf-8"))
            who = f"`bilbo {held['command']}` (pid {held['pid']}, since {held['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another bilbo"
        return RecordError(
            f"{who} works on cluster {name!r}", hint="Wait for it to end, then try again."
        )

    def _unknown(self, name: str) -> RecordError:
        import difflib

        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`bilbo clusters` lists the clusters."
        return RecordError(f"there is no cluster {name!r}", hint=hint)
