"""The endpoints of the Responses API over HTTP: create a response, retrieve, continue, cancel or delete it by its id,
and list its input, page by page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final
from urllib.parse import parse_qs

import msgspec
import trio

from llm_actors.threads import run_large
from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject, Message
from llm_protocol.dialect import ClientRequest, Frame, ModelInfo, ResponseEncoder, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import TERMINAL, Event
from llm_protocol.response import LLMResponse
from llm_protocol.wires.responses import OpenAIResponsesServer
from llm_protocol.wires.responses.client import encode_input
from llm_runtime.server.beginning import begin
from llm_runtime.server.bodies import decode_body
from llm_runtime.server.http_error import JSON, HttpError
from llm_runtime.server.limits import CLOSE_SECONDS, MAX_PAGE_ITEMS, MIRROR_BEHIND_SECONDS, PAGE_ITEMS
from llm_runtime.server.native import is_native
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.response_store import StoredResponse, WaitingResponse
from llm_runtime.server.run_response import encode_failure, end_of, respond

RESPONSES = OpenAIResponsesServer()
_DONE = Frame(None, b"[DONE]")


@final
class _Closed:
    """An encoder that ends a stream in the way of the Responses API over HTTP, which differs from WebSocket."""

    def __init__(self, encoder: ResponseEncoder) -> None:
        self._encoder = encoder

    def start(self) -> list[Frame]:
        """See `ResponseEncoder`."""
        return self._encoder.start()

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """See `ResponseEncoder`."""
        events = tuple(events)
        frames = self._encoder.encode(events)
        return [*frames, _DONE] if events and isinstance(events[-1], TERMINAL) else frames


@final
class Spoken:
    """The Responses dialect with the options of one request. Streams start after an event that the client has seen."""

    name = RESPONSES.name
    decode_request = RESPONSES.decode_request
    encode_error = RESPONSES.encode_error

    def __init__(self, stored: StoredResponse, starting_after: int = -1) -> None:
        self._kept = stored
        self._after = starting_after

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> ResponseEncoder:
        """See `ServerDialect`."""
        options = self._kept.options
        return _Closed(RESPONSES.response_encoder(inbound, response_id, options, starting_after=self._after))

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:  # noqa: ARG002
        """See `ServerDialect`."""
        return _encode_whole(self._kept)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """See `ServerDialect`."""
        return RESPONSES.encode_models(models)


async def create(context: RequestContext) -> None:
    """``POST /v1/responses``. With ``background`` and without ``stream`` it returns at once; the client retrieves the
    response later.
    """
    context.end_with_client()
    try:
        body = await context.take_body()
        size = len(body)
        create = await decode_body(context.server_state.json_limits, body, RESPONSES.decode_create)
        del body  # the body may be large, and the response take long
        stored = await begin(
            context.server_state,
            create,
            context.caller,
            size,
            headers=context.request.headers,
            stream=create.inbound.stream,
        )
    except LLMClientError as exc:
        await context.reply(encode_failure(RESPONSES, exc.failure))
        return
    context.request_id = stored.inbound.request.request_id
    if stored.options.background:
        await context.server_state.persistence.wait_begun(stored.id)
    if stored.options.background and not stored.inbound.stream:
        await context.reply(await _resource(context, stored))
    else:
        await respond(context, Spoken(stored), stored.inbound, stored.run, hold=not stored.options.background)


async def retrieve(context: RequestContext) -> None:
    """``GET /v1/responses/{id}``: the response as it is now; with ``stream=true``, events after ``starting_after``."""
    await context.server_state.bring(context.params["id"], context.caller)
    if (waiting := _waiting(context)) is not None:
        body = RESPONSES.encode_pending(waiting.inbound, waiting.id, waiting.options, status="queued")
        await context.reply(WireResponse(200, (JSON,), body))
        return
    stored = _known(context)
    query = parse_qs(context.request.query)
    if query.get("stream", [""])[-1] != "true" or context.request.method == "HEAD":  # a stream always has a body
        if stored.run.log.end is not None:
            await end_of(context, stored.run)  # waits until the end may be sent
        await context.reply(await _resource(context, stored))
        return
    after = query.get("starting_after", ["-1"])[-1]
    if not after.removeprefix("-").isdecimal() or len(after) > 18:
        message = "starting_after must be the sequence_number of an event."
        raise HttpError(400, "invalid_request", message, param="starting_after")
    await caught_up(stored, int(after))
    check_cursor(stored, int(after))
    context.end_with_client()
    inbound = stored.inbound._replace(stream=True)
    await respond(context, Spoken(stored, int(after)), inbound, stored.run, hold=False)


async def delete(context: RequestContext) -> None:
    """``DELETE /v1/responses/{id}``: delete the response from memory, the file and Redis, and from other workers. If it
    is running, it is cancelled.
    """
    response_id = context.params["id"]
    await context.server_state.bring(response_id, context.caller)
    if (waiting := _waiting(context)) is not None:
        waiting.withdraw()
    elif not await context.server_state.drop(response_id, context.caller):
        raise _unknown(response_id)
    body = msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})
    await context.reply(WireResponse(200, (JSON,), body))


async def cancel(context: RequestContext) -> None:
    """``POST /v1/responses/{id}/cancel``: cancel the response, whether or not it is a background response, and return
    its current state.
    """
    await context.server_state.bring(context.params["id"], context.caller)
    if (waiting := _waiting(context)) is not None:
        waiting.withdraw()
        body = encode_json(RESPONSES.withdrawn(waiting.inbound, waiting.id, waiting.options))
        await context.reply(WireResponse(200, (JSON,), body))
        return
    stored = _known(context)
    stored.run.cancel("the client cancelled the response")
    context.end_with_client()
    with trio.move_on_after(CLOSE_SECONDS):
        await end_of(context, stored.run)
    await context.reply(await _resource(context, stored))


async def caught_up(stored: StoredResponse, starting_after: int) -> None:
    """Wait until the mirror of another replica's response has the event ``starting_after``, which the client has seen
    there. Waits at most `MIRROR_BEHIND_SECONDS`.
    """
    if not stored.is_foreign:
        return
    with trio.move_on_after(MIRROR_BEHIND_SECONDS), stored.run.follow():
        while stored.run.log.end is None and starting_after > _last_number(stored):
            await stored.run.log.wait_past(len(stored.run.log))


def _last_number(stored: StoredResponse) -> int:
    return RESPONSES.last_number(stored.inbound, stored.id, stored.options, stored.run.log.events)


def check_cursor(stored: StoredResponse, starting_after: int) -> None:
    """Raise `HttpError` if a response in progress has no event with that number yet. For an ended response, a client
    that asks for more receives the last event again.
    """
    log = stored.run.log
    if log.end is not None or starting_after < 0:
        return
    last = _last_number(stored)
    if starting_after > last:
        message = f"starting_after is {starting_after}, but the last event so far has the sequence_number {last}."
        raise HttpError(400, "invalid_request", message, param="starting_after")


async def found(context: RequestContext) -> StoredResponse:
    """Load and return the caller's response whose id is in the path, from wherever it is stored. Raises `HttpError`."""
    await context.server_state.bring(context.params["id"], context.caller)
    return _known(context)


