"""Scripts for hosts whose login shell may be any: bash, tcsh, fish, … Pure."""

from __future__ import annotations

import re

# In single quotes every shell takes these as they are. tcsh would take `!` for its history and end
# the word at a newline; fish takes `\\` for one backslash; the others are special to sh below.
_SPECIAL = re.compile(rb"""[^ -~]|[!"$'\\`]""")


def in_sh(script: str) -> str:
    """Words that every login shell parses alike: they run `script` with sh.

    Four plain words; of the script's characters, the special ones are written in octal.
    """
    text = _SPECIAL.sub(lambda found: b"\\0%03o" % found[0][0], script.encode()).decode()
    return f"""exec sh -c 'eval "$(printf %b "{text}")"'"""
