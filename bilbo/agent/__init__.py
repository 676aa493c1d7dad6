"""What runs on the hosts. It is sent over SSH; nothing of bilbo is installed there.

`remote` reads these modules as text and sends them; it never imports them. They import the
standard library and each other, nothing else of bilbo, and keep to Linux and to what
Python 3.6 knows.

Requests come in on standard input, one JSON object a line; events go out on standard output, one
JSON object a line, each with its request's `id`. A request is over with its last event or, if it
watches something, when the next request comes. When standard input ends the client has gone and
the agent ends. The services that it started stay.

What it keeps lies in `~/.bilbo/CLUSTER/`, which only the user can read: for each service a
readable `SERVICE.sh` and a `SERVICE.log`, and `supervisor.py`, which runs the one and writes the
other.
"""
