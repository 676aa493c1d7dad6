"""Says why nothing succeeds any more when the credentials end while Terraform works."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bilbo import aws
from bilbo.cluster.work import Work

# Terraform reports every 10 s what it still waits for; AWS is asked at most this often.
_ASK_SECONDS = 5


class CredentialsWatch:
    """Forwards Terraform's progress, and asks AWS meanwhile whether it accepts the credentials.

    The AWS provider takes a refusal for a passing one while it waits for a resource, and repeats
    its question for minutes without a word.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._asked = time.monotonic()
        self._said = ""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Forwards one event of Terraform's stream."""
        self._work.progress.terraform(event)
        waits = event["type"] == "apply_progress"
        if waits and not self._said and time.monotonic() - self._asked > _ASK_SECONDS:
            self._said = aws.refusal(self._work.target)
            self._asked = time.monotonic()
            if self._said:
                self._work.progress.say(
                    f"AWS does not accept the credentials any more: {self._said}\n"
                    "Terraform tries on for some minutes; Ctrl-C ends that."
                )
