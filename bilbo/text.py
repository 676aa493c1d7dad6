"""Makes foreign text safe to display: what hosts, AWS, Terraform, states and locks say is data."""

from __future__ import annotations

import re

# Control characters except newline and tab, characters that change the text direction or end a line
# invisibly, and lone surrogates, which cannot be encoded. Terminals obey control characters: OSC
# 52, for example, sets the clipboard.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """Returns `text` with everything that a terminal would obey escaped, such as `\\x1b`, and
    without carriage returns before newlines."""
    return _UNFIT.sub(_written, text.replace("\r\n", "\n"))


def json_text(document: object) -> str:
    """Returns a document as bilbo prints all JSON: sorted, not limited to ASCII, and with JSON
    escapes for what `plain` escapes, so that programs read the original values."""
    import json

    text = json.dumps(document, indent=4, sort_keys=True, ensure_ascii=False)
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# RFC 3986's userinfo without characters special to a shell: no command can hide in what is removed.
_USERINFO = re.compile(r"(?<=://)[A-Za-z0-9._~%+=,:-]+(?=@)")


def without_credentials(text: str) -> str:
    """Returns `text` with `***` for the user name and password in URLs."""
    return _USERINFO.sub("***", text)


def visible(text: str) -> str:
    """As `plain`, but escapes everything invisible, including line ends: for text that somebody
    reads in order to approve it."""
    return "".join(each if each.isprintable() else _code_point(each) for each in text)


def _code_point(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
