"""In which line of a TOML text an entry stands.

`tomllib` keeps no positions. But an entry begins in the first line without which the text so far does not have it, so
the parser itself can tell, whatever spelling of keys and tables was used. Only errors pay for this.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_TRIES = 200
"""Parses spent on looking for one line; past it the error goes without."""


def line_of(source: str, path: Sequence[str]) -> int | None:
    """The line, from 1, where the entry at ``path`` begins, or None when that cannot be told cheaply."""
    lines = source.split("\n")
    candidates = [number for number, text in enumerate(lines) if _word(path) in text] if path else []
    for number in candidates[: MAX_TRIES // 4]:
        before = _parse(lines[:number])
        if before is None or _has(before, path):
            continue
        for end in range(number + 1, min(len(lines), number + MAX_TRIES) + 1):
            table = _parse(lines[:end])
            if table is not None:
                if _has(table, path):
                    return number + 1
                break
    return None


def _word(path: Sequence[str]) -> str:
    """What stands in the line: the last name, for an entry of a list the list's."""
    return next((part for part in reversed(path) if not part.startswith("[")), "")


def _parse(lines: Sequence[str]) -> object | None:
    import tomllib

    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _has(table: object, path: Sequence[str]) -> bool:
    for part in path:
        if isinstance(table, list) and part[1:-1].isdecimal():
            if int(part[1:-1]) >= len(table):
                return False
            table = table[int(part[1:-1])]
            continue
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True
