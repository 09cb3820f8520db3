"""A vendor's error texts, without keys: some vendors say the wrong key back."""

from __future__ import annotations

import re

from llm_protocol.failures import MESSAGE_LIMIT

_KEYS = re.compile(
    r"""(?ix)
      (?<=bearer\s) [^\s"',;]+
    | \b (?: sk | csk | pk | rk | gsk | xai | hf ) [-_] [a-z0-9_\-*.]{8,}
    | \b AIza [a-z0-9_\-*]{10,}
    | \b (?=[a-z]*\d)(?=\d*[a-z]) [a-z0-9]{32,} \b
    | [a-z0-9_\-]{0,64} \*{4,} [a-z0-9_\-*]*
    """
)


def redact(text: str) -> str:
    """``text`` with everything that looks like a key, or the remains of one, replaced."""
    return _KEYS.sub("[redacted]", text)


def error_message(text: str | None, fallback: str) -> str:
    """A vendor's error text as we keep it: one line, redacted, bounded; ``fallback`` if there is none."""
    line = " ".join((text or "")[: 2 * MESSAGE_LIMIT].split())
    return redact(line)[:MESSAGE_LIMIT] or fallback