def _known(context: RequestContext) -> StoredResponse:
    """Return the caller's response whose id is in the path, if it is in memory. Raises `HttpError`."""
    response_id = context.params["id"]
    stored = context.server_state.response_store.find(response_id, context.caller)
    if stored is None or is_native(stored.inbound):
        raise _unknown(response_id)
    return stored


def _waiting(context: RequestContext) -> WaitingResponse | None:
    waiting = context.server_state.response_store.find_waiting(context.params["id"], context.caller)
    return None if waiting is not None and is_native(waiting.inbound) else waiting


def _unknown(response_id: str) -> HttpError:
    message = f"Response with id '{response_id[:100]}' not found."
    return HttpError(404, "response_not_found", message, param="response_id")


def _encode_whole(stored: StoredResponse) -> bytes:
    """Return the final state of the response, derived from its stream, so that the two cannot differ."""
    return RESPONSES.encode_log(stored.inbound, stored.id, stored.options, stored.run.log.events)


async def _resource(context: RequestContext, stored: StoredResponse) -> WireResponse:
    """Return the current state of the response. It is shown as in progress until its end is in the file or in Redis,
    because other processes, which read the response there, show it in this way, too.
    """
    progress = context.server_state.persistence.live.get(stored.id)
    if stored.run.log.end is None or (progress is not None and not progress.ended):
        body = RESPONSES.encode_pending(stored.inbound, stored.id, stored.options)
    else:
        body = await run_large(stored.run.log.size, _encode_whole, stored)
    return WireResponse(200, (JSON,), body)


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
