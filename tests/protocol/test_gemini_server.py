"""The Gemini dialect, server side, and both sides against each other: what one says, the other understands."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_protocol.codec.json_array import JsonArrayEncoder
from llm_protocol.content import (
    Audio,
    HostedTool,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.errors import BadRequestError, LLMClientError, UnsupportedError
from llm_protocol.events import Event, Failed, ReasoningDelta, Started, TextDelta
from llm_protocol.failures import RULES, Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.requests import ChatRequest, EmbeddingRequest, ImageRequest, Parameters
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.gemini.content import json_schema
from support import conversations as given_
from support.adapting import encoded, without_wire
from support.streams import decode, encode, fold, same_answer

CLIENT = Gemini()
SERVER = GeminiServer()

PATH = "/v1beta/models/m1:generateContent"
TURN = {"role": "user", "parts": [{"text": "hi"}]}
INBOUND = ClientRequest(ChatRequest(model="m1", messages=(Message.of("user", "hi"),)))


def read(path: str = PATH, **body: Any) -> ClientRequest:
    """A request with the fields ``body``, and one turn if it says none."""
    return SERVER.decode_request(path, json.dumps({"contents": [TURN], **body}).encode())


def read_chat(**body: Any) -> ChatRequest:
    request = read(**body).request
    assert isinstance(request, ChatRequest)
    return request


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("path", "model", "stream", "array"),
    [
        ("/v1beta/models/m1:generateContent", "m1", False, False),
        ("/v1/models/a/b:8b:streamGenerateContent?alt=sse", "a/b:8b", True, False),
        ("/v1beta/models/a%2Fb:streamGenerateContent", "a/b", True, True),
        ("/models/m1:streamGenerateContent?alt=sse&key=k", "m1", True, False),
        ("/v1beta/tunedModels/t:generateContent", "tunedModels/t", False, False),
    ],
)
def test_the_path_says_model_method_and_framing(path: str, model: str, stream: bool, array: bool) -> None:
    inbound = read(path)
    assert (inbound.request.model, inbound.stream, inbound.json_array) == (model, stream, array)


def test_other_paths_are_refused() -> None:
    for path in ("/v1beta/models", "/v1beta/models/m1", "/v1beta/models/m1:predict", "/v9/x/m:generateContent"):
        with pytest.raises((BadRequestError, UnsupportedError)):
            read(path)


def test_names_are_taken_in_either_case_and_null_counts_as_absent() -> None:
    request = read_chat(
        system_instruction={"parts": {"text": "S"}},
        generation_config={"max_output_tokens": 5, "thinking_config": {"include_thoughts": True}, "top_k": 40.0},
        contents=[{"parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}, "text": None}]}],
        tool_config=None,
    )
    assert request.messages == (
        Message.of("system", "S"),
        Message("user", (Image(data=b"\0\0\0", media_type="image/png"),)),
    )
    assert request.parameters == Parameters(max_output_tokens=5, top_k=40, reasoning_summary="auto", wire="gemini")


def test_results_without_ids_find_their_calls_by_name_and_order() -> None:
    def call(name: str, **more: Any) -> Any:
        return {"functionCall": {"name": name, "args": {}, **more}}

    def result(name: str, value: Any, **more: Any) -> Any:
        return {"functionResponse": {"name": name, "response": value, **more}}

    messages = read_chat(
        contents=[
            TURN,
            {"role": "model", "parts": [call("f"), call("g"), call("f"), call("f", id="x")]},
            {
                "role": "user",
                "parts": [
                    result("f", {"output": "1"}, id="x"),
                    result("f", {"output": "2"}),
                    result("g", {"error": "no"}),
                    result("f", {"a": 1}),
                    {"text": "and?"},
                ],
            },
        ]
    ).messages
    first, other, again, named = (part.id for part in messages[1].content if isinstance(part, ToolCall))
    assert named == "x"
    assert len({first, other, again, named}) == 4
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    results = [part for part in messages[2].content if isinstance(part, ToolResult)]
    assert [part.call_id for part in results] == ["x", first, other, again]
    assert [part.text for part in results] == ["1", "2", "no", '{"a":1}']
    assert [part.is_error for part in results] == [False, False, True, False]


def test_the_chunks_of_an_answer_that_the_sdk_kept_apart_are_one_turn_again() -> None:
    chunks: list[Any] = [
        [{"text": "h", "thought": True}],
        [{"text": "m", "thought": True}],
        [{"text": "", "thought": True, "thoughtSignature": "S"}],
        [{"text": "a"}],
        [{"text": "b"}, {"functionCall": {"name": "f", "id": "x"}}],
        [],
        [{"text": "c", "thoughtSignature": "T"}],
        [{"text": "d"}],
    ]
    messages = read_chat(contents=[TURN, *({"role": "model", "parts": parts} for parts in chunks), TURN]).messages
    assert messages[1:2] == (
        Message(
            "assistant",
            (
                Reasoning(text="hm", signature="S", dialect="gemini"),
                Text("ab"),
                ToolCall(id="x", name="f"),
                Text("c", "T"),
                Text("d"),
            ),
        ),
    )
    assert [message.role for message in messages] == ["user", "assistant", "user"]


def test_parts_of_other_kinds_are_kept_for_gemini_upstream() -> None:
    sound = {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}
    film = {"fileData": {"fileUri": "https://x/v.mp4", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1}}
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "mediaResolution": {"level": "LOW"}}
    request = read_chat(contents=[{"role": "user", "parts": [sound, film, picture]}])
    first, second, third = request.messages[0].content
    assert (first, second) == (Audio(base64="AAAA", media_type="audio/wav"), Opaque(dialect="gemini", value=film))
    assert isinstance(third, Image)
    again = encoded(CLIENT, request, stream=False)
    assert json.loads(again.body)["contents"][0]["parts"] == [sound, film, picture]


def test_googles_schemas_become_json_schemas() -> None:
    given_schema = {
        "type": "OBJECT",
        "properties": {"type": {"type": "STRING", "nullable": True}, "n": {"type": "ARRAY", "min_items": "1"}},
        "any_of": [{"type": "INTEGER"}],
    }
    schema = {
        "type": "object",
        "properties": {"type": {"type": ["string", "null"]}, "n": {"type": "array", "minItems": 1}},
        "anyOf": [{"type": "integer"}],
    }
    declared = {"name": "f", "description": "F", "parameters": given_schema, "behavior": "BLOCKING"}
    request = read_chat(
        tools=[{"functionDeclarations": [declared], "googleSearch": {}}],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        generationConfig={"responseMimeType": "application/json", "responseSchema": given_schema},
    )
    assert request.tools == (
        Tool(name="f", description="F", parameters=schema, extra={"gemini": {"behavior": "BLOCKING"}}),
        HostedTool(dialect="gemini", value={"googleSearch": {}}),
    )
    assert request.tool_choice == ToolChoice("named", "f")
    assert request.response_format == ResponseFormat(type="json_schema", schema=schema)


def test_what_may_be_null_may_be_null_elsewhere() -> None:
    """Google's SDK makes these of ``Optional[Union[...]]`` and of optional enumerations."""
    either = {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}], "nullable": True}
    one = {"type": "STRING", "enum": ["a"], "nullable": True}
    assert json_schema({"type": "OBJECT", "properties": {"e": either, "o": one}}) == {
        "type": "object",
        "properties": {
            "e": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
            "o": {"type": ["string", "null"], "enum": ["a", None]},
        },
    }


