"""Resolve ``item_reference``: an item of a stored response, given by its id alone. The AI SDK sends all earlier items
in this form.
"""

from __future__ import annotations

import re

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.content import JsonObject, Opaque, Part, Reasoning
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import Create, OpenAIResponsesServer
from llm_protocol.wires.responses.content import decode_item
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.response_store import Recent, ResponseStore, StoredResponse

_RESPONSES = OpenAIResponsesServer()
_ID = re.compile(r"[a-z]+_([0-9a-f]{32})\d*_\d+")
"""The id of an item, which contains the id of its response. Items of hosted tools and reasoning have vendor ids
instead.
"""


def with_references(create: Create, response_store: ResponseStore, caller: str, recent: Recent | None = None) -> Create:
    """Return the request with the referenced items in place of the references. Raises `HttpError` if the caller has
    no such item.
    """
    request = create.inbound.request
    assert isinstance(request, ChatRequest)
    if not any(_reference(part) for message in request.messages for part in message.content):
        return create
    items: dict[str, JsonObject] = {}

    def parts(part: Part) -> tuple[Part, ...]:
        wanted = _reference(part)
        if not wanted:
            return (part,)
        if wanted not in items:
            items.update(_items(wanted, response_store, caller, recent))
        if wanted not in items:
            raise HttpError(404, "item_not_found", f"Item with id '{wanted[:100]}' not found.", param="input")
        return tuple(each for each in decode_item(Body(items[wanted]))[1])

    messages = tuple(
        msgspec.structs.replace(message, content=tuple(each for part in message.content for each in parts(part)))
        for message in request.messages
    )
    longer = msgspec.structs.replace(request, messages=messages)
    return create._replace(inbound=create.inbound._replace(request=longer))


def referenced_responses(create: Create) -> tuple[str, ...]:
    """Return the ids of the responses whose items the request refers to."""
    request = create.inbound.request
    assert isinstance(request, ChatRequest)
    items = (_reference(part) for message in request.messages for part in message.content)
    return tuple(dict.fromkeys(f"resp_{found[1]}" for each in items if (found := _ID.fullmatch(each))))


def _reference(part: Part) -> str:
    """The id of the referenced item; empty if ``part`` is no reference."""
    if not isinstance(part, Opaque) or part.value.get("type") != "item_reference":
        return ""
    return str(part.value.get("id") or "?")


def _items(item_id: str, response_store: ResponseStore, caller: str, recent: Recent | None) -> dict[str, JsonObject]:
    """The items, by id, of the response that contains ``item_id``."""
    if (found := _ID.fullmatch(item_id)) is None:
        known = (*reversed(recent.responses if recent else ()), *response_store.all_of(caller))
        stored = next((each for each in known if _has_vendors_item(each, item_id)), None)
    else:
        response_id = f"resp_{found[1]}"
        stored = (recent.get(response_id) if recent else None) or response_store.find(response_id, caller)
    if stored is None or stored.run.log.end is None:
        return {}
    body = msgspec.json.decode(_RESPONSES.encode_log(stored.inbound, stored.id, stored.options, stored.run.log.events))
    return {item["id"]: item for item in body["output"]}


def _has_vendors_item(stored: StoredResponse, item_id: str) -> bool:
    """Whether the response has an item with this vendor's id."""
    end = stored.run.log.end
    output = end.response.output if end is not None and end.response is not None else ()
    return any(
        (isinstance(part, Reasoning) and part.id == item_id)
        or (isinstance(part, Opaque) and part.value.get("id") == item_id)
        for part in output
    )
