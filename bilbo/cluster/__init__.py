"""Composes the design's stages into operations: create, plan, scale, restart, destroy and others.

It does not know the command line: it reports to a `Progress`. Import each operation from its own
module, because each needs many others and a command runs only one.
"""
