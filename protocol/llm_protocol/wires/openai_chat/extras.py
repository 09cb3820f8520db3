"""What servers of this wire add to it: taken out of an answer here, told to clients of the same wire as it came.

``message`` are fields of a message or delta, ``choice`` of the choice around it, ``body`` of the whole chunk. A
vendor's reasoning in its own form is none of them: it stays with the reasoning, and goes back with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.content import JsonObject, Reasoning
from llm_protocol.extra_fields import is_empty

WIRE = "openai_chat"
"""The dialect that these fields are kept under, whichever vendor of this wire said them."""

DETAILS = "reasoning_details"
"""Where OpenRouter puts reasoning in its vendors' own forms: signed, encrypted, summarised."""

BODY_FIELDS = ("citations", "search_results")
"""Fields of the chunk itself that are content: Perplexity's sources. The others are about the server."""

_NOT_EXTRA = frozenset(("role",))


def take_extras(body: JsonObject, choice_names: frozenset[str], message_names: frozenset[str]) -> JsonObject:
    """Take what is not in the names out of the first choice of ``body`` and its message; by where it stood."""
    found: JsonObject = {}
    found["body"] = {name: value for name in BODY_FIELDS if not is_empty(value := body.pop(name, None))}
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        extra = _take(choice, choice_names)
        message = choice.get("delta") or choice.get("message")
        said = _take(message, message_names) if isinstance(message, dict) else {}
        if not choice.get("index"):
            found["choice"] = extra
            found["message"] = said
    return {where: fields for where, fields in found.items() if fields}


def _take(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    taken = {name: fields.pop(name) for name in list(fields) if name not in known}
    return {name: value for name, value in taken.items() if not is_empty(value) and name not in _NOT_EXTRA}


def text_of_details(details: Any) -> str:
    """The readable reasoning among ``details``."""
    items = [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    texts = [item.get("text") or item.get("summary") for item in items]
    return "".join(text for text in texts if isinstance(text, str))


def with_details(part: Reasoning, details: list[Any]) -> Reasoning:
    """The reasoning with its vendor's own form of it."""
    return msgspec.structs.replace(part, extra={WIRE: {DETAILS: details}}) if details else part


def details_of(part: Reasoning) -> list[Any]:
    """What `with_details` added."""
    found = part.extra.get(WIRE, {}).get(DETAILS) if part.extra else None
    return found if isinstance(found, list) else []
