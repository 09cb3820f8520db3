"""The native protocol (`llm_protocol.native`), which `llm_runtime.connect` uses over the WebSocket of the Responses
API, with its lanes, ``response.resume`` and ``response.cancel``; and a few endpoints for the other methods of a
runtime.
"""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import ClientRequest, ResponseEncoder, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.native import (
    FORM,
    Greeting,
    NativeEncoder,
    NativeRequest,
    decode_request,
    encode_refused,
    last_number,
)
from llm_protocol.requests import AUTO
from llm_protocol.version import VERSION
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.server.bodies import decode_body
from llm_runtime.server.http_error import JSON, HttpError
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.response_store import StoredResponse
from llm_runtime.server.state import ServerState

OPTIONS = ResponseOptions(store=False)
"""The options of every native request. Its response is not stored: it belongs to its connection."""


def is_native(inbound: ClientRequest) -> bool:
    """Whether the request came over the native protocol."""
    return inbound.form == FORM


async def begin_native(server_state: ServerState, create: NativeRequest, size: int, since: float) -> StoredResponse:
    """Start a response; see `llm_runtime.server.beginning.begin`."""
    run = await server_state.start_run(
        create.inbound.request, stream=create.inbound.stream, since=since, response_id=create.response_id
    )
    stored = StoredResponse(run, create.inbound, OPTIONS, (), size)
    server_state.response_store.put(stored)
    return stored


def check_is_new(server_state: ServerState, response_id: str) -> None:
    """Raise `HttpError` if there already is a response with that id, of any caller."""
    if server_state.response_store.is_taken(response_id):
        raise HttpError(409, "response_exists", "A response with this id already exists.", param="response_id")


def encoder(stored: StoredResponse, starting_after: int) -> ResponseEncoder:
    """Return the encoder for a response. It starts after the event ``starting_after``, which the client has seen."""
    return NativeEncoder(stored.id, starting_after)


def check_native_cursor(stored: StoredResponse, starting_after: int) -> None:
    """See `llm_runtime.server.stored.check_cursor`."""
    if starting_after > last_number(stored.run.log.events):
        message = f"starting_after is {starting_after}, but the response has no event with that number yet."
        raise HttpError(400, "invalid_request", message, param="starting_after")


def _failed(failure: Failure) -> WireResponse:
    return WireResponse(failure.rule.status, (JSON,), encode_refused(failure, None))


async def greet(context: RequestContext) -> None:
    """``GET /v1/runtime``: the facts that a client needs before its first request."""
    server_state = context.server_state
    names = set(server_state.engine.route_names(context.caller))
    routes = {name: msgspec.to_builtins(policy) for name, policy in server_state.engine.routes.items() if name in names}
    limits = server_state.config
    greeting = Greeting(
        version=VERSION,
        routes=routes,
        responses=min(limits.websocket_responses, limits.websocket_lanes),
        max_bytes=limits.max_body_bytes,
    )
    await context.reply(WireResponse(200, (JSON,), encode_json(greeting)))


async def list_models(context: RequestContext) -> None:
    """``GET /v1/runtime/models``: the models, with all known facts about each."""
    await context.reply(WireResponse(200, (JSON,), encode_json(context.server_state.engine.model_list(context.caller))))


async def rank(context: RequestContext) -> None:
    """``GET /v1/runtime/ranking?model=…``: the data that ``/v1/runtime/explain`` returns as text."""
    model = parse_qs(context.request.query).get("model", [AUTO])[-1]
    try:
        ranking = await context.server_state.engine.explain(model, caller=context.caller)
    except LLMClientError as exc:
        await context.reply(_failed(exc.failure))
        return
    await context.reply(WireResponse(200, (JSON,), encode_json(ranking)))


async def count_tokens(context: RequestContext) -> None:
    """``POST /v1/runtime/count_tokens``: count the tokens of the request in the body."""
    try:
        body = await context.take_body()
        request = await decode_body(
            context.server_state.json_limits, body, lambda text: decode_request(text, context.caller)
        )
        await context.server_state.check_issued(request)
        count = await context.server_state.engine.count_tokens(request)
    except LLMClientError as exc:
        await context.reply(_failed(exc.failure))
        return
    await context.reply(WireResponse(200, (JSON,), encode_json(count)))


async def forget(context: RequestContext) -> None:
    """``DELETE /v1/runtime/knowledge?conversation=…``: delete the answers that are stored for one conversation of the
    caller, or for all its conversations.
    """
    conversation = parse_qs(context.request.query).get("conversation", [None])[-1]
    count = context.server_state.engine.forget(conversation, caller=context.caller)
    if context.server_state.siblings is not None:
        count += await context.server_state.siblings.forget(conversation, context.caller)
    await context.reply(WireResponse(200, (JSON,), encode_json(count)))
