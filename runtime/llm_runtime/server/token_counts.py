"""Count the tokens of a prompt, with the endpoint of each wire. `ESTIMATED` marks counts that no vendor made."""

from __future__ import annotations

from collections.abc import Callable

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Inbound, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.response import TokenCount
from llm_runtime.server.beginning import after_parent
from llm_runtime.server.bodies import read_body
from llm_runtime.server.content_encoding import plain_body
from llm_runtime.server.engine import admitted
from llm_runtime.server.http_error import JSON
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_failure
from llm_runtime.server.stored import RESPONSES

ESTIMATED = ("x-llm-runtime-estimated", "true")
"""The header of an estimated count: the vendor has no endpoint for it, or could not be reached."""


async def of_messages(exchange: RequestContext) -> None:
    """``POST /v1/messages/count_tokens``."""
    await _count(exchange, lambda count: {"input_tokens": count.tokens})


async def of_contents(exchange: RequestContext) -> None:
    """``POST /v1beta/models/{id}:countTokens``."""
    await _count(exchange, lambda count: {"totalTokens": count.tokens})


async def _count(exchange: RequestContext, body_of: Callable[[TokenCount], JsonObject]) -> None:
    dialect, target = exchange.wire.dialect(), exchange.target
    try:
        body = await plain_body(exchange)
        inbound = await read_body(exchange.service.json_limits, body, lambda text: dialect.decode_request(target, text))
        await _reply(exchange, inbound, body_of)
    except LLMClientError as exc:
        await exchange.reply(encode_failure(dialect, exc.failure))


async def of_response(exchange: RequestContext) -> None:
    """``POST /v1/responses/input_tokens``; the conversation before ``previous_response_id`` is included."""
    try:
        body = await plain_body(exchange)
        create = await read_body(exchange.service.json_limits, body, RESPONSES.decode_create)
        inbound = await after_parent(exchange.service, create, exchange.caller)
        await _reply(exchange, inbound, lambda count: {"object": "response.input_tokens", "input_tokens": count.tokens})
    except LLMClientError as exc:
        await exchange.reply(encode_failure(RESPONSES, exc.failure))


async def _reply(exchange: RequestContext, inbound: Inbound, body_of: Callable[[TokenCount], JsonObject]) -> None:
    request = admitted(exchange.caller, inbound).request
    exchange.service.issued.check(request)
    count = await exchange.service.engine.count_tokens(request)
    marks = (ESTIMATED,) if count.estimated else ()
    await exchange.reply(WireResponse(200, (JSON, *marks), encode_json(body_of(count))))
