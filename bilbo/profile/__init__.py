"""Finds, reads, overrides and checks a profile, and builds its `ClusterSpec`.

`loading.load` does all of it; the other modules are its steps. This module imports nothing, because
many commands only check a name.
"""
