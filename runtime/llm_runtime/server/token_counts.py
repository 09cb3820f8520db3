"""Count the tokens of a prompt, with the endpoint of each wire. `ESTIMATED` marks counts that no vendor made."""

from __future__ import annotations

from collections.abc import Callable

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.response import TokenCount
from llm_runtime.server.beginning import after_parent
from llm_runtime.server.bodies import admitted, read_body
from llm_runtime.server.http_error import JSON
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure
from llm_runtime.server.stored import RESPONSES

ESTIMATED = ("x-llm-runtime-estimated", "true")
"""The header of an estimated count: the vendor has no endpoint for it, or could not be reached."""


async def of_messages(context: RequestContext) -> None:
    """``POST /v1/messages/count_tokens``."""
    await _count(context, lambda count: {"input_tokens": count.tokens})


async def of_contents(context: RequestContext) -> None:
    """``POST /v1beta/models/{id}:countTokens``."""
    await _count(context, lambda count: {"totalTokens": count.tokens})


async def _count(context: RequestContext, body_of: Callable[[TokenCount], JsonObject]) -> None:
    dialect, target = context.wire.dialect(), context.target
    try:
        body = await context.take_body()
        inbound = await read_body(
            context.server_state.json_limits, body, lambda text: dialect.decode_request(target, text)
        )
        await _reply(context, inbound, body_of)
    except LLMClientError as exc:
        await context.reply(encode_failure(dialect, exc.failure))


async def of_response(context: RequestContext) -> None:
    """``POST /v1/responses/input_tokens``; the conversation before ``previous_response_id`` is included."""
    try:
        body = await context.take_body()
        create = await read_body(context.server_state.json_limits, body, RESPONSES.decode_create)
        inbound = await after_parent(context.server_state, create, context.caller)
        await _reply(context, inbound, lambda count: {"object": "response.input_tokens", "input_tokens": count.tokens})
    except LLMClientError as exc:
        await context.reply(encode_failure(RESPONSES, exc.failure))


async def _reply(context: RequestContext, inbound: ClientRequest, body_of: Callable[[TokenCount], JsonObject]) -> None:
    request = admitted(context.caller, inbound).request
    await context.server_state.check_issued(request)
    count = await context.server_state.engine.count_tokens(request)
    marks = (ESTIMATED,) if count.estimated else ()
    await context.reply(WireResponse(200, (JSON, *marks), encode_json(body_of(count))))
