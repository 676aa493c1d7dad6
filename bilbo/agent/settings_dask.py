"""Gives each process of a worker its GPU, and keeps the machine's own settings in force; Dask's
nanny loads it before it starts its process.

`dask worker` takes one environment for all its processes, and its options replace the machine's
configuration.
"""

import os
from importlib import import_module
from typing import Any

GPUS = "BILBO_GPUS"  # the devices, separated by commas: one for each process

_started: Any = {}


async def dask_setup(nanny: Any) -> None:
    """What Dask calls before the nanny starts its process."""
    config = import_module("dask.config")
    gpus = os.environ.get(GPUS)
    if gpus:
        nanny.env["CUDA_VISIBLE_DEVICES"] = device(str(nanny.name), gpus)
    configured = config.get("temporary-directory", None)
    if configured:
        nanny.worker_kwargs["local_directory"] = configured
    preload = config.get("distributed.nanny.preload", None)
    if preload:
        argv = config.get("distributed.nanny.preload-argv", [])
        process = import_module("distributed.preloading").process_preloads
        _started[id(nanny)] = process(nanny, preload, argv, file_dir=nanny.local_directory)
        await _started[id(nanny)].start()


async def dask_teardown(nanny: Any) -> None:
    """What Dask calls when the nanny closes."""
    if id(nanny) in _started:
        await _started.pop(id(nanny)).teardown()


def device(name: str, gpus: str) -> str:
    """The process's own device. Dask numbers the names of several processes, `NAME-0`, `NAME-1`."""
    devices = gpus.split(",")
    return devices[0] if len(devices) == 1 else devices[int(name.rpartition("-")[2])]
