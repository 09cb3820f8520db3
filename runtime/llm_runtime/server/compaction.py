"""``POST /v1/responses/compact``: a conversation made short, by a summary that the named model writes."""

from __future__ import annotations

import msgspec

from llm_protocol.dialect import WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse
from llm_protocol.wires.responses.compaction import compaction_request, encode_compaction
from llm_runtime.server.beginning import after_parent
from llm_runtime.server.bodies import read_body
from llm_runtime.server.content_encoding import plain_body
from llm_runtime.server.engine import admitted
from llm_runtime.server.http_error import JSON
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_end, encode_failure, end_of, told
from llm_runtime.server.stored import RESPONSES

_EMPTY = "the model wrote no summary"


async def compact(exchange: RequestContext) -> None:
    """The endpoint. The conversation before ``previous_response_id`` is part of what is compacted."""
    exchange.end_with_client()
    service = exchange.service
    try:
        body = await plain_body(exchange)
        create = await read_body(service.json_limits, body, RESPONSES.decode_create)
        inbound = admitted(exchange.caller, await after_parent(service, create, exchange.caller))
        request = inbound.request
        assert isinstance(request, ChatRequest), "what this endpoint reads"
        run = await service.start_run(compaction_request(request), stream=False)
    except LLMClientError as exc:
        await exchange.reply(encode_failure(RESPONSES, exc.failure))
        return
    exchange.request_id = request.request_id
    end = await end_of(exchange, run)
    if isinstance(end, Finished) and end.response is not None and not end.response.content.strip():
        end = Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=_EMPTY), response=end.response)
    if isinstance(end, Failed):
        await exchange.reply(await encode_end(RESPONSES, inbound, end))
        return
    assert isinstance(end.response, LLMResponse), "a run's log ends with a response"
    response = msgspec.structs.replace(end.response, response_id=run.response_id)
    await exchange.reply(WireResponse(200, (JSON, *told(response)), encode_compaction(request, response)))