def test_what_has_no_canonical_name_goes_on_in_extra() -> None:
    config = {"temperature": 1, "mediaResolution": "LOW", "thinkingConfig": {"thinkingBudget": -1}}
    calling = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}}
    request = read_chat(safetySettings=[{"a": 1}], cachedContent="c/1", generationConfig=config, toolConfig=calling)
    assert request.tool_choice == ToolChoice("required")
    assert request.parameters.temperature == 1.0
    body = json.loads(encoded(CLIENT, request, stream=False).body)
    assert body["safetySettings"] == [{"a": 1}]
    assert body["cachedContent"] == "c/1"
    assert body["generationConfig"] == config
    assert body["toolConfig"] == calling


def test_the_runtimes_own_object_is_handed_on_undecoded() -> None:
    assert read().policy is None
    policy = read(llm_runtime={"cache": "off"}).policy
    assert policy is not None
    assert json.loads(bytes(policy)) == {"cache": "off"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": [{"role": "assistant", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [3]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [{"parts": [{"inlineData": {"data": "?"}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        ({"systemInstruction": "be brief"}, "systemInstruction"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"generationConfig": {"maxOutputTokens": True}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"base_url": "http://evil"}}, "generationConfig.baseUrl"),
        (
            {"generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"imageSize": "9K"}}},
            "generationConfig.imageConfig.imageSize",
        ),
        (
            {"generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"aspectRatio": "1:9"}}},
            "generationConfig.imageConfig.aspectRatio",
        ),
        ({"api_key": "k"}, "apiKey"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOMETIMES"}}}, "toolConfig.functionCallingConfig.mode"),
    ],
)
def test_a_wrong_field_is_named(body: Any, param: str) -> None:
    with pytest.raises(LLMClientError) as caught:
        read(**body)
    assert caught.value.failure.param == param
    assert caught.value.failure.kind in (FailureKind.BAD_REQUEST, FailureKind.UNSUPPORTED)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":' * 50_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        SERVER.decode_request(PATH, body)


def test_a_picture_from_one_text_is_a_picture_request() -> None:
    config = {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}}
    request = read(generationConfig=config).request
    assert isinstance(request, ImageRequest)
    assert (request.prompt, request.size) == ("hi", "2688x1512")
    body = json.loads(encoded(CLIENT, request, stream=False).body)
    assert body == {"contents": [TURN], "generationConfig": config}
    talk = read_chat(contents=[TURN, {"role": "model", "parts": [{"text": "a"}]}, TURN], generationConfig=config)
    assert json.loads(encoded(CLIENT, talk, stream=False).body)["generationConfig"] == config


def test_one_text_is_embedded_in_the_form_for_one() -> None:
    inbound = SERVER.decode_request("/v1/models/e:embedContent", b'{"content":{"parts":[{"text":"a"}]},"title":"T"}')
    assert inbound.request == msgspec.structs.replace(
        inbound.request,
        model="e",
        inputs=("a",),
        parameters=Parameters(wire="gemini", extra={"gemini": {"title": "T"}}),
    )
    answer = LLMResponse(request_id="", provider="", model="e", embeddings=(Embedding.of((1.0, 2.0)),))
    assert json.loads(SERVER.encode_response(inbound, answer)) == {"embedding": {"values": [1.0, 2.0]}}


@pytest.mark.parametrize("parts", [[], [{"text": ""}]])
def test_an_empty_text_is_not_embedded(parts: list[Any]) -> None:
    with pytest.raises(BadRequestError, match=r"content\.parts is empty") as caught:
        SERVER.decode_request("/v1/models/e:embedContent", json.dumps({"content": {"parts": parts}}).encode())
    assert caught.value.failure.param == "content.parts"


def test_a_batch_must_ask_the_same_of_all_its_texts() -> None:
    requests = [{"content": {"parts": [{"text": "a"}]}, "taskType": task} for task in ("CLUSTERING", "CLASSIFICATION")]
    with pytest.raises(UnsupportedError):
        SERVER.decode_request("/v1/models/e:batchEmbedContents", json.dumps({"requests": requests}).encode())


# ---------------------------------------------------------------- answers


def answer(*parts: Part, **fields: Any) -> LLMResponse:
    text = "".join(part.text for part in parts if isinstance(part, Text))
    base = {"request_id": "r", "response_id": "id", "provider": "p", "model": "m1", "finish_reason": FinishReason.STOP}
    return LLMResponse(**{**base, "content": text, "output": parts, **fields})


def test_what_gemini_has_no_word_for_is_left_out_or_told_otherwise() -> None:
    whole = answer(Refusal("no"), Opaque(dialect="anthropic", value={"x": 1}), Image(url="https://x/y.png"))
    candidate = json.loads(SERVER.encode_response(INBOUND, whole))["candidates"][0]
    assert candidate["content"]["parts"] == [{"text": "no"}, {"fileData": {"fileUri": "https://x/y.png"}}]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_without_an_object_is_told_as_malformed(streamed: bool) -> None:
    """Gemini's clients cannot be given half a call, and it is never made up."""
    broken = answer(ToolCall(id="c", name="f", arguments='{"a":'), finish_reason=FinishReason.TOOL_CALLS)
    if streamed:
        body = encode(SERVER.response_encoder(INBOUND, "id"), broken).decode()
        chunks = [json.loads(line[5:]) for line in body.splitlines() if line]
    else:
        chunks = [json.loads(SERVER.encode_response(INBOUND, broken))]
    assert [chunk["candidates"][0] for chunk in chunks] == [
        {"content": {"role": "model"}, "finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}
    ]


@pytest.mark.parametrize(
    "thought",
    [
        Reasoning(text="hm", signature="Eq+/=", dialect="anthropic"),
        Reasoning(text="hm", encrypted="gAAA", id="rs_1", dialect="openai_responses"),
        Reasoning(encrypted="redacted", dialect="anthropic"),
        Reasoning(text="hm", dialect="openai_chat"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_another_vendors_reasoning_comes_back_whole_through_googles_sdk(thought: Reasoning, streamed: bool) -> None:
    """The SDK takes the signature for base64 and writes it again, with the URL-safe letters."""
    whole = answer(thought, ToolCall(id="c", name="f"))
    if streamed:
        body = encode(SERVER.response_encoder(INBOUND, "id"), whole, piece=1).decode()
        chunks = [json.loads(line[5:]) for line in body.splitlines() if line]
    else:
        chunks = [json.loads(SERVER.encode_response(INBOUND, whole))]
    contents = [chunk["candidates"][0]["content"] for chunk in chunks]
    for part in (part for content in contents for part in content.get("parts", ())):
        if "thoughtSignature" in part:
            raw = base64.b64decode(part["thoughtSignature"])
            part["thoughtSignature"] = base64.urlsafe_b64encode(raw).decode()
    assert read_chat(contents=[TURN, *contents, TURN]).messages[1].content[0] == thought


def test_a_packed_signature_that_was_tampered_with_is_dropped() -> None:
    part = {"text": "hm", "thought": True, "thoughtSignature": base64.b64encode(b"llm-runtime:{oops").decode()}
    message = read_chat(contents=[TURN, {"role": "model", "parts": [part]}]).messages[1]
    assert message.content == (Reasoning(text="hm", dialect="gemini"),)


def test_adjacent_deltas_come_as_one_frame() -> None:
    encoder = SERVER.response_encoder(INBOUND, "id")
    assert encoder.start() == []
    deltas: list[Event] = [
        Started(model="m2"),
        TextDelta(0, "a"),
        TextDelta(0, "b"),
        ReasoningDelta(1, "c"),
        TextDelta(0, "d"),
    ]
    parts = [json.loads(frame.data)["candidates"][0]["content"]["parts"] for frame in encoder.encode(deltas)]
    assert parts == [[{"text": "ab"}], [{"text": "c", "thought": True}], [{"text": "d"}]]


@pytest.mark.parametrize("part", [Text("a"), Reasoning(text="a", dialect="gemini")], ids=["text", "thought"])
def test_what_a_part_has_beside_its_text_comes_behind_it(part: Text | Reasoning) -> None:
    part = msgspec.structs.replace(part, extra={"gemini": {"partMetadata": {"k": "v"}}})
    encoder = SERVER.response_encoder(INBOUND, "id")
    frames = [json.loads(frame.data) for frame in encoder.encode(unfold(answer(part)))]
    parts = [each["candidates"][0]["content"].get("parts", []) for each in frames]
    thought = {"thought": True} if isinstance(part, Reasoning) else {}
    parts[1][0].pop("thoughtSignature", None)
    assert parts[:2] == [[{"text": "a", **thought}], [{"partMetadata": {"k": "v"}, "text": "", **thought}]]
    (whole,) = json.loads(SERVER.encode_response(INBOUND, answer(part)))["candidates"][0]["content"]["parts"]
    whole.pop("thoughtSignature", None)
    assert whole == {"partMetadata": {"k": "v"}, "text": "a", **thought}


def test_a_failure_in_a_stream_is_an_error_object() -> None:
    failed = Failed(failure=Failure(kind=FailureKind.OVERLOADED, message="busy"))
    (frame,) = SERVER.response_encoder(INBOUND, "id").encode([failed])
    error = json.loads(frame.data)["error"]
    assert (error["code"], error["status"], error["message"]) == (503, "UNAVAILABLE", "busy")


def test_frames_as_a_json_array() -> None:
    encoder, framing = SERVER.response_encoder(INBOUND, "id"), JsonArrayEncoder()
    body = b"".join(framing.encode(encoder.encode([event])) for event in unfold(answer(Text("a"), Text("b"))))
    assert json.loads(body + framing.end())[0]["candidates"][0]["content"]["parts"] == [{"text": "a"}]
    assert json.loads(JsonArrayEncoder().end()) == []


def test_models_are_listed() -> None:
    body = SERVER.encode_models((ModelInfo(id="a/b", context_window=5), ModelInfo(id="c")))
    page = CLIENT.decode_models(body)
    assert [(model.id, model.context_window) for model in page.models] == [("a/b", 5), ("c", None)]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_is_understood_by_our_own_client(kind: FailureKind) -> None:
    """One runtime behind another knows what went wrong there; kinds that share a code are told as one."""
    failure = Failure(kind=kind, message="words", retry_after=2.5, param="contents")
    wire = SERVER.encode_error(failure)
    assert wire.status == failure.rule.status
    found = CLIENT.decode_error(wire)
    assert RULES[found.kind].code == failure.rule.code
    assert found.message == "words"
    assert found.retry_after == (None if kind is FailureKind.QUOTA else 2.5)


# ---------------------------------------------------------------- both ways

MODELS = st.sampled_from(("gemini-2.5-flash", "gemini-2.0-flash", "gemini-3.6-pro", "a/b"))
THOUGHTS = st.builds(Reasoning, text=given_.texts, signature=st.none() | given_.tokens, dialect=st.just("gemini"))
NAMELESS = given_.pdfs.map(lambda pdf: msgspec.structs.replace(pdf, title=None))
SAMPLING: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 40),
        "max_output_tokens": st.integers(1, 10_000),
        "stop": st.lists(given_.texts, min_size=1, max_size=3).map(tuple),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "seed": st.integers(0, 2**31),
        "reasoning_summary": st.just("auto"),
        "reasoning_budget": st.integers(0, 10_000),
        "extra": st.just({"gemini": {"safetySettings": [], "generationConfig": {"mediaResolution": "X"}}}),
    },
)
FORMATS = (
    st.none()
    | st.just(ResponseFormat(type="json"))
    | given_.schemas.map(lambda schema: ResponseFormat(type="json_schema", schema=schema))
)


@st.composite
def chats(draw: st.DrawFn) -> ChatRequest:
    """Requests in the form in which the server side gives them back."""
    model = draw(MODELS)
    messages = tuple(normal(message) for message in draw(given_.conversations(reasoning=THOUGHTS, media=NAMELESS)))
    if model in ("gemini-3.6-pro", "a/b"):
        messages = tuple(map(signed, messages))
    tools = tuple(draw(st.lists(given_.tools, max_size=2)))
    return ChatRequest(
        model=model,
        messages=named(messages),
        tools=tools,
        tool_choice=draw(st.none() | given_.tool_choices | st.just(ToolChoice("named", "f"))),
        response_format=draw(FORMATS),
        parameters=Parameters(**draw(SAMPLING)),
    )


def normal(message: Message) -> Message:
    """A result's texts are one text, and its pictures follow."""
    return Message(message.role, tuple(joined(p) if isinstance(p, ToolResult) else p for p in message.content))


def joined(result: ToolResult) -> ToolResult:
    pictures = [part for part in result.content if not isinstance(part, Text)]
    text = (Text(result.text),) if result.text else ()
    return msgspec.structs.replace(result, content=(*text, *pictures))


def signed(message: Message) -> Message:
    """Gemini 3 wants a signature on a turn's first call."""
    parts = list(message.content)
    at = next((at for at, part in enumerate(parts) if isinstance(part, ToolCall)), None)
    if at is not None:
        parts[at] = msgspec.structs.replace(parts[at], signature="S")
    return Message(message.role, tuple(parts))


def named(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Results bear the names of their functions."""
    names = {part.id: part.name for message in messages for part in message.content if isinstance(part, ToolCall)}

    def name(part: Part) -> Part:
        return msgspec.structs.replace(part, name=names[part.call_id]) if isinstance(part, ToolResult) else part

    return tuple(Message(message.role, tuple(map(name, message.content))) for message in messages)


def same(request: Any, other: Any) -> bool:
    ours = {"request_id": "", "timestamp": 0.0}
    return bool(msgspec.structs.replace(without_wire(request), **ours) == msgspec.structs.replace(other, **ours))


@given(request=chats(), stream=st.booleans())
@settings(max_examples=60)
def test_a_request_said_and_read_again_is_the_same(request: ChatRequest, stream: bool) -> None:
    wire = CLIENT.encode_request(request, stream=stream)
    inbound = SERVER.decode_request(wire.path, wire.body)
    assert same(inbound.request, request)
    assert inbound.stream is stream
    assert not inbound.json_array


@given(
    texts=st.lists(given_.texts, min_size=1, max_size=4).map(tuple),
    dimensions=st.none() | st.integers(1, 3072),
    input_type=st.none() | st.sampled_from(("search_query", "search_document", "clustering")),
)
def test_an_embedding_request_said_and_read_again_is_the_same(texts: Any, dimensions: Any, input_type: Any) -> None:
    request = EmbeddingRequest(model="e", inputs=texts, dimensions=dimensions, input_type=input_type)
    wire = encoded(CLIENT, request, stream=True)
    inbound = SERVER.decode_request(wire.path, wire.body)
    assert same(inbound.request, request)
    vectors = tuple(Embedding.of((float(at), 0.5)) for at in range(len(texts)))
    said = LLMResponse(
        request_id="",
        provider="",
        model="e",
        embeddings=vectors,
        usage=Usage(input_tokens=3),
        finish_reason=FinishReason.STOP,
    )
    events = CLIENT.decode_response(request, WireResponse(200, (), SERVER.encode_response(inbound, said)))
    assert fold(events).embeddings == vectors
    assert fold(events).usage == Usage(input_tokens=3)


@st.composite
def answers(draw: st.DrawFn) -> LLMResponse:
    """Answers in the form in which the client side reads them: no two texts without a signature side by side."""
    text = st.builds(Text, given_.texts, st.none() | given_.tokens)
    picture = st.builds(Image, data=st.binary(min_size=1), media_type=st.just("image/png"), signature=st.none())
    opaque = st.just(Opaque(dialect="gemini", value={"executableCode": {"code": "1"}}))
    call = st.builds(
        ToolCall,
        id=st.integers(0, 10**9).map(lambda at: f"c{at}"),
        name=given_.names,
        arguments=given_.arguments,
        signature=st.none() | given_.tokens,
    )
    drawn = draw(st.lists(st.one_of(text, THOUGHTS, picture, opaque, call), max_size=6))
    parts: list[Part] = []
    for part in drawn:
        if not parts or not merges(parts[-1], part):
            parts.append(part)
    calls = any(isinstance(part, ToolCall) for part in parts)
    reasoning = draw(st.integers(0, 50))
    ends = [("STOP", FinishReason.TOOL_CALLS if calls else FinishReason.STOP), ("MAX_TOKENS", FinishReason.LENGTH)]
    ends += [("NO_IMAGE", FinishReason.ERROR), ("SPII", FinishReason.CONTENT_FILTER)]
    raw, reason = draw(st.sampled_from(ends))
    usage = Usage(
        input_tokens=draw(st.integers(5, 99)),
        output_tokens=reasoning + draw(st.integers(0, 99)),
        cached_tokens=draw(st.integers(0, 5)),
        reasoning_tokens=reasoning,
        image_tokens=draw(st.integers(0, 9)),
    )
    return answer(*parts, finish_reason=reason, raw_finish_reason=raw, usage=usage, upstream_id="id")


def merges(one: Part, other: Part) -> bool:
    """Whether Gemini's wire cannot tell two parts from one."""
    return type(one) is type(other) and isinstance(one, Text | Reasoning) and one.signature is None


@given(said=answers())
@settings(max_examples=60)
def test_a_whole_answer_said_and_read_again_is_the_same(said: LLMResponse) -> None:
    body = SERVER.encode_response(INBOUND, said)
    read_again = fold(CLIENT.decode_response(INBOUND.request, WireResponse(200, (), body)))
    assert same_answer(read_again, said)


@given(said=answers(), piece=st.none() | st.integers(1, 3), data=st.data())
@settings(max_examples=60)
def test_a_streamed_answer_said_and_read_again_is_the_same(said: LLMResponse, piece: int | None, data: Any) -> None:
    body = encode(SERVER.response_encoder(INBOUND, "id"), said, piece=piece)
    at = data.draw(st.integers(0, len(body)))
    events = decode(lambda: CLIENT.stream_decoder(INBOUND.request), body[:at], body[at:])
    assert same_answer(fold(events), said)
