"""``POST /v1/responses/compact``: replace a conversation by a summary that the named model writes."""

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
from llm_runtime.server.bodies import admitted, read_body
from llm_runtime.server.http_error import JSON
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_end, encode_failure, end_of, fact_headers
from llm_runtime.server.stored import RESPONSES

_EMPTY = "the model wrote no summary"


async def compact(context: RequestContext) -> None:
    """Handle the request. The conversation before ``previous_response_id`` is included in the summary."""
    context.end_with_client()
    server_state = context.server_state
    try:
        body = await context.take_body()
        create = await read_body(server_state.json_limits, body, RESPONSES.decode_create)
        inbound = admitted(context.caller, await after_parent(server_state, create, context.caller))
        request = inbound.request
        assert isinstance(request, ChatRequest), "this endpoint must read chat requests"
        run = await server_state.start_run(compaction_request(request), stream=False)
    except LLMClientError as exc:
        await context.reply(encode_failure(RESPONSES, exc.failure))
        return
    context.request_id = request.request_id
    end = await end_of(context, run)
    if isinstance(end, Finished) and end.response is not None and not end.response.content.strip():
        end = Failed(failure=Failure(kind=FailureKind.PROTOCOL, message=_EMPTY), response=end.response)
    if isinstance(end, Failed):
        await context.reply(await encode_end(RESPONSES, inbound, end))
        return
    assert isinstance(end.response, LLMResponse), "the end of a run must have a response"
    response = msgspec.structs.replace(end.response, response_id=run.response_id)
    await context.reply(WireResponse(200, (JSON, *fact_headers(response)), encode_compaction(request, response)))
