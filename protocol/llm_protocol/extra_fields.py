"""Fields of a response that only its own wire knows, such as log probabilities, annotations, audio, and fields that
vendors add later.

They are kept beside the canonical response, by dialect and then by place (``message``, ``choice``, ``body``), and are
sent to clients of the same wire only. Streams deliver them in pieces, which `merge` joins.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from llm_protocol.content import JsonObject

JOINED = frozenset(("data", "text", "summary", "transcript"))
"""The names of strings that arrive in pieces. All other strings (ids, types, names of formats) are complete
each time.
"""


LATEST = frozenset(("groundingMetadata", "citationMetadata", "urlContextMetadata", "safetyRatings"))
"""Fields that Gemini repeats in several chunks. Each time they contain all that Gemini knows at that time."""


def merge(into: JsonObject, piece: JsonObject) -> None:
    """Add ``piece`` to ``into``. Lists grow, and so do strings in `JOINED`. Everything else is replaced, including
    the fields in `LATEST`. ``None`` is ignored.

    Members of lists that have an ``index`` are pieces of the member with that index. ``into`` is changed and shares
    nothing with ``piece``.
    """
    for name, value in piece.items():
        known = into.get(name)
        if value is None:
            into.setdefault(name, None)
        elif name in LATEST:
            into[name] = deepcopy(value)
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[name] = {}
            merge(known, value)
        elif isinstance(value, list):
            if not isinstance(known, list):
                known = into[name] = []
            _extend(known, value)
        elif isinstance(value, str) and isinstance(known, str) and name in JOINED:
            into[name] = known + value
        else:
            into[name] = value


def _extend(known: list[Any], more: list[Any]) -> None:
    for item in more:
        if not isinstance(item, dict):
            known.append(item)
            continue
        index = item.get("index")
        same = next((one for one in known if _is_piece(one, index, item)), None)
        if same is None:
            same = {}
            known.append(same)
        merge(same, item)


def _is_piece(one: Any, index: object, item: JsonObject) -> bool:
    if not isinstance(one, dict) or not isinstance(index, int) or one.get("index") != index:
        return False
    # OpenRouter counts summaries, texts and encrypted payloads of reasoning together, and from 0 each time.
    return "type" not in item or "type" not in one or item["type"] == one["type"]


def grows(value: Any) -> bool:
    """Whether merging the same value once more would change the result."""
    if isinstance(value, dict):
        return any(grows(inner) or name in JOINED for name, inner in value.items())
    return isinstance(value, list) and bool(value)


def is_empty(value: Any) -> bool:
    """Whether a field is empty: many servers send fields that they do not use, with an empty value."""
    return value is None or value == "" or (isinstance(value, list | dict) and not value)
