"""The program that a host's watcher is, made of the agent's modules."""

from __future__ import annotations

from functools import cache

from bilbo.remote.agent_session import agent_source

# The agent's modules that have a duty for the watcher, each with its settings in a file of its name
# on the host.
DUTIES: tuple[str, ...] = ("deciding", "spot")
# In the order in which they import each other.
WATCHER_MODULES: tuple[str, ...] = (
    *("first", "service", "software", "channel", "boot", "power", "page", "watcher"),
    *("presence", "farewell", "figures", "figures_dask", "figures_ray", "hearing", *DUTIES),
)
# The engines' programs that remove workers, which a duty runs.
PROGRAMS = ("leave_dask", "leave_ray")

# As the agent's loader: the modules' sources are treated as imported.
_PROGRAM = """\
# Written by bilbo: the watcher, see `bilbo/agent/watcher.py`.
import pathlib, sys, types
SOURCES = {sources!r}
for name, source in SOURCES:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
makers = [sys.modules["bilbo.agent." + name].duties for name in {duties!r}]
sys.modules["bilbo.agent.watcher"].main(pathlib.Path(__file__).absolute().parent, makers)
"""


@cache
def watcher_program(duties: tuple[str, ...] = DUTIES) -> str:
    """The source of the watcher with these duties."""
    modules = [*(name for name in WATCHER_MODULES if name not in DUTIES), *duties]
    sources = [(f"bilbo.agent.{name}", agent_source(name)) for name in modules]
    return _PROGRAM.format(sources=sources, duties=duties)


def watcher_files() -> dict[str, str]:
    """What the watcher needs on a host, name to text; its supervisor and the boot are the
    services'."""
    return {
        "watcher.py": watcher_program(),
        "supervisor.py": agent_source("supervisor"),
        "service.py": agent_source("service"),
        **{f"{name}.py": agent_source(name) for name in PROGRAMS},
    }
