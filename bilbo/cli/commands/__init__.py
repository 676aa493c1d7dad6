"""The commands, one module for each kind. These modules do not import each other."""

from __future__ import annotations
