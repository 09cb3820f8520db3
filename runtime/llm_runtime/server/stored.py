"""The endpoints of the Responses API over HTTP: create a response, and retrieve, continue or cancel it by its id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final
from urllib.parse import parse_qs

import msgspec
import trio

from llm_actors.threads import run_large
from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import Frame, Inbound, ModelInfo, ResponseEncoder, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import TERMINAL, Event
from llm_protocol.response import LLMResponse
from llm_protocol.wires.responses import OpenAIResponsesServer
from llm_runtime.server.beginning import begin
from llm_runtime.server.bodies import read_body
from llm_runtime.server.content_encoding import plain_body
from llm_runtime.server.http_error import JSON, HttpError
from llm_runtime.server.limits import CLOSE_SECONDS
from llm_runtime.server.native import is_native
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.response_store import StoredResponse, WaitingResponse
from llm_runtime.server.run_response import encode_failure, end_of, respond

RESPONSES = OpenAIResponsesServer()
_DONE = Frame(None, b"[DONE]")


@final
class _Closed:
    """An encoder whose stream ends as streams of this API do over HTTP (but not over WebSocket)."""

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
    """The Responses dialect with the options of one request, starting after an event that the client has seen."""

    name = RESPONSES.name
    decode_request = RESPONSES.decode_request
    encode_error = RESPONSES.encode_error

    def __init__(self, kept: StoredResponse, starting_after: int = -1) -> None:
        self._kept = kept
        self._after = starting_after

    def response_encoder(self, inbound: Inbound, response_id: str) -> ResponseEncoder:
        """See `ServerDialect`."""
        options = self._kept.options
        return _Closed(RESPONSES.response_encoder(inbound, response_id, options, starting_after=self._after))

    def encode_response(self, inbound: Inbound, response: LLMResponse) -> bytes:  # noqa: ARG002
        """See `ServerDialect`."""
        return _encode_whole(self._kept)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """See `ServerDialect`."""
        return RESPONSES.encode_models(models)


async def create(exchange: RequestContext) -> None:
    """``POST /v1/responses``. With ``background`` and without ``stream`` it returns at once, and is retrieved later."""
    exchange.end_with_client()
    try:
        body = await plain_body(exchange)
        size = len(body)
        asked = await read_body(exchange.service.json_limits, body, RESPONSES.decode_create)
        del body  # the body may be large, and the response take long
        kept = await begin(
            exchange.service,
            asked,
            exchange.caller,
            size,
            headers=exchange.request.headers,
            stream=asked.inbound.stream,
        )
    except LLMClientError as exc:
        await exchange.reply(encode_failure(RESPONSES, exc.failure))
        return
    exchange.request_id = kept.inbound.request.request_id
    if kept.options.background:
        await exchange.service.keeper.begun(kept.id)
    if kept.options.background and not kept.inbound.stream:
        await exchange.reply(await _resource(kept))
    else:
        await respond(exchange, Spoken(kept), kept.inbound, kept.run, hold=not kept.options.background)


async def retrieve(exchange: RequestContext) -> None:
    """``GET /v1/responses/{id}``: its current state, or with ``stream=true`` a stream from after ``starting_after``."""
    if (waiting := _waiting(exchange)) is not None:
        body = RESPONSES.encode_pending(waiting.inbound, waiting.id, waiting.options, status="queued")
        await exchange.reply(WireResponse(200, (JSON,), body))
        return
    kept = await found(exchange)
    query = parse_qs(exchange.request.query)
    if query.get("stream", [""])[-1] != "true":
        await exchange.reply(await _resource(kept))
        return
    after = query.get("starting_after", ["-1"])[-1]
    if not after.removeprefix("-").isdecimal() or len(after) > 18:
        message = "starting_after must be the sequence_number of an event."
        raise HttpError(400, "invalid_request", message, param="starting_after")
    check_cursor(kept, int(after))
    exchange.end_with_client()
    inbound = kept.inbound._replace(stream=True)
    await respond(exchange, Spoken(kept, int(after)), inbound, kept.run, hold=False)


async def delete(exchange: RequestContext) -> None:
    """``DELETE /v1/responses/{id}``: delete it everywhere; if it is running, stop it."""
    response_id, shelf = exchange.params["id"], exchange.service.shelf
    await exchange.service.keeper.bring(response_id, exchange.caller)
    if (waiting := _waiting(exchange)) is not None:
        waiting.withdraw()
    elif (kept := shelf.find_to_delete(response_id, exchange.caller)) is not None:
        kept.run.cancel("the client deleted the response")
        shelf.drop(kept)
        await exchange.service.keeper.forget(response_id)
    else:
        raise _unknown(response_id)
    body = msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})
    await exchange.reply(WireResponse(200, (JSON,), body))


async def cancel(exchange: RequestContext) -> None:
    """``POST /v1/responses/{id}/cancel``: stop it, in the background or not, and return what there is of it."""
    if (waiting := _waiting(exchange)) is not None:
        waiting.withdraw()
        body = encode_json(RESPONSES.withdrawn(waiting.inbound, waiting.id, waiting.options))
        await exchange.reply(WireResponse(200, (JSON,), body))
        return
    kept = await found(exchange)
    kept.run.cancel("the client cancelled the response")
    exchange.end_with_client()
    with trio.move_on_after(CLOSE_SECONDS):
        await end_of(exchange, kept.run)
    await exchange.reply(await _resource(kept))


def check_cursor(kept: StoredResponse, starting_after: int) -> None:
    """Raise `HttpError` if a running response has no event with that number yet. One that has ended returns its last
    event to any client that asks for more.
    """
    log = kept.run.log
    if log.end is not None or starting_after < 0:
        return
    last = RESPONSES.last_number(kept.inbound, kept.id, kept.options, log.events)
    if starting_after > last:
        message = f"starting_after is {starting_after}, but the last event so far has the sequence_number {last}."
        raise HttpError(400, "invalid_request", message, param="starting_after")


async def found(exchange: RequestContext) -> StoredResponse:
    """The caller's response whose id is in the path, from memory or from the store's file. Raises `HttpError`."""
    response_id = exchange.params["id"]
    await exchange.service.keeper.bring(response_id, exchange.caller)
    kept = exchange.service.shelf.find(response_id, exchange.caller)
    if kept is None or is_native(kept.inbound):
        raise _unknown(response_id)
    return kept


def _waiting(exchange: RequestContext) -> WaitingResponse | None:
    waiting = exchange.service.shelf.find_waiting(exchange.params["id"], exchange.caller)
    return None if waiting is not None and is_native(waiting.inbound) else waiting


def _unknown(response_id: str) -> HttpError:
    message = f"Response with id '{response_id[:100]}' not found."
    return HttpError(404, "response_not_found", message, param="response_id")


def _encode_whole(kept: StoredResponse) -> bytes:
    """The final state of the response, derived from its stream, so that the two cannot differ."""
    return RESPONSES.encode_log(kept.inbound, kept.id, kept.options, kept.run.log.events)


async def _resource(kept: StoredResponse) -> WireResponse:
    """The current state of the response."""
    if kept.run.log.end is None:
        body = RESPONSES.encode_pending(kept.inbound, kept.id, kept.options)
    else:
        body = await run_large(kept.run.log.size, _encode_whole, kept)
    return WireResponse(200, (JSON,), body)
