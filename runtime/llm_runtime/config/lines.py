"""Finds the line of an entry in a TOML text.

`tomllib` reports no positions. So the text is parsed several times, each time up to a later line: an entry begins in
the first line with which the parsed text contains the entry. This works for all ways to write keys and tables. It is
slow, but only done for errors.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_TRIES = 200
"""Limits the search for one line: at most a quarter of this number of candidate lines are examined, each together with
at most this number of lines after it. If that is not enough, the error has no line.
"""


def line_of(source: str, path: Sequence[str]) -> int | None:
    """Return the line, from 1, in which the entry at ``path`` begins; ``None`` if it was not found."""
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
    """Return the name to search for in a line: the last one of the path; for a member of a list, the name of the
    list.
    """
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
