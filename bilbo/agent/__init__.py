"""The agent: the program that runs on hosts. bilbo sends it over SSH and installs nothing there.

`remote` reads these modules as text and sends them; it never imports them. They import only the
standard library and each other, and need Linux and Python 3.6 or later.

Requests arrive on standard input, and events leave on standard output, one JSON object per line,
each event with its request's `id`. A request ends with its last event or, if it watches something,
when the next request arrives. When standard input ends, the client is gone and the agent exits.
The services that it started keep running.

Its files are in `~/.bilbo/CLUSTER/INSTANCE/`, which only the user can read: for each service a
readable `SERVICE.sh` and a `SERVICE.log`, and `supervisor.py`, which runs the script and writes the
log. All machines may share one home.
"""
