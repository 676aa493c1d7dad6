"""A state that Terraform could not write: written before anything is adopted or planned."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from pathlib import Path

from bilbo import aws
from bilbo.aws import Lock
from bilbo.cluster.ownership import kept_in
from bilbo.cluster.work import Work, finish_earlier
from bilbo.terraform import Terraform
from bilbo.terraform.state_files import set_aside


def finish(name: str, work: Work) -> None:
    """Waits for the Terraform that a killed bilbo left running, and writes what it could not write.

    Raises as `finish_earlier` and `write_unwritten` do.
    """
    finish_earlier(work.terraform(name), work)
    write_unwritten(name, work)


def write_unwritten(name: str, work: Work) -> None:
    """Writes the state that an earlier Terraform left in the cluster's folder where it belongs.

    Without it, what runs would be made again. Removes the lock that the same Terraform could not
    release. A file that was cut off is set aside: what AWS has is then found by its tags. Raises
    AwsError, OSError, and TerraformError if someone else holds the lock or the state has changed
    since; the file is then kept.
    """
    terraform = work.terraform(name)
    if terraform.cut_off:
        finish_earlier(terraform, work)  # which may be writing it
        for damaged in terraform.cut_off:
            aside = set_aside(damaged)
            work.progress.say(f"A state was cut off, as on a full disk; it is set aside: {aside}")
    path = terraform.unwritten
    if path is None:
        return
    finish_earlier(terraform, work)
    _release(name, terraform, path, work)
    terraform.push_unwritten()
    work.progress.say(f"Wrote the state that an earlier Terraform could not write: {path}")


def _release(name: str, terraform: Terraform, path: Path, work: Work) -> None:
    state = kept_in(terraform)
    lock = aws.state_lock(work.target, state, name) if state else None
    if lock and is_left_behind(lock, path):
        work.progress.say("Removing the lock that an earlier Terraform could not release.")
        terraform.unlock(lock.id)


def is_left_behind(lock: Lock, path: Path) -> bool:
    """Whether the Terraform that has ended with the file at `path` took the `lock`.

    It held the lock until it had written that file, and only one can hold it: so every lock of this
    machine that is older than the file is its own. (Source of `who`, USER@HOST, and `created`:
    NewLockInfo in Terraform's internal/states/statemgr/locker.go.)
    """
    ended = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    here = lock.who.endswith(f"@{socket.gethostname()}")
    return here and "" < lock.created <= f"{ended:%Y-%m-%d %H:%M:%S}"
