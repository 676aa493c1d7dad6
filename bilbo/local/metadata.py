"""The instances' metadata, as far as the stand-in's machines ask for them: one path a machine.

On AWS they are at a link-local address, here at an address that the machine's environment names in
the variable that AWS's SDKs read. As with IMDSv2, nothing is told without a token:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from bilbo.local.hooks import World, all_instances
from bilbo.local.spot_market import LIFECYCLE, notice

PREFIX = "/_metadata/"
_LONGEST = 21600  # seconds a token may be valid; here it is for good
_TTL = "HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS"
_TOKEN = "HTTP_X_AWS_EC2_METADATA_TOKEN"


class MetadataService:
    """A WSGI application for what is below `PREFIX`: `PREFIX/INSTANCE/latest/…`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[str, str] = {}

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        name, _, path = environ["PATH_INFO"].removeprefix(PREFIX).partition("/")
        status, text = self._answer(environ, name, path)
        start_response(status, [("Content-Type", "text/plain")])
        return [text.encode()]

    def _answer(self, environ: dict[str, Any], name: str, path: str) -> tuple[str, str]:
        if environ["REQUEST_METHOD"] == "PUT" and path == "latest/api/token":
            seconds = environ.get(_TTL, "")
            if not seconds.isdigit() or not 1 <= int(seconds) <= _LONGEST:
                return "400 Bad Request", ""
            token = secrets.token_urlsafe(16)
            self._tokens[token] = name
            return "200 OK", token
        if environ["REQUEST_METHOD"] != "GET":
            return "405 Method Not Allowed", ""
        if self._tokens.get(environ.get(_TOKEN, "")) != name:
            return "401 Unauthorized", ""
        found = self._found(name, path.removeprefix("latest/meta-data/"))
        return ("200 OK", found) if found else ("404 Not Found", "")

    def _found(self, name: str, path: str) -> str:
        with self._world.lock:
            instance = next((each for each in all_instances() if each.id == name), None)
            if instance is None or instance.state == "terminated":
                return ""
            if path == "instance-id":
                return name
            if path == "instance-life-cycle":
                return LIFECYCLE if instance.lifecycle == LIFECYCLE else "on-demand"
            told = notice(instance) if path == "spot/instance-action" else None
            return json.dumps(told) if told else ""
