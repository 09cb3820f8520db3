"""Combine several answers without a model: the longest, the first, or merged JSON objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

MAX_DEPTH = 32
"""The nesting depth down to which objects are merged. Deeper objects are taken as a whole."""

FENCE = "```"

_EXACT = 2.0**53
"""Whole numbers below this are the same as a float and as an int."""


def as_json(text: str) -> Any:
    """The JSON value in ``text``, without fences around it; ``None`` if there is none."""
    text = text.strip()
    if text.startswith(FENCE) and text.endswith(FENCE):
        _, _, text = text.removesuffix(FENCE).partition("\n")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def canonical(value: Any) -> str:
    """Return the same text for equal JSON values, whatever the order of their keys and the format of their numbers."""
    with suppress(RecursionError):
        value = _plain(value)
    return msgspec.json.encode(value, order="deterministic").decode()


def _plain(value: Any) -> Any:
    """Return the value with whole numbers as integers: 2.0 becomes 2."""
    match value:
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def merge_json(texts: Sequence[str]) -> str | None:
    """Return the objects among ``texts`` merged, as JSON text; ``None`` if none of them is an object.

    The result has the keys of all of them. Lists are joined without duplicates. Of other values the most frequent is
    used; at a tie, the earliest.
    """
    objects = [value for value in map(as_json, texts) if isinstance(value, dict)]
    return msgspec.json.encode(_merged(objects, 0)).decode() if objects else None


def _merged(values: Sequence[Any], depth: int) -> Any:
    if depth < MAX_DEPTH and all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _merged([value[key] for value in values if key in value], depth + 1) for key in keys}
    if all(isinstance(value, list) for value in values):
        items = {canonical(item): item for value in values for item in value}
        return list(items.values())
    first = {canonical(value): value for value in reversed(values)}
    [(most, _)] = Counter(map(canonical, values)).most_common(1)
    return first[most]
