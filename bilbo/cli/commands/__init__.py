"""The commands, a module for each kind. A module of commands imports no other."""

from __future__ import annotations
