"""The hosts over SSH: one connection per host, all hosts at once, each with deadlines.

Every function returns a result for every host. A host that fails never ends the work on the others.
"""

from bilbo.remote.bringup import bring_up
from bilbo.remote.commands import (
    CommandResult,
    LogLines,
    extend,
    fetch_logs,
    run_command,
    software,
    stop_services,
)
from bilbo.remote.connection import PrivateKeys, connect, is_there
from bilbo.remote.hostkeys import KnownHosts
from bilbo.remote.keyfile import read_key
from bilbo.remote.looking import service_status
from bilbo.remote.program import run_program
from bilbo.remote.shells import in_sh
from bilbo.remote.terminal import has_terminal, run_on_terminal
from bilbo.remote.terms import Deadlines, HostEvent, HostFailure, Remote
from bilbo.remote.transfer import Copying, get_files, put_files

__all__ = [
    "CommandResult",
    "Copying",
    "Deadlines",
    "HostEvent",
    "HostFailure",
    "KnownHosts",
    "LogLines",
    "PrivateKeys",
    "Remote",
    "bring_up",
    "connect",
    "extend",
    "fetch_logs",
    "get_files",
    "has_terminal",
    "in_sh",
    "is_there",
    "put_files",
    "read_key",
    "run_command",
    "run_on_terminal",
    "run_program",
    "service_status",
    "software",
    "stop_services",
]
