"""What stands between the clients and moto: who may come in, what is counted, what is refused.

A WSGI application around moto's own. Below `/_bilbo/` it answers for the stand-in itself.
"""

from __future__ import annotations

import io
import json
import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from bilbo.errors import UsageError
from bilbo.local import policies, pricing_api, throttling
from bilbo.local.faults import Faults
from bilbo.local.hooks import World
from bilbo.local.metadata import PREFIX, MetadataService
from bilbo.local.standin_state import ADMIN, ADMIN_HEADER, LONGEST_BODY

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_ADMIN_KEY = "HTTP_" + ADMIN_HEADER.upper().replace("-", "_")
SERVERS_OWN = "500 Internal Server Error"
# AWS's server errors, which clients try again; moto answers each error with status 400. Source:
# EC2's API reference, "Error codes", "Server error codes".
_SERVERS_CODES = (b"<Code>InsufficientInstanceCapacity</Code>",)
# Services that bilbo asks and whose clients read JSON.
_JSON_SERVICES = ("servicequotas", "pricing")
# Actions that AWS checks while it carries out another: (denied, carried out, pattern in the
# request).
# supported-iam-actions-tagging.html and ec2-auto-scaling-api-permissions.html list them.
IMPLIED = (
    ("iam:PassRole", "ec2:RunInstances", r"IamInstanceProfile\.\w+=[^&]"),
    ("ec2:CreateTags", "ec2:RunInstances", "TagSpecification"),
    ("ec2:CreateTags", "ec2:CreateLaunchTemplate", "TagSpecification"),
    ("ec2:CreateTags", "ec2:CreateSecurityGroup", "TagSpecification"),
    ("ec2:RunInstances", "autoscaling:CreateAutoScalingGroup", "LaunchTemplate"),
    ("ec2:CreateTags", "autoscaling:CreateAutoScalingGroup", "LaunchTemplate"),
    ("ec2:RunInstances", "autoscaling:UpdateAutoScalingGroup", "LaunchTemplate"),
    ("ec2:CreateTags", "autoscaling:UpdateAutoScalingGroup", "LaunchTemplate"),
    ("iam:CreateServiceLinkedRole", "autoscaling:CreateAutoScalingGroup", ""),
)


@dataclass(frozen=True)
class Call:
    """One request to AWS. `action` is as in a policy, such as `ec2:RunInstances`."""

    service: str
    action: str
    region: str
    access_key: str
    body: str

    @property
    def reads_only(self) -> bool:
        """Whether it cannot have changed an instance."""
        return self.action.partition(":")[2].startswith(("Describe", "Get", "List", "Head"))


