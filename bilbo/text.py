"""Foreign text made fit to be read: what hosts, AWS, Terraform, states and locks say is data."""

from __future__ import annotations

import re

# Control characters but newline and tab, what turns the direction of text or ends a line unseen,
# and halves of surrogate pairs, which no encoding takes. A terminal obeys the first: OSC 52, for
# one, sets the clipboard.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """`text` with all that a terminal would obey written out, such as `\\x1b`. A carriage return
    before a newline goes."""
    return _UNFIT.sub(_written, text.replace("\r\n", "\n"))


def json_text(document: object) -> str:
    """A document as bilbo prints all of them: sorted, other languages as they are, and what
    `plain` writes out in JSON's own way, so that a program reads what was meant."""
    import json

    text = json.dumps(document, indent=4, sort_keys=True, ensure_ascii=False)
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


# RFC 3986's userinfo, as far as a shell makes nothing of it: no command hides in what is taken out.
_USERINFO = re.compile(r"(?<=://)[A-Za-z0-9._~%+=,:-]+(?=@)")


def without_credentials(text: str) -> str:
    """`text` with `***` for who is named in a URL, before the @, and a password with it."""
    return _USERINFO.sub("***", text)


def visible(text: str) -> str:
    """As `plain`, with everything written out that cannot be seen, ends of lines among it: for
    what somebody must read to agree to."""
    return "".join(each if each.isprintable() else _code_point(each) for each in text)


def _code_point(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
