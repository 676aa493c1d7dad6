"""The engines, a module each: what head and workers run, and when they are ready."""

from collections.abc import Mapping

from bilbo.engines.dask import DASK
from bilbo.engines.engine import (
    ENVIRONMENT,
    HERE,
    READ_ENVIRONMENT,
    Engine,
    address,
    bash,
    group_of,
    options,
)
from bilbo.engines.ray import RAY

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (DASK, RAY)}

__all__ = [
    "ENGINES",
    "ENVIRONMENT",
    "HERE",
    "READ_ENVIRONMENT",
    "Engine",
    "address",
    "bash",
    "group_of",
    "options",
]