class Api:
    """The application. `on_change` is called after a request that may have changed something,
    `status` answers for the stand-in.
    """

    def __init__(
        self,
        moto: Callable[[Environ, StartResponse], Iterable[bytes]],
        world: World,
        access_key: str,
        on_change: Callable[[], None],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._moto = moto
        self._world = world
        self._access_key = access_key
        self._on_change = on_change
        self._status = status
        self._metadata = MetadataService(world)
        self._calls: Counter[str] = Counter()
        self._requests: set[tuple[str, int]] = set()
        self._objects: Counter[str] = Counter()
        self._answers: dict[tuple[str, int], tuple[list[Any], bytes]] = {}
        self._throttle = throttling.Throttle()
        self._throttled: Counter[str] = Counter()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Of one without the key nothing but the head is read."""
        if environ.get("PATH_INFO", "").startswith(PREFIX):  # machines have no key
            return self._metadata(environ, start_response)
        administers = environ.get("PATH_INFO", "").startswith(ADMIN)
        asked_for = parse_call(environ, b"")
        if administers and environ.get(_ADMIN_KEY) != self._access_key:
            return _answer(start_response, "403 Forbidden", {"error": "the key is wrong"})
        if not administers and asked_for.access_key != self._access_key:
            return _refuse(asked_for, _no_such_key(asked_for), start_response)
        try:
            body = _read_body(environ)
        except TooLarge as error:
            refusal = ("413 Content Too Large", "EntityTooLarge", str(error))
            return _refuse(asked_for, refusal, start_response)
        if administers:
            return self._administer(environ, body, start_response)
        return self._carry_out(parse_call(environ, body), environ, body, start_response)

    def _carry_out(
        self, call: Call, environ: Environ, body: bytes, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Have moto answer a request to AWS, or refuse it."""
        self._calls[call.action] += 1
        asked = f"{environ.get('PATH_INFO', '')}?{environ.get('QUERY_STRING', '')}".encode()
        request = (call.action, hash(asked + body))
        if request in self._requests and not call.reads_only:
            log.info("%s was asked for again, word for word", call.action)
        self._requests.add(request)
        if call.service == "s3" and call.action.endswith("Object"):
            self._objects[f"{call.action} {environ.get('PATH_INFO', '').strip('/')}"] += 1
        with self._world.lock:
            refusal = refusal_of(call, self._world.faults) or self._too_soon(call)
        if refusal:
            return _refuse(call, refusal, start_response)
        try:
            # moto's models are not made for several threads; Terraform comes with ten.
            with self._world.lock:
                answer = self._once(request, call, environ, start_response)
                lost = call.action in self._world.faults.lost
                self._world.faults.lost.discard(call.action)
        except Exception as error:
            # Status 400: clients try again for minutes on what they think is the server's day.
            log.exception("%s failed", call.action)
            words = f"The stand-in AWS cannot do {call.action}: {error or type(error).__name__}"
            return _refuse(call, ("400 Bad Request", "UnsupportedOperation", words), start_response)
        finally:
            if not call.reads_only:
                self._on_change()
        if lost:  # werkzeug closes the connection without a word
            raise ConnectionAbortedError(f"the answer to {call.action} is lost, as a fault says")
        return answer

    def _too_soon(self, call: Call) -> tuple[str, str, str] | None:
        """How a call is refused for its time alone: too many at once, or too early."""
        faults = self._world.faults
        if faults.throttle and self._throttle.refuses(
            faults.throttle, call.action, call.region, call.body
        ):
            self._throttled[call.action] += 1
            return throttling.refusal(call.service)
        if not faults.lag or call.service != "ec2":
            return None
        return self._world.lag.too_early(call.action.partition(":")[2], call.body, faults.lag)

    def _once(
        self, request: tuple[str, int], call: Call, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """moto's answer; the earlier one if a client token says that this is the same request, as
        ec2-api-idempotency.html has it. moto would launch twice."""
        if "ClientToken=" not in call.body:
            return self._asked_of_moto(call, environ, start_response)
        if request in self._answers:
            head, body = self._answers[request]
        else:
            head = []
            body = b"".join(self._asked_of_moto(call, environ, lambda *given: head.extend(given)))
            if head[0].startswith("200"):
                self._answers[request] = head, body
        start_response(*head[:2])
        return [body]

    def _asked_of_moto(
        self, call: Call, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """moto's answer, without what is not to be found yet."""
        if call.service == "pricing":  # moto has no such service
            asked = environ["wsgi.input"].read().decode("utf-8", "replace")
            return _answer(start_response, *pricing_api.answer(call.action, asked))
        head: list[Any] = []
        answer = self._moto(environ, lambda *given: head.extend(given))
        try:
            body = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        status, headers = head[:2]
        if any(code in body for code in _SERVERS_CODES):
            status = SERVERS_OWN
        seconds = self._world.faults.lag if call.service == "ec2" else 0.0
        if seconds:
            lag, name = self._world.lag, call.action.partition(":")[2]
            lag.note(name, call.body, body)
            body = lag.told(name, body, seconds)
            headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body]

    def _administer(
        self, environ: Environ, body: bytes, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer for the stand-in itself."""
        route: tuple[str, str]
        route = (environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(ADMIN))
        if route == ("GET", "ping"):
            return _answer(start_response, "200 OK", {})
        if route == ("GET", "status"):
            return _answer(start_response, "200 OK", self._status())
        if route[0] in ("GET", "DELETE") and (counted := self._counted(route[1])) is not None:
            told = dict(sorted(counted.items()))
            if route[0] == "DELETE":
                self._calls.clear()
                self._requests.clear()
                self._objects.clear()
                self._throttled.clear()
            return _answer(start_response, "200 OK", told)
        if route == ("POST", "fault"):
            try:
                with self._world.lock:
                    self._world.faults.apply(body.decode())
                    policies.enforce(self._world.faults.policy, *self._world.credentials)
            except UsageError as error:
                return _answer(start_response, "400 Bad Request", {"error": str(error)})
            self._on_change()
            return _answer(start_response, "200 OK", {})
        return _answer(start_response, "404 Not Found", {"error": "no such route"})

    def _counted(self, what: str) -> Counter[str] | None:
        """The counts that are asked for; None for what is not counted."""
        if what == "requests":
            return Counter(action for action, _ in self._requests)
        counts = {"calls": self._calls, "objects": self._objects, "throttled": self._throttled}
        return counts.get(what)


class TooLarge(Exception):
    """A request with a body that the stand-in does not take."""


def _read_body(environ: Environ) -> bytes:
    """The request's body, read before any lock is held, and put back for moto. Raises TooLarge."""
    words = f"The stand-in AWS takes at most {LONGEST_BODY >> 20} MiB in one request."
    given = environ.get("CONTENT_LENGTH") or "0"
    length = int(given) if re.fullmatch("[0-9]{1,18}", given) else LONGEST_BODY + 1
    if environ.get("wsgi.input_terminated"):  # sent in chunks, and only its end tells its length
        length = LONGEST_BODY + 1
    elif length > LONGEST_BODY:
        raise TooLarge(words)
    if not length:
        return b""
    body = b""
    while len(body) < length and (more := environ["wsgi.input"].read(length - len(body))):
        body += more
    if len(body) > LONGEST_BODY:
        raise TooLarge(words)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def parse_call(environ: Environ, body: bytes) -> Call:
    """Which action of which service a request asks for, and with whose key."""
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    signed = re.search(r"Credential=([^,\s]+)", environ.get("HTTP_AUTHORIZATION", ""))
    credential = signed[1] if signed else query.get("X-Amz-Credential", [""])[0]
    key, _, region, service, *_ = [*unquote(credential).split("/"), "", "", "", ""]
    form = "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")
    text = body.decode("utf-8", "replace") if form else ""
    named = re.search(r"(?:^|&)Action=(\w+)", text) or re.search(
        r"(?:^|&)Action=(\w+)", environ.get("QUERY_STRING", "")
    )
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if named:
        action = named[1]
    elif target:
        action = target.rpartition(".")[2]
    else:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        action = policies.s3_action(method, path, query) if service == "s3" else method
    return Call(service, f"{service}:{action}", region, key, text)


def refusal_of(call: Call, faults: Faults) -> tuple[str, str, str] | None:
    """HTTP status, code and words with which AWS would refuse `call`; None when it would not."""
    if faults.expired:
        if call.service == "ec2":
            return ("400 Bad Request", "RequestExpired", "Request has expired.")
        words = "The security token included in the request is expired"
        return ("403 Forbidden", "ExpiredToken", words)
    denied = call.action if faults.denies(call.action) else ""
    if call.service == "pricing" and not policies.allows(faults.policy, call.action):
        denied = call.action
    for implied, action, words in IMPLIED:
        if call.action == action and re.search(words, call.body) and _denies(faults, implied):
            denied = implied
    if not denied:
        return None
    words = policies.denial(denied)
    if call.service == "ec2":
        return ("403 Forbidden", "UnauthorizedOperation", policies.refusal_words(denied))
    if call.service == "autoscaling" and denied.startswith("ec2:"):
        words = "You are not authorized to use launch template"
    return ("403 Forbidden", "AccessDenied", words)


def _denies(faults: Faults, implied: str) -> bool:
    # An account has the role from its first group on.
    first_use = implied == "iam:CreateServiceLinkedRole"
    return faults.denies(implied) or not (first_use or policies.allows(faults.policy, implied))


def _no_such_key(call: Call) -> tuple[str, str, str]:
    if call.service == "ec2":
        words = "AWS was not able to validate the provided access credentials"
        return ("401 Unauthorized", "AuthFailure", words)
    if call.service == "s3":
        words = "The AWS Access Key Id you provided does not exist in our records."
        return ("403 Forbidden", "InvalidAccessKeyId", words)
    words = "The security token included in the request is invalid."
    return ("403 Forbidden", "InvalidClientTokenId", words)


def _refuse(
    call: Call, refusal: tuple[str, str, str], start_response: StartResponse
) -> Iterable[bytes]:
    """An error in the form that the service's clients read."""
    status, code, words = refusal
    if call.service in _JSON_SERVICES:
        start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": words}).encode()]
    request = str(uuid.uuid4())
    inner = f"<Code>{escape(code)}</Code><Message>{escape(words)}</Message>"
    if call.service == "ec2":
        text = (
            f"<Response><Errors><Error>{inner}</Error></Errors>"
            f"<RequestID>{request}</RequestID></Response>"
        )
    elif call.service == "s3" or not call.service:
        text = f"<Error>{inner}<RequestId>{request}</RequestId></Error>"
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>"
            f"<RequestId>{request}</RequestId></ErrorResponse>"
        )
    data = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(data)))]
    start_response(status, headers)
    return [data]


def _answer(start_response: StartResponse, status: str, content: Any) -> Iterable[bytes]:
    data = json.dumps(content).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response(status, headers)
    return [data]
