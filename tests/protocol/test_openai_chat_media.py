"""Embeddings, pictures and model lists on OpenAI's wire, both sides."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.whole import WholeBody
from llm_protocol.content import Image
from llm_protocol.dialect import ClientRequest, ModelInfo, RateLimits, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.errors import BadRequestError, LLMClientError, ProtocolError, UnsupportedError
from llm_protocol.events import Event, Failed, Finished
from llm_protocol.failures import FailureKind
from llm_protocol.model_facts import Capabilities
from llm_protocol.requests import EmbeddingRequest, ImageRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.anthropic import AnthropicServer
from llm_protocol.wires.cohere import Cohere
from llm_protocol.wires.gemini import Gemini
from llm_protocol.wires.openai_chat import CEREBRAS, COMPATIBLE, LOCAL, OPENAI, OpenAIChat, OpenAIChatServer
from support.adapting import adjusted, encoded, without_wire
from support.conversations import names, texts
from support.streams import check_order, fold

CLIENT, SERVER = OpenAIChat(), OpenAIChatServer()
TEXTS = EmbeddingRequest(model="m", inputs=("a", "b"))
PICTURE = ImageRequest(model="m", prompt="a cat")
PNG = b"\x89PNG\r\n"


def whole(request: Any, body: Any) -> list[Event]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    events = CLIENT.decode_response(request, WireResponse(200, (), raw))
    check_order(events)
    return events


def failure_of(request: Any, body: Any) -> FailureKind:
    [failed] = whole(request, body)
    assert isinstance(failed, Failed)
    return failed.failure.kind


def embeddings(body: Any) -> ClientRequest:
    return SERVER.decode_request("/v1/embeddings", json.dumps(body).encode())


def pictures(body: Any) -> ClientRequest:
    return SERVER.decode_request("/v1/images/generations", json.dumps(body).encode())


def answer(**fields: Any) -> LLMResponse:
    return LLMResponse(request_id="r", provider="p", model="m", timestamp=5.0, **fields)


# ---------------------------------------------------------------- embeddings


def test_an_embedding_request() -> None:
    """Base64 from OpenAI, half the bytes; nothing special from others."""
    request = EmbeddingRequest(model="m", inputs=("a",), dimensions=3, parameters=Parameters(user="u"))
    wire = encoded(CLIENT, request, stream=True)
    body = {"model": "m", "input": ["a"], "dimensions": 3, "user": "u"}
    assert wire.path == "/embeddings"
    assert json.loads(wire.body) == body | {"encoding_format": "base64"}
    assert json.loads(encoded(OpenAIChat(COMPATIBLE), request, stream=False).body) == body
    warm = msgspec.structs.replace(request, parameters=Parameters(temperature=0.0))
    assert b"temperature" not in encoded(CLIENT, warm, stream=False).body
    assert adjusted(CLIENT, warm) == [("temperature", "left_out", None)]


@pytest.mark.parametrize(
    ("given", "inputs", "sent"),
    [([1, 2], ((1, 2),), [[1, 2]]), ([[1, 2], [3]], ((1, 2), (3,)), [[1, 2], [3]])],
)
def test_token_ids_go_on_to_those_who_take_them(given: Any, inputs: Any, sent: Any) -> None:
    """Elsewhere they are refused by name: they mean nothing to another tokenizer."""
    request = embeddings({"model": "m", "input": given}).request
    assert isinstance(request, EmbeddingRequest)
    assert request.inputs == inputs
    assert json.loads(encoded(CLIENT, request, stream=False).body)["input"] == sent
    for other in (Cohere(), Gemini(), OpenAIChat(CEREBRAS), OpenAIChat(LOCAL)):
        with pytest.raises(UnsupportedError) as caught:
            other.adapt(request)
        assert caught.value.failure.param == "input"
        other.adapt(msgspec.structs.replace(request, inputs=("text",)))


def test_vectors_come_in_the_order_of_their_indices() -> None:
    """As numbers or base64, in any order."""
    packed = struct.pack("<2f", 0.5, -2.0)
    data = [{"index": 1, "embedding": [1, 2.5]}, {"index": 0, "embedding": "AAAAPwAAAMA="}]
    events = whole(TEXTS, {"data": data, "model": "m1", "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    response = fold(events)
    assert struct.unpack("<2f", packed) == response.embeddings[0] == (0.5, -2.0)
    assert response.embeddings[1] == (1.0, 2.5)
    assert (response.usage, response.model) == (Usage(input_tokens=4), "m1")
    assert events[-1] == Finished(reason=FinishReason.STOP)


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"embedding": [1]}],
        [{"embedding": [1]}, {"embedding": [1]}, {"embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"embedding": [1]}],
        [{"embedding": [1]}, {"embedding": "AAA="}],
        [{"embedding": [1]}, {"embedding": "?"}],
        [{"embedding": [1]}, {"embedding": ["1"]}],
        [{"embedding": [1]}, {"embedding": None}],
    ],
    ids=range(10),
)
def test_vectors_that_are_wrong_are_a_failure(data: Any) -> None:
    """Missing, too many, out of place, cut or not numbers: never a shorter list."""
    assert failure_of(TEXTS, {"data": data}) is FailureKind.PROTOCOL


@pytest.mark.parametrize("request_", [TEXTS, PICTURE], ids=["embedding", "image"])
def test_errors_in_200_and_no_answer_at_all(request_: Any) -> None:
    """Never an empty success."""
    assert failure_of(request_, {"error": {"message": "m", "code": "rate_limit_exceeded"}}) is FailureKind.RATE_LIMITED
    assert failure_of(request_, {"message": "m", "type": "t"}) is FailureKind.SERVER_ERROR
    for body in (b"", b"{}", b"<html>", b'{"data":null}', b'{"data":[', b"[" * 100_000):
        assert failure_of(request_, body) is FailureKind.PROTOCOL


def test_a_stream_decoder_gathers_what_is_never_streamed() -> None:
    """So that a caller need not know; bounded."""
    body = json.dumps({"data": [{"embedding": [1]}, {"embedding": [2]}]}).encode()
    decoder = CLIENT.stream_decoder(TEXTS)
    assert decoder.feed(body[:9]) + decoder.feed(body[9:]) == []
    assert decoder.end() == whole(TEXTS, body)
    assert decoder.feed(b"x") == decoder.end() == []
    big = WholeBody(CLIENT, TEXTS, max_bytes=8)
    fed = [big.feed(b"x") for _ in range(10)]
    assert [len(events) for events in fed] == [0] * 8 + [1, 0]
    assert isinstance(fed[8][0], Failed)
    assert fed[8][0].failure.kind is FailureKind.ANSWER_TOO_LARGE
    assert big.end() == []


def test_an_embedding_client() -> None:
    """One text or several, in the encoding that it wants; unknown fields travel on."""
    inbound = embeddings({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 2, "task": "x"})
    request = inbound.request
    assert isinstance(request, EmbeddingRequest)
    assert (request.inputs, request.dimensions) == (("a",), 2)
    assert request.parameters.extra == {"openai_chat": {"task": "x"}}
    response = answer(embeddings=(Embedding.of((0.5, -2.0)),), usage=Usage(input_tokens=3))
    body = json.loads(SERVER.encode_response(inbound, response))
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    vector = {"object": "embedding", "index": 0, "embedding": "AAAAPwAAAMA="}
    assert body == {"object": "list", "data": [vector], "model": "m", "usage": usage}
    plain = json.loads(SERVER.encode_response(embeddings({"input": ["a"]}), response))
    assert plain["data"][0]["embedding"] == [0.5, -2.0]


@pytest.mark.parametrize(
    ("body", "param", "error"),
    [
        ({"input": [1, "a"]}, "input", BadRequestError),
        ({"input": [[1, 2], "a"]}, "input", BadRequestError),
        ({"input": [[1, 2], []]}, "input", BadRequestError),
        ({"input": [[1, -2]]}, "input", BadRequestError),
        ({"input": [True]}, "input", BadRequestError),
        ({"input": 7}, "input", BadRequestError),
        ({}, "input", BadRequestError),
        ({"input": []}, "input", BadRequestError),
        ({"input": ""}, "input", BadRequestError),
        ({"input": ["", ""]}, "input", BadRequestError),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", BadRequestError),
        ({"input": "a", "dimensions": "2"}, "dimensions", BadRequestError),
        ({"input": "a", "stream": True}, "stream", UnsupportedError),
    ],
)
def test_embedding_requests_that_are_wrong(body: Any, param: str, error: type[LLMClientError]) -> None:
    """The failure names the field."""
    with pytest.raises(error) as caught:
        embeddings({"model": "m"} | body)
    assert caught.value.failure.param == param


floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    st.lists(st.lists(floats, min_size=1, max_size=5).map(tuple), min_size=1, max_size=4),
    st.sampled_from(("float", "base64")),
)
def test_vectors_come_back(vectors: list[tuple[float, ...]], form: str) -> None:
    """``decode(encode(x)) == x``, in both encodings."""
    inputs = ["x"] * len(vectors)
    inbound = embeddings({"model": "m", "input": inputs, "encoding_format": form})
    body = SERVER.encode_response(
        inbound, answer(embeddings=tuple(map(Embedding.of, vectors)), usage=Usage(input_tokens=1))
    )
    assert fold(whole(inbound.request, body)).embeddings == tuple(vectors)


@given(st.lists(texts, min_size=1, max_size=3), st.none() | st.integers(1, 9), st.none() | names)
def test_embedding_requests_come_back(inputs: list[str], dimensions: int | None, user: str | None) -> None:
    """``decode(encode(x)) == x``."""
    request = EmbeddingRequest(model="m", inputs=tuple(inputs), dimensions=dimensions, parameters=Parameters(user=user))
    wire = encoded(CLIENT, request, stream=False)
    assert same_request(SERVER.decode_request(wire.path, wire.body).request, request)


def same_request(one: Any, other: Any) -> bool:
    ours = {"request_id": "", "timestamp": 0.0}
    return bool(msgspec.structs.replace(without_wire(one), **ours) == msgspec.structs.replace(other, **ours))


# ---------------------------------------------------------------- pictures


def test_a_picture_request() -> None:
    """What is set, and no ``response_format``, which GPT image models refuse."""
    request = ImageRequest(
        model="m", prompt="p", n=2, size="1x1", quality="low", output_format="webp", background="opaque"
    )
    wire = encoded(CLIENT, request, stream=True)
    assert wire.path == "/images/generations"
    assert json.loads(wire.body) == {
        "model": "m", "prompt": "p", "n": 2, "size": "1x1", "quality": "low", "output_format": "webp",
        "background": "opaque",
    }  # fmt: skip
    assert json.loads(encoded(CLIENT, PICTURE, stream=False).body) == {"model": "m", "prompt": "a cat"}


def test_pictures_as_bytes_and_by_url() -> None:
    """The media type is the answer's, the request's, or what the bytes tell."""
    jpeg = "/9j/AA=="
    body: dict[str, Any] = {"data": [{"b64_json": "iVBORw0K"}, {"url": "https://x/y"}, {"b64_json": jpeg}]}
    body["usage"] = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}
    response = fold(whole(PICTURE, body))
    assert response.images == (
        Image(data=PNG, media_type="image/png"),
        Image(url="https://x/y"),
        Image(data=b"\xff\xd8\xff\x00", media_type="image/jpeg"),
    )
    assert response.usage == Usage(input_tokens=3, output_tokens=9)
    told = fold(whole(PICTURE, {"data": [{"b64_json": "iVBORw0K"}], "output_format": "webp"}))
    assert told.images[0].media_type == "image/webp"


@pytest.mark.parametrize("data", [[], [{}], [{"b64_json": "?"}], [{"url": 7}], {}], ids=range(5))
def test_pictures_that_are_wrong_are_a_failure(data: Any) -> None:
    """Never an empty success."""
    assert failure_of(PICTURE, {"data": data}) is FailureKind.PROTOCOL


@pytest.mark.parametrize(
    ("body", "param", "error"),
    [
        ({}, "prompt", BadRequestError),
        ({"prompt": ["a"]}, "prompt", BadRequestError),
        ({"prompt": "a", "n": 0}, "n", BadRequestError),
        ({"prompt": "a", "size": 7}, "size", BadRequestError),
        ({"prompt": "a", "stream": True}, "stream", UnsupportedError),
        ({"prompt": "a", "partial_images": 2}, "stream", UnsupportedError),
    ],
)
def test_picture_requests_that_are_wrong(body: Any, param: str, error: type[LLMClientError]) -> None:
    """The failure names the field."""
    with pytest.raises(error) as caught:
        pictures({"model": "m"} | body)
    assert caught.value.failure.param == param


optional = st.none() | names


@given(st.builds(ImageRequest, model=names, prompt=texts, n=st.integers(1, 4), size=optional, quality=optional,
                 output_format=optional, background=optional))  # fmt: skip
def test_picture_requests_come_back(request_: ImageRequest) -> None:
    """``decode(encode(x)) == x``."""
    wire = encoded(CLIENT, request_, stream=False)
    assert same_request(SERVER.decode_request(wire.path, wire.body).request, request_)


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=3), st.sampled_from(("image/png", "image/webp"))
)
def test_pictures_come_back(data: list[bytes], media_type: str) -> None:
    """``decode(encode(x)) == x``."""
    output = tuple(Image(data=item, media_type=media_type) for item in data)
    usage = Usage(input_tokens=1, output_tokens=2)
    body = SERVER.encode_response(pictures({"prompt": "p"}), answer(output=output, usage=usage))
    back = fold(whole(PICTURE, body))
    assert (back.output, back.usage) == (output, usage)


# ---------------------------------------------------------------- models and limits


def test_model_lists_come_back() -> None:
    """The context window under our name for it, and nothing that is not known."""
    models = (
        ModelInfo(id="a", created=5, owned_by="o", context_window=9, max_output_tokens=4),
        ModelInfo(id="b"),
    )
    body = SERVER.encode_models(models)
    assert CLIENT.decode_models(body).models == models
    assert json.loads(body)["data"][1] == {"id": "b", "object": "model", "created": 0, "owned_by": ""}
    assert CLIENT.models_request(None).path == "/models"


_TRAINED = {"meta": {"n_ctx_train": 9}}


@pytest.mark.parametrize(
    "more",
    [{"max_model_len": 9}, {"context_window": 9}, {"context_length": 9}, {"max_context_length": 9}, _TRAINED],
    ids=["vllm", "groq", "openrouter", "mistral", "llama.cpp"],
)
def test_the_context_window_under_any_name(more: Any) -> None:
    """Compatible servers name it differently; ``created`` may be missing or a fraction."""
    page = CLIENT.decode_models(json.dumps({"data": [{"id": "a", "created": 1.5} | more]}).encode())
    assert page.models == (ModelInfo(id="a", created=1, context_window=9),)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, None),
        ({"architecture": {"input_modalities": ["text"]}}, Capabilities(vision=False, documents=False, audio=False)),
        (
            {"architecture": {"input_modalities": ["image", "file", 3]}, "supported_parameters": ["seed"]},
            Capabilities(vision=True, documents=True, audio=False, tools=False),
        ),
        ({"architecture": {"input_modalities": "text"}}, None),
        ({"capabilities": {"vision": True}}, Capabilities(vision=True)),
        ({"capabilities": {"vision": False, "function_calling": False}}, Capabilities(vision=False, tools=False)),
        ({"capabilities": ["completion"]}, None),
    ],
    ids=["nothing", "openrouter-blind", "openrouter", "nonsense", "mistral", "mistral-blind", "others"],
)
def test_what_a_model_takes_as_openrouter_and_mistral_list_it(more: Any, said: Capabilities | None) -> None:
    page = CLIENT.decode_models(json.dumps({"data": [{"id": "a"} | more]}).encode())
    assert page.models == (ModelInfo(id="a", capabilities=said),)


@pytest.mark.parametrize("nonsense", [-1, 253_402_300_800, 1e308, 10**25])
def test_a_model_of_no_date_in_the_calendar_has_none(nonsense: float) -> None:
    """Anthropic's clients are told a date, and one such model broke the list of all."""
    page = CLIENT.decode_models(json.dumps({"data": [{"id": "a", "created": nonsense}]}).encode())
    assert page.models == (ModelInfo(id="a"),)
    assert b"1970" in AnthropicServer().encode_models(page.models)


def test_model_lists_that_are_none() -> None:
    """An empty server says null; anything else is an error with one line."""
    assert CLIENT.decode_models(b'{"object":"list","data":null}').models == ()
    for body in (b"", b"[]", b"{}", b'{"data":[{}]}', b"<html>"):
        with pytest.raises(ProtocolError, match="model list"):
            CLIENT.decode_models(body)


def test_limits_from_headers() -> None:
    """Duration strings at OpenAI, float seconds by the day and minute at Cerebras; none is none."""
    openai = (("x-ratelimit-remaining-requests", "7"), ("x-ratelimit-reset-tokens", "1m26.4s"))
    assert OpenAIChat(OPENAI).rate_limits(openai) == RateLimits(
        requests_remaining=7, tokens_reset_s=86.4, per_model=True
    )
    day = (("x-ratelimit-limit-requests-day", "100"), ("x-ratelimit-reset-tokens-minute", "4.69"))
    assert OpenAIChat(CEREBRAS).rate_limits(day) == RateLimits(requests_limit=100, tokens_reset_s=4.69)
    assert OpenAIChat(OPENAI).rate_limits(day) is None
    assert OpenAIChat(OPENAI).rate_limits((("x-ratelimit-limit-requests", "many"),)) is None
