"""``GET /v1/responses/{id}/input_items``: the input of a stored response, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject, Message
from llm_protocol.dialect import WireResponse
from llm_protocol.wires.responses.client import encode_input
from llm_runtime.server.http_error import JSON, HttpError
from llm_runtime.server.limits import MAX_PAGE_ITEMS, PAGE_ITEMS
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.stored import found


async def list_input_items(context: RequestContext) -> None:
    """Return at most ``limit`` items that follow the item ``after``, latest first unless ``order=asc``."""
    stored = await found(context)
    query = parse_qs(context.request.query)
    items = input_items(stored.input, stored.id)
    if query.get("order", ["desc"])[-1] != "asc":
        items.reverse()
    if (after := query.get("after", [""])[-1]) != "":
        places = [at for at, item in enumerate(items) if item["id"] == after]
        if not places:
            raise HttpError(
                400, "invalid_request", "after must be the id of an input item of this response.", param="after"
            )
        items = items[places[0] + 1 :]
    limit = query.get("limit", [str(PAGE_ITEMS)])[-1]
    if not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= MAX_PAGE_ITEMS:
        raise HttpError(400, "invalid_request", f"limit must be a number from 1 to {MAX_PAGE_ITEMS}.", param="limit")
    page = items[: int(limit)]
    body = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    }
    await context.reply(WireResponse(200, (JSON,), encode_json(body)))


_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}


def input_items(messages: Sequence[Message], response_id: str) -> list[JsonObject]:
    """Return the items of ``messages`` with the fields that clients' types require. The id of an item contains its
    position.
    """
    owner = response_id.removeprefix("resp_")
    return [_listed(item, f"{owner}_{at}") for at, item in enumerate(encode_input(messages, 0))]


def _listed(item: JsonObject, place: str) -> JsonObject:
    kind = item.get("type", "message")
    found: JsonObject = {"id": f"{_PREFIXES.get(kind, 'item')}_{place}", "type": kind, **item}
    if kind == "message":
        content = item["content"]
        if isinstance(content, str):
            is_said = item["role"] == "assistant"
            part: JsonObject = {"type": "output_text" if is_said else "input_text", "text": content}
            content = [part | {"annotations": [], "logprobs": []} if is_said else part]
        found |= {"content": content, "status": "completed"}
    elif kind != "reasoning":
        found.setdefault("status", "completed")
    return found
