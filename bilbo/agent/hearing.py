"""How a cluster's watchers hear of each other: a line of JSON to the leader's, a line back.

Members of the generated security group reach each other; nobody else reaches this port. What comes
is not believed: it can keep a cluster awake, as any program on a member can, and nothing else.
"""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterable

LONGEST = 16384  # bytes of a line
SECONDS = 5.0  # for a line and its answer

Told = Dict[str, Any]


class Ear(threading.Thread):
    """Answers what it is told at an address, one after the other. `answer` may raise anything."""

    def __init__(self, host: str, port: int, answer: Callable[[Told], Told]) -> None:
        super().__init__(daemon=True)
        self._place = (host, port)
        self._answer = answer
        self.trouble = ""
        self.start()

    def run(self) -> None:
        """Listen for ever; tries again where the address is not there yet, or taken."""
        while True:
            try:
                self._listen()
            except OSError as error:
                self.trouble = f"{self._place[0]}:{self._place[1]}: {error.strerror or error}"
            time.sleep(1.0)

    def _listen(self) -> None:
        with socket.socket(family(self._place[0]), socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._place)
            listener.listen(128)
            self.trouble = ""
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(Exception), connection:
                    told = json.loads(line(connection).decode())
                    connection.sendall(json.dumps(self._answer(told)).encode() + b"\n")


def family(host: str) -> int:
    """The kind of an address."""
    return int(socket.AF_INET6 if ":" in host else socket.AF_INET)


def line(connection: socket.socket, seconds: float = SECONDS) -> bytes:
    """One line, read to its end within that time. Raises OSError."""
    end, data = time.monotonic() + seconds, b""
    while not data.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or len(data) > LONGEST:
            raise OSError("no line came")
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            raise OSError("it was cut off")
        data += more
    return data


def tell(host: str, port: int, what: Told) -> Told:
    """Tell another watcher something; its answer. Raises OSError."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as connection:
            connection.sendall(json.dumps(what).encode() + b"\n")
            found = json.loads(line(connection).decode())
    except ValueError:
        raise OSError("it answers something else") from None
    if not isinstance(found, dict):
        raise OSError("it answers something else")
    return found


def is_up(host: str, ports: Iterable[int]) -> bool:
    """Whether anything answers there: then the machine is up, whatever is with its watcher."""
    for port in ports:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=SECONDS).close()
            return True
    return False
