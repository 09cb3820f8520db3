"""What vendors say of how they served an answer, where that has a price of its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_protocol.content import Message
from llm_protocol.dialect import WireResponse
from llm_protocol.events import UsageReported
from llm_protocol.requests import ChatRequest, LLMProvider
from llm_protocol.response import Usage
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.responses import OpenAIResponses

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "q"),))


def reported(dialect: Any, body: Any) -> Usage:
    events = dialect.decode_response(REQUEST, WireResponse(200, body=msgspec.json.encode(body)))
    [usage] = [event.usage for event in events if isinstance(event, UsageReported)]
    return usage


def test_anthropic_tells_speed_place_and_what_is_cached_for_an_hour() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
        "output_tokens": 5,
        "service_tier": "standard",
        "speed": "fast",
        "inference_geo": "us",
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    }
    body = {"id": "m", "type": "message", "model": "m", "content": [], "stop_reason": "end_turn", "usage": usage}
    found = reported(VENDORS[LLMProvider.ANTHROPIC].client(), body)

    assert (found.cache_write_tokens, found.long_cache_write_tokens) == (100, 60)
    assert found.services == ("fast", "us")
    assert found.web_searches == 2


@pytest.mark.parametrize(("tier", "services"), [("flex", ("flex",)), ("default", ()), (None, ()), (7, ())])
def test_openai_tells_the_service_tier(tier: object, services: tuple[str, ...]) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    written = {"cache_write_tokens": 4, "cache_write_tokens_details": {"ttl_12h_tokens": 4, "ttl_30m_tokens": 0}}
    counted = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"image_tokens": 3, **written}}
    body = {"id": "c", "model": "m", "choices": [choice], "usage": counted, "service_tier": tier}
    found = reported(VENDORS[LLMProvider.OPENAI].client(), body)

    assert found.services == services
    assert found.image_input_tokens == 3
    assert (found.cache_write_tokens, found.long_cache_write_tokens) == (4, 4)


@pytest.mark.parametrize(("total", "made"), [(14_428, 4_308), (11_619, 1_499), (None, 1_499)])
def test_reasoning_that_is_counted_beside_the_completion_is_output(total: int | None, made: int) -> None:
    """xAI's ``total_tokens`` shows that it is; everybody else has it inside ``completion_tokens``."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    counted = {"prompt_tokens": 10_120, "completion_tokens": 1_499, "total_tokens": total}
    details = {"completion_tokens_details": {"reasoning_tokens": 2_809}}
    body = {"id": "c", "model": "m", "choices": [choice], "usage": counted | details}
    found = reported(VENDORS["xai"].client(), body)

    assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (10_120, made, 2_809)


def test_so_does_the_responses_api() -> None:
    item = {"type": "message", "id": "i", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    usage = {"input_tokens": 5, "output_tokens": 1}
    written = {"cache_write_tokens": 4, "cache_write_tokens_details": {"ttl_12h_tokens": 3, "ttl_30m_tokens": 1}}
    search = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}
    body = {
        "id": "r",
        "status": "completed",
        "output": [search, item],
        "usage": {**usage, "input_tokens_details": written},
        "service_tier": "priority",
    }

    found = reported(OpenAIResponses(), body)

    assert found.services == ("priority",)
    assert (found.cache_write_tokens, found.long_cache_write_tokens) == (4, 3)
    assert found.web_searches == 1
