"""Errors in any shape: found, with their words; and no answer taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from llm_protocol.codec.error_body import find_error
from llm_protocol.codec.json import encode_json
from llm_protocol.content import Message
from llm_protocol.dialect import ClientDialect, WireResponse
from llm_protocol.events import Failed
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.anthropic import Anthropic
from llm_protocol.wires.cohere import Cohere
from llm_protocol.wires.gemini import Gemini
from llm_protocol.wires.openai_chat import OpenAIChat
from llm_protocol.wires.responses import OpenAIResponses

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "hi"),))
SHAPES: dict[str, Any] = {
    "object": {"error": {"message": "no room", "code": "full"}},
    "text": {"error": "no room"},
    "text beside a code": {"error": "no room", "code": 503},
    "list": [{"error": {"message": "no room"}}],
    "errors": {"errors": [{"message": "no room"}]},
    "errors of texts": {"errors": ["no room"]},
    "message": {"message": "no room", "code": "full"},
    "code and msg": {"code": 1302, "msg": "no room"},
    "error_code and error_msg": {"error_code": 17, "error_msg": "no room"},
    "base_resp": {"base_resp": {"status_code": 1002, "status_msg": "no room"}},
    "detail": {"detail": "no room"},
    "detail of FastAPI": {"detail": [{"loc": ["body", "model"], "msg": "no room"}]},
    "detail inside": {"error": {"detail": "no room"}},
}
ANSWERS: dict[str, Any] = {
    "an answer": {"choices": [{"message": {"content": "hi"}}]},
    "a null error beside it": {"choices": [], "error": None},
    "a good base_resp": {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
    "Cohere's": {"id": "x", "message": {"content": []}},
    "nothing": {},
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_the_words_are_found(body: Any) -> None:
    error = find_error(body)
    assert error is not None
    assert "no room" in error["message"]


@pytest.mark.parametrize("body", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_no_error(body: Any) -> None:
    assert find_error(body) is None


@pytest.mark.parametrize(
    "client", [Anthropic(), Cohere(), Gemini(), OpenAIChat(), OpenAIResponses()], ids=lambda c: c.name
)
@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_they_reach_the_caller_on_every_wire(client: ClientDialect, body: Any) -> None:
    """With an error status, with a 200 where a whole answer was due, and where a stream was."""
    raw = encode_json(body)
    assert "no room" in client.decode_error(WireResponse(503, body=raw)).message
    whole = client.decode_response(REQUEST, WireResponse(200, body=raw))[-1]
    decoder = client.stream_decoder(REQUEST)
    [*_, streamed] = [*decoder.feed(raw), *decoder.end()]
    for end in (whole, streamed):
        assert isinstance(end, Failed)
        assert "no room" in end.failure.message
