"""Completion and code requests said as chat."""

from __future__ import annotations

import msgspec
import pytest

from llm_protocol.codec.chat_adapter import spoken
from llm_protocol.errors import UnsupportedError
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    LLMRequest,
    Parameters,
    RequestType,
)

CHAT = frozenset((RequestType.CHAT,))
COMMON = {
    "request_id": "req_1",
    "provider": "p",
    "model": "m",
    "parameters": Parameters(temperature=0.0, extra={"openai_chat": {"x": 1}}),
    "context": {"a": 1},
    "metadata": {"b": 2},
    "timestamp": 5.0,
    "deadline_s": 9.0,
    "caller": "c",
}


def said(request: AnyRequest) -> tuple[str, str]:
    """The system's and the user's words."""
    chat = spoken(request, CHAT)
    assert isinstance(chat, ChatRequest)
    assert [message.role for message in chat.messages] == ["system", "user"]
    return chat.messages[0].text, chat.messages[1].text


def test_what_a_vendor_has_is_asked_as_it_is() -> None:
    """The very same request."""
    request = CompletionRequest(prompt="x")
    assert spoken(request, {RequestType.COMPLETION}) is request
    chat = ChatRequest(messages=())
    assert spoken(chat, CHAT) is chat


@pytest.mark.parametrize(
    "request_",
    [
        msgspec.convert({"request_type": "completion", "prompt": "x"} | COMMON, CompletionRequest),
        msgspec.convert({"request_type": "code_generation", "instruction": "x"} | COMMON, CodeRequest),
    ],
    ids=["completion", "code"],
)
def test_everything_common_is_kept(request_: AnyRequest) -> None:
    """Ids, parameters, deadline, caller: the emulation is the same request."""
    chat = spoken(request_, CHAT)
    for name in LLMRequest.__struct_fields__:
        assert getattr(chat, name) == getattr(request_, name)
    assert {name: getattr(chat, name) for name in COMMON} == COMMON


def test_a_completion_is_a_continuation() -> None:
    """The prompt travels untouched, as the user's words."""
    system, user = said(CompletionRequest(prompt="Once upon\n"))
    assert user == "Once upon\n"
    assert "what comes next" in system
    assert "Do not repeat" in system


def test_a_completion_with_a_suffix_fills_the_gap() -> None:
    """Both sides travel untouched, apart."""
    system, user = said(CompletionRequest(prompt="def f(", suffix="):\n  pass"))
    assert user == "<prefix>def f(</prefix>\n<suffix>):\n  pass</suffix>"
    assert "gap" in system


def test_code_by_instruction() -> None:
    """Code alone, in the language asked for."""
    system, user = said(CodeRequest(instruction="Sort a list.", language="Rust"))
    assert user == "Sort a list."
    assert "no markdown fences" in system
    assert "The language is Rust." in system
    assert "gap" not in system
    assert "<file>" not in system


def test_code_for_a_gap_with_files() -> None:
    """Files first, then what surrounds the gap, then the instruction; one side of the gap may be missing."""
    files = (CodeFile("a.py", "A = 1"), CodeFile("b.py", "B = 2"))
    system, user = said(CodeRequest(instruction="Fill it.", prefix="def f():\n    ", files=files))
    assert user == (
        '<file path="a.py">\nA = 1\n</file>\n\n<file path="b.py">\nB = 2\n</file>\n\n'
        "<prefix>def f():\n    </prefix>\n<suffix></suffix>\n\nFill it."
    )
    assert "gap" in system
    assert "<file>" in system


@pytest.mark.parametrize(
    ("request_", "types"),
    [
        (EmbeddingRequest(inputs=("x",)), CHAT),
        (ImageRequest(prompt="x"), CHAT),
        (CodeRequest(instruction="x"), frozenset((RequestType.COMPLETION,))),
        (ChatRequest(messages=()), frozenset((RequestType.EMBEDDING,))),
    ],
    ids=["embedding", "image", "code", "chat"],
)
def test_what_chat_cannot_stand_for_is_refused(request_: AnyRequest, types: frozenset[RequestType]) -> None:
    """By the name of the request type."""
    with pytest.raises(UnsupportedError, match=request_.request_type) as caught:
        spoken(request_, types)
    assert caught.value.failure.param == "request_type"
