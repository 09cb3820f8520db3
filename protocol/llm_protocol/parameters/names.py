"""Rewrite names and ids in the characters that a vendor accepts, so that each stays distinct and reversible."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from hashlib import sha256

from llm_protocol.parameters.targets import NameLimit

_MARK = 8
"""The length, in characters, of the hash that distinguishes names which become equal."""


@cache
def _patterns(limit: NameLimit) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The patterns for a whole name and for one character."""
    return limit.pattern, re.compile(f"[{limit.letters}]")


def is_accepted(name: str, limit: NameLimit) -> bool:
    """Whether a vendor with this ``limit`` for names accepts ``name`` unchanged."""
    return _patterns(limit)[0].fullmatch(name) is not None


def accepted(names: Iterable[str], limit: NameLimit) -> dict[str, str]:
    """The replacement for each of ``names`` that may not be sent unchanged. All replacements are distinct, and differ
    from the names that stay.
    """
    given = dict.fromkeys(names)
    found: dict[str, str] = {}
    taken = {name for name in given if is_accepted(name, limit)}
    for name in given:
        if name in taken:
            continue
        plain = _hash(name, limit.length, taken) if limit.is_exact else _plain(name, limit)
        if not limit.is_exact and (len(name) > limit.length or plain in taken):
            plain = f"{plain[: limit.length - _MARK - 1]}_{sha256(name.encode('utf-8', 'replace')).hexdigest()[:_MARK]}"
        found[name] = plain
        taken.add(plain)
    return found


def _hash(name: str, length: int, taken: Collection[str]) -> str:
    """Return ``length`` letters and digits that depend on ``name`` and are not in ``taken``."""
    salted = name
    while (found := sha256(salted.encode("utf-8", "replace")).hexdigest()[:length]) in taken:
        salted += " "
    return found


def _plain(name: str, limit: NameLimit) -> str:
    whole, letter = _patterns(limit)
    plain = "".join(char if letter.fullmatch(char) else "_" for char in name)[: limit.length] or "_"
    return plain if whole.fullmatch(plain) else f"_{plain}"[: limit.length]


def shortened(text: str, length: int | None) -> str:
    """``text``; if it is longer than ``length``, its SHA-256 in hexadecimal, truncated to ``length``."""
    if length is None or len(text) <= length:
        return text
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:length]
