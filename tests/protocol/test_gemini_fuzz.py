"""Whatever a peer sends, the Gemini dialect answers with an event, a failure or a typed error, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.content import Message
from llm_protocol.dialect import WireResponse
from llm_protocol.errors import BadRequestError, ProtocolError, UnsupportedError
from llm_protocol.events import TERMINAL
from llm_protocol.requests import ChatRequest, EmbeddingRequest
from llm_protocol.wires.gemini import Gemini, GeminiServer
from support.adapting import encoded
from support.streams import check_order, decode

CLIENT = Gemini()
SERVER = GeminiServer()

REQUEST = ChatRequest(model="m", messages=(Message.of("user", "x"),))


def words(text: str) -> list[str]:
    return text.split()


ANSWER_NAMES = words(
    "candidates content parts text thought thoughtSignature functionCall name args id inlineData mimeType data index"
    " finishReason promptFeedback blockReason usageMetadata promptTokenCount error code message status details"
    " executableCode responseId modelVersion embeddings embedding values models nextPageToken retryDelay violations"
)
REQUEST_NAMES = words(
    "contents role parts text thought functionCall functionResponse name args id response inlineData fileData fileUri"
    " mimeType data systemInstruction tools functionDeclarations parameters toolConfig functionCallingConfig mode"
    " allowedFunctionNames generationConfig temperature topK stopSequences responseMimeType responseSchema imageConfig"
    " responseModalities aspectRatio thinkingConfig thinkingBudget requests content taskType outputDimensionality"
    " candidateCount llm_runtime base_url"
)
WORDS = ("user", "model", "IMAGE", "STOP", "image/png", "ANY", "1:1", "OBJECT", "application/json", "AAAA", "text", "")


def json_of(names: list[str]) -> st.SearchStrategy[Any]:
    """JSON with the fields of this wire in the wrong and the right places."""
    leaf = st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.sampled_from(WORDS)
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=5),
        max_leaves=25,
    )


def shaped(names: list[str]) -> st.SearchStrategy[Any]:
    """The same, deep enough inside an answer or a request to be looked at."""
    inner = json_of(names)
    part = st.dictionaries(st.sampled_from(names), inner, max_size=4)
    parts = st.lists(part | inner, max_size=3)
    content = st.fixed_dictionaries({"parts": parts}, optional={"role": inner})
    return (
        st.fixed_dictionaries(
            {},
            optional={
                "candidates": st.lists(
                    st.fixed_dictionaries({"content": content}, optional={"finishReason": inner}), max_size=2
                ),
                "contents": st.lists(content | inner, max_size=3),
                "requests": st.lists(st.fixed_dictionaries({"content": content}), max_size=2),
                "generationConfig": part,
                "systemInstruction": content,
                "tools": st.lists(part, max_size=2),
                "usageMetadata": part,
                "error": part,
            },
        )
        | inner
    )


@given(
    pieces=st.lists(
        st.binary(max_size=40) | st.sampled_from((b"data: ", b"[", b"{", b"\r\n\r\n", b'{"error":')), max_size=12
    )
)
@settings(max_examples=40)
def test_any_bytes_end_in_one_terminal_event(pieces: list[bytes]) -> None:
    check_order(decode(lambda: CLIENT.stream_decoder(REQUEST), *pieces))


@given(chunks=st.lists(shaped(ANSWER_NAMES), max_size=4), framing=st.sampled_from(("sse", "array", "plain")))
@settings(max_examples=40)
def test_any_json_ends_in_one_terminal_event(chunks: list[Any], framing: str) -> None:
    """Wrong types, nulls, numbers out of range."""
    if framing == "sse":
        body = "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)
    else:
        body = json.dumps(chunks if framing == "array" else (chunks or [None])[0], indent=1)
    check_order(decode(lambda: CLIENT.stream_decoder(REQUEST), body.encode()))
    for request in (REQUEST, EmbeddingRequest(inputs=("a",))):
        events = CLIENT.decode_response(request, WireResponse(200, (), body.encode()))
        assert isinstance(events[-1], TERMINAL)


@given(body=shaped(ANSWER_NAMES), status=st.integers(300, 599))
@settings(max_examples=40)
def test_any_error_body_is_a_failure(body: Any, status: int) -> None:
    text = json.dumps(body).encode()
    assert CLIENT.decode_error(WireResponse(status, (), text)).upstream_status == status
    with suppress(ProtocolError):
        CLIENT.decode_models(text)


@given(
    body=shaped(REQUEST_NAMES),
    method=st.sampled_from(("generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents")),
)
@settings(max_examples=40)
def test_any_request_is_read_or_refused(body: Any, method: str) -> None:
    """And what is read can be said again, or is refused in its turn."""
    with suppress(BadRequestError, UnsupportedError):
        inbound = SERVER.decode_request(f"/v1beta/models/gemini-2.5-pro:{method}", json.dumps(body).encode())
        encoded(CLIENT, inbound.request, stream=inbound.stream)
