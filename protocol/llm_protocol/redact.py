"""Remove keys from a vendor's messages: some vendors repeat the rejected key."""

from __future__ import annotations

import re

from llm_protocol.failures import MESSAGE_LIMIT

_MARKED = r"""
      (?<=bearer\s) [^\s"',;]+
    | \b (?: sk | csk | pk | rk | gsk | xai | hf ) [-_] [a-z0-9_\-*.]{8,}
    | \b AIza [a-z0-9_\-*]{10,}
    | [a-z0-9_\-]{0,64} \*{4,} [a-z0-9_\-*]*
"""
"""Text that has the form of a key, or of a part of one."""

_UNMARKED = r"| \b (?=[a-z]*\d)(?=\d*[a-z]) [a-z0-9]{32,} \b"
"""Text that may be a key, or an id."""

_KEYS = re.compile(_MARKED + _UNMARKED, re.IGNORECASE | re.VERBOSE)
_KEYS_IN_NAMES = re.compile(_MARKED, re.IGNORECASE | re.VERBOSE)


def redact(text: str) -> str:
    """Return ``text`` with everything replaced that looks like a key, or like a part of one."""
    return _KEYS.sub("[redacted]", text)


def redact_name(name: str) -> str:
    """Redact a model's name or an id, which may look like a key."""
    return _KEYS_IN_NAMES.sub("[redacted]", name)


def error_message(text: str | None, fallback: str) -> str:
    """Return a vendor's error text in the form in which it is kept: one line, redacted, limited in length;
    ``fallback`` if there is none.
    """
    line = " ".join((text or "")[: 2 * MESSAGE_LIMIT].split())
    return redact(line)[:MESSAGE_LIMIT] or fallback
