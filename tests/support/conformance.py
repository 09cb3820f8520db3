"""What the suites of ``tests/wires`` have in common: the server side says what the client side has read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from llm_protocol.content import Part, Reasoning, ToolCall
from llm_protocol.dialect import ClientDialect, ClientRequest, ModelInfo, ServerDialect, WireResponse
from llm_protocol.events import Event, Failed
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse, Usage
from support.streams import decode, encode, fold

PIECE = 3
"""Characters of a delta of ours."""


class Retold(NamedTuple):
    """A response as our server says it, and the events that our client reads in that."""

    body: str
    events: list[Event]


def retell(
    client: ClientDialect, server: ServerDialect, request: AnyRequest, response: LLMResponse, *, streamed: bool
) -> Retold:
    """``response`` from the server to the client, streamed or whole."""
    inbound = ClientRequest(request, stream=streamed)
    if streamed:
        body = encode(server.response_encoder(inbound, "resp_1"), response, piece=PIECE)
        return Retold(body.decode(), decode(lambda: client.stream_decoder(request), body))
    body = server.encode_response(inbound, response)
    return Retold(body.decode(), client.decode_response(request, WireResponse(200, body=body)))


def check_same(events: Sequence[Event], response: LLMResponse) -> None:
    """The events say what ``response`` says, apart from its ids, the model's name and the vendor's word for its end."""
    assert not isinstance(events[-1], Failed), events[-1]
    again = fold(events)
    assert list(map(_meaning, again.output)) == list(map(_meaning, response.output))
    assert again.embeddings == response.embeddings
    assert (again.usage or Usage()) == (response.usage or Usage())
    assert again.finish_reason == response.finish_reason


def _meaning(part: Part) -> Part:
    """``part`` without what may change on the way."""
    if isinstance(part, Reasoning) and part.encrypted is None and part.id != "tool_plan":
        return msgspec.structs.replace(part, id=None)  # nothing is tied to it
    if not isinstance(part, ToolCall):
        return part
    return msgspec.structs.replace(
        part,
        id="" if part.id.startswith("call_gemini_") else part.id,  # one of ours, for a call without
        arguments=json.dumps(part.parsed()),
        extra=None,  # known when the call is whole; its start, which would say it, was sent before
    )


def check_failure_again(client: ClientDialect, server: ServerDialect, failure: Failure) -> None:
    """A failure keeps its kind and its words from our server to our client.

    That a provider refused our key is no fault of the caller's: wires that tell kinds by the status say a server error.
    """
    again = client.decode_error(server.encode_error(failure))
    assert again.kind == failure.kind or (failure.kind, again.kind) == (FailureKind.AUTH, FailureKind.SERVER_ERROR)
    assert again.message.startswith(failure.message.rstrip(". "))
    assert again.upstream_status == failure.rule.status


def check_models_again(client: ClientDialect, server: ServerDialect, models: Sequence[ModelInfo]) -> None:
    """A model list says the same from our server to our client."""
    page = client.decode_models(server.encode_models(models))
    names = [(model.id, model.context_window, model.shutdown_date) for model in page.models]
    assert names == [(model.id, model.context_window, model.shutdown_date) for model in models]
    assert page.next is None
