"""Parse incomplete JSON, as far as it is unambiguous."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_TOKEN = re.compile(r'[ \t\n\r]*(?:([{}\[\],:])|"((?:[^"\\]|\\.)*)(")?|([^\s{}\[\],:"]+))', re.DOTALL)
_WHOLE_UNITS = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4})*', re.DOTALL
)
"""Characters and escapes that are complete. Surrogates are complete only in pairs."""

_CLOSING = {"{": "}", "[": "]"}


def completed(text: str) -> Any:
    """Return the value of the incomplete JSON in ``text``: open brackets are closed, ambiguous parts left out.

    An unfinished string counts up to its end. A number or literal counts only if something follows it. ``None`` for
    an empty ``text``, and for text that is not JSON.
    """
    start = text.find("{") if "{" in text else text.find("[")
    return None if start < 0 else _decoded(_closed(text, start))


def _closed(text: str, start: int) -> str:
    """Return ``text`` from ``start`` up to the last unambiguous position, followed by the brackets that close it."""
    open_, wants_key = list[str](), False
    at = certain_to = start
    while at < len(text) and (token := _TOKEN.match(text, at)):
        mark, content, quote, word = token.groups()
        at = token.end()
        if mark in ("{", "["):
            open_.append(mark)
            wants_key = mark == "{"
        elif mark in ("}", "]"):
            if not open_:
                break
            open_.pop()
            wants_key = False
        elif mark == ",":
            wants_key = bool(open_) and open_[-1] == "{"
            continue
        elif mark == ":":
            wants_key = False
            continue
        elif wants_key:
            continue  # a key without its value
        elif content is not None and quote is None:
            whole = _WHOLE_UNITS.match(content)
            assert whole is not None
            return f'{text[start : token.start(2) + whole.end()]}"{_closing(open_)}'
        elif word is not None and at == len(text):
            break  # 1 may become 10
        certain_to = at  # tokens that are not certain yet neither open nor close anything
        if not open_:
            break
    return "" if certain_to == start else text[start:certain_to] + _closing(open_)


def _closing(open_: list[str]) -> str:
    return "".join(_CLOSING[each] for each in reversed(open_))


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
