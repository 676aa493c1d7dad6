"""The agent's end of the channel: requests in, events out, one JSON object per line."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import json
import queue
import threading
from typing import Any, BinaryIO, Dict, Iterator, Optional

Request = Dict[str, Any]


class Client:
    """Reads the client's requests and sends it events."""

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._events = events
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._next: Optional[bytes] = None
        self._id: Any = None
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()

    def _read(self, requests: BinaryIO) -> None:
        for line in requests:
            self._lines.put(line)
        self._lines.put(b"")

    def wants_more(self, seconds: float) -> bool:
        """Sleep; return True at once when the client sends another request or is gone."""
        if self._next is None:
            with contextlib.suppress(queue.Empty):
                self._next = self._lines.get(timeout=seconds)
        return self._next is not None

    def requests(self) -> Iterator[Request]:
        """The requests in order, until the client is gone."""
        while True:
            line = self._lines.get() if self._next is None else self._next
            self._next = None
            if not line:
                return
            request = json.loads(line.decode())
            self._id = request["id"]
            yield request

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event of the current request, on a line of its own: something that the login
        files started may have printed half a line."""
        text = json.dumps(dict(fields, id=self._id, event=event))
        self._events.write(b"\n" + text.encode() + b"\n")
        self._events.flush()
