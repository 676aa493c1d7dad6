"""Finds, reads, overrides and checks a profile, and builds the `ClusterSpec` that it asks for.

`loading.load` is the whole way; the other modules are its steps. Nothing is imported here: many
commands check a name and nothing more.
"""
