"""What a person's home has for all profiles: `~/.bilbo/config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilbo.errors import ProfileError
from bilbo.profile.checking import check_profile, mistakes
from bilbo.profile.parsing import source
from bilbo.profile.places import Places, nearest, shown

FILE = "config.json"
# Those keys of a profile that a home may have, too.
KEYS = ("lifetime",)


def with_home_settings(document: Any, home: Path) -> Any:
    """The unchecked profile `document` with what the home has for profiles without the key.

    Reads `home`'s FILE, if there is one. Raises ProfileError for mistakes in it.
    """
    path = home / FILE
    if not isinstance(document, dict) or not path.is_file():
        return document
    found = source(path)
    places = Places(shown(str(path), 500), found.lines, what="bilbo's settings")
    if not isinstance(found.document, dict):
        raise ProfileError("bilbo's settings must be an object, { … }", where=f"{places.where}:1")
    unknown = found.document.keys() - {*KEYS, "$schema"}
    if unknown:
        raise mistakes({(key,): _unknown(key) for key in unknown}, places)
    check_profile(found.document, places)
    return {**{key: found.document[key] for key in KEYS if key in found.document}, **document}


def _unknown(key: str) -> str:
    near = nearest(key, KEYS)
    meant = f"did you mean {near}?" if near else f"a home has {', '.join(KEYS)}"
    return f"unknown key; {meant}"
