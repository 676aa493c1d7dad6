"""Takes the worker of a spot machine out of its cluster when AWS takes the machine back: a duty of
the watcher's.

AWS says so two minutes before, in the instance's metadata. Then the engine's own program that
removes workers runs here: it asks the head, so the worker's data moves and its tasks run elsewhere.
Settings are in `spot.json`: `host`, its `service`, and the `program`, `executables` and
`environment` with which it leaves. What was announced and done is in `reclaimed.json`.
"""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import calendar
import http.client
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from bilbo.agent.first import LIBRARY_FIRST
from bilbo.agent.service import HostedService, locked, read_text, remove, write_private
from bilbo.agent.software import interpreter
from bilbo.agent.watcher import Duty, say

SETTINGS = "spot.json"
RECLAIMED = "reclaimed.json"
PERIOD = 5.0  # seconds, as AWS recommends: "Spot Instance interruption notices", EC2 user guide
ASLEEP = 60.0  # seconds between two looks while there is nothing to do here
# Where AWS's SDKs look for the instance's metadata, and where they are on EC2.
ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
ON_EC2 = "http://169.254.169.254"
ANSWER = 2.0  # seconds
TTL = 21600  # seconds, the longest life of a token
# So many seconds before the end, a worker leaves even if nobody can take what it holds.
LAST = 30.0
GRACE = 5.0  # seconds for the service to end


class Metadata:
    """The instance's metadata (IMDSv2: each request carries a token)."""

    def __init__(self, endpoint: str) -> None:
        place = urlsplit(endpoint)
        self._where = (place.hostname or "", place.port or 80)
        self._base = place.path.rstrip("/") + "/latest/"
        self._token = ""

    def get(self, name: str) -> Optional[str]:
        """A value; None if there is none. Raises OSError if the metadata do not answer."""
        for _ in range(2):
            self._token = self._token or self._fresh()
            headers = {"X-aws-ec2-metadata-token": self._token}
            status, text = self._ask("GET", f"meta-data/{name}", headers)
            if status != 401:
                break
            self._token = ""  # it has expired
        if status not in (200, 404):
            raise OSError(f"the instance's metadata answer {name} with status {status}")
        return text if status == 200 else None

    def _fresh(self) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TTL)}
        status, text = self._ask("PUT", "api/token", headers)
        if status != 200:
            raise OSError(f"the instance's metadata give no token: status {status}")
        return text

    def _ask(self, method: str, path: str, headers: Dict[str, str]) -> Tuple[int, str]:
        # http.client knows no proxy: the metadata are this machine's own.
        connection = http.client.HTTPConnection(*self._where, timeout=ANSWER)
        try:
            connection.request(method, self._base + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(65536).decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"the instance's metadata do not answer: {error}") from None
        finally:
            connection.close()


class Reclaim:
    """What AWS's notice means for the cluster whose `folder` this is."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self._folder = folder
        self._metadata = metadata
        self._is_spot: Optional[bool] = None

    def look(self) -> Optional[float]:
        """Ask for the notice, and leave once it is there. Raises OSError if nobody answers."""
        settings = document(self._folder / SETTINGS)
        if not settings:
            return ASLEEP
        if self._is_spot is None:
            self._is_spot = self._metadata.get("instance-life-cycle") == "spot"
        if not self._is_spot:  # a machine does not change that
            return ASLEEP
        text = self._metadata.get("spot/instance-action")
        if text:
            self._leave(settings, ends_at(text))
        return None

    def _leave(self, settings: Dict[str, Any], end: float) -> None:
        """Have the worker leave, unless it has left."""
        service = HostedService(self._folder, settings["service"])
        if not self._noted():
            say(f"AWS takes this machine in {end - time.time():.0f} s")
            self._note(end, left=False)
        # Nothing starts it again on a machine that ends.
        remove(service.file(".wanted"))
        if not service.supervisor():
            return
        left = self._asked_to_leave(settings, end)
        if left:
            with locked(self._folder):
                service.stop(GRACE)
            say("the worker has left")
            self._note(end, left=True)

    def _asked_to_leave(self, settings: Dict[str, Any], end: float) -> bool:
        """Whether the head has let the worker go. Raises OSError with what went wrong."""
        seconds = max(5.0, end - time.time())
        asked = {
            "groups": [{"hosts": [settings["host"]], "leave": 1}],
            "must": seconds < LAST,
        }
        program = read_text(self._folder / (settings["program"] + ".py"))
        try:
            done = subprocess.run(  # noqa: UP022 - Python 3.6 has no capture_output
                [interpreter(settings["executables"]), "-c", LIBRARY_FIRST + program],
                input=json.dumps(asked).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
                cwd=str(Path.home()),
                env=dict(os.environ, **settings["environment"]),
            )
        except subprocess.TimeoutExpired:
            raise OSError("the head did not let the worker go in time") from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(f"the worker cannot leave: {lines[-1] if lines else done.returncode}")
        answer = json.loads(done.stdout.decode())
        if answer.get("kept"):
            say(f"nobody can take what the worker holds yet: {answer['kept'][0]}")
        return settings["host"] in answer.get("left", ())

    def _noted(self) -> bool:
        return bool(document(self._folder / RECLAIMED))

    def _note(self, end: float, *, left: bool) -> None:
        note = {"at": time.time(), "end": end, "left": left}
        write_private(self._folder / RECLAIMED, json.dumps(note))


def document(path: Path) -> Dict[str, Any]:
    """A file's JSON object; empty if there is none."""
    try:
        found = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def ends_at(notice: str) -> float:
    """When a notice says that the machine ends, in seconds since 1970; in two minutes if it does
    not say it."""
    try:
        text = json.loads(notice)["time"]
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except (ValueError, KeyError, TypeError):
        return time.time() + 120


def duties(folder: Path) -> List[Duty]:
    """The duty of a machine that AWS may take back."""
    metadata = Metadata(os.environ.get(ENDPOINT) or ON_EC2)
    return [Duty(PERIOD, Reclaim(folder, metadata).look)]
