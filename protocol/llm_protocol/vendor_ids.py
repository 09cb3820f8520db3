"""Ids of objects that a vendor keeps in its account: uploaded files, containers, vector stores, cached prompts.

Whoever knows such an id and shares the account can use the object. `ids_of_request` finds the ids that a request
would send to the vendor, `ids_of_response` those that a response contains.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from llm_protocol.content import Audio, Document, HostedTool, Image, JsonObject, Opaque, Part, Text, ToolResult
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.response import LLMResponse


class VendorId(NamedTuple):
    """An id, and the field that contains it."""

    field: str
    id: str


def _plain(name: str) -> str:
    """Return a field's name for comparison: Gemini accepts both ``fileUri`` and ``file_uri``."""
    return name.replace("_", "").lower()


_FIELDS: Final = frozenset(
    map(
        _plain,
        (
            "file_id",
            "file_ids",
            "file_uri",
            "container",
            "container_id",
            "vector_store_id",
            "vector_store_ids",
            "file_search_store_names",
            "cached_content",
            "previous_response_id",
            "comparison_response_id",
            "continuation_id",
            "conversation",
            "tunnel_id",
            "user_profile_id",
        ),
    )
)
"""Fields that hold one id, or a list of them."""

_OBJECTS: Final = frozenset(("container", "conversation", "audio", "voice"))
"""Fields that may contain an object with an ``id``, in place of an id."""

_FREE: Final = frozenset(
    map(
        _plain,
        (
            "arguments",
            "args",
            "data",
            "documents",
            "guided_json",
            "input",
            "input_schema",
            "json_schema",
            "labels",
            "metadata",
            "output_schema",
            "parameters",
            "response_json_schema",
            "response_schema",
            "schema",
            "variables",
        ),
    )
)
"""Fields whose content belongs to the caller or the model. Vendors look up no ids in them, so they are not searched."""

_GOOGLE: Final = ("generativelanguage.googleapis.com", "aiplatform.googleapis.com")
"""Hosts at which an address names an object in the account. Addresses at all other hosts are public."""


def ids_of_request(request: AnyRequest) -> Iterator[VendorId]:
    """The vendor's ids in ``request``."""
    for fields in request.parameters.extra.values():
        yield from _ids(fields)
    if not isinstance(request, ChatRequest):
        return
    for message in request.messages:
        yield from _of_extra(message.extra)
        for part in message.content:
            yield from _of_part(part)
    for tool in request.tools:
        yield from _ids(tool.value) if isinstance(tool, HostedTool) else _of_extra(tool.extra)


def ids_of_response(response: LLMResponse) -> Iterator[VendorId]:
    """The vendor's ids in ``response``."""
    for part in response.output:
        yield from _of_part(part)
    for places in response.extra.values():
        for fields in places.values():
            yield from _ids(fields)


def _of_part(part: Part) -> Iterator[VendorId]:
    match part:
        case Text(extra=None):
            pass
        case Opaque():
            yield from _ids(part.value)
        case Image():
            yield from _of_value("url", part.url)
            yield from _of_extra(part.extra)
        case Document() | Audio():
            yield from _of_value("url" if part.file_id is None else "file_id", part.file_id or part.url)
            yield from _of_extra(part.extra)
        case ToolResult():
            yield from chain.from_iterable(map(_of_part, part.content))
            yield from _of_extra(part.extra)
        case _:
            yield from _of_extra(getattr(part, "extra", None))


def _of_extra(extra: dict[str, JsonObject] | None) -> Iterator[VendorId]:
    for fields in (extra or {}).values():
        yield from _ids(fields)


def _ids(value: Any) -> Iterator[VendorId]:
    """Return the ids in decoded JSON. Its depth was limited when it was decoded."""
    if isinstance(value, list):
        for item in value:
            yield from _ids(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _of_field(name, inner)


def _of_field(name: str, value: Any) -> Iterator[VendorId]:
    plain = _plain(name)
    if plain in _OBJECTS and isinstance(value, dict):
        yield from _of_value(f"{name}.id", value.get("id"))
    elif plain in _FIELDS:
        for each in value if isinstance(value, list) else (value,):
            yield from _of_value(name, each)
    if plain == "skills" and isinstance(value, list):
        for skill in value:
            if isinstance(skill, dict) and skill.get("type") != "anthropic":
                yield from _of_value("skill_id", skill.get("skill_id"))
    elif plain not in _FREE and isinstance(value, dict | list):
        yield from _ids(value)


def _of_value(field: str, value: Any) -> Iterator[VendorId]:
    if isinstance(value, str) and value and (found := _named_by(value)) is not None:
        yield VendorId(field, found)


def _named_by(value: str) -> str | None:
    """Return the vendor's id in ``value``: ``value`` itself, unless it is an address. ``None`` for a public address,
    and for data.
    """
    scheme, colon, _ = value.partition(":")
    if not colon or scheme.lower() not in ("http", "https", "data"):
        return value
    if scheme.lower() == "data":
        return None
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return value
    if not any(host == known or host.endswith(f"-{known}") for known in _GOOGLE):
        return None
    _, files, rest = unquote(parts.path).partition("/files/")
    return f"files/{rest.partition('/')[0].partition(':')[0]}" if files else value
