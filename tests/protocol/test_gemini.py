"""The Gemini dialect, client side: what is asked, how streams and errors are read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llm_protocol.codec.json import WireError
from llm_protocol.codec.json_array import JsonArrayDecoder
from llm_protocol.content import (
    HostedTool,
    Image,
    Message,
    Opaque,
    Reasoning,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.dialect import WireResponse
from llm_protocol.embedding import Embedding
from llm_protocol.errors import BadRequestError, ProtocolError, UnsupportedError
from llm_protocol.events import Failed, Finished, ItemDone, TextDelta, UsageReported
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest, ImageRequest, Parameters
from llm_protocol.response import FinishReason
from llm_protocol.wires.anthropic import Anthropic
from llm_protocol.wires.gemini import Gemini
from support.adapting import adjusted, encoded
from support.streams import check_all_splits, check_order, decode, fold

CLIENT = Gemini()

HI = Message.of("user", "hi")
REQUEST = ChatRequest(model="gemini-2.5-flash", messages=(HI,))


def make() -> Any:
    return CLIENT.stream_decoder(REQUEST)


def chat(*messages: Message, model: str = "gemini-2.5-flash", **fields: Any) -> Any:
    """The body for a chat."""
    wire = encoded(CLIENT, ChatRequest(model=model, messages=messages or (HI,), **fields), stream=False)
    return json.loads(wire.body)


def config(model: str = "gemini-2.5-flash", **parameters: Any) -> Any:
    """The ``generationConfig`` that parameters make."""
    return chat(model=model, parameters=Parameters(**parameters)).get("generationConfig")


def chunk(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk, as Gemini writes it."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1", **more}


def sse(*chunks: Any) -> bytes:
    """A stream with the line ends that Gemini uses."""
    return b"".join(b"data: " + json.dumps(c).encode() + b"\r\n\r\n" for c in chunks)


# ---------------------------------------------------------------- requests


def test_the_model_stands_escaped_in_the_path_and_the_key_in_a_header() -> None:
    wire = encoded(CLIENT, ChatRequest(model="models/a b/c?d", messages=(HI,)), stream=True)
    assert wire.path == "/v1beta/models/a%20b%2Fc%3Fd:streamGenerateContent?alt=sse"
    assert encoded(CLIENT, ChatRequest(model="tunedModels/t1", messages=(HI,)), stream=False).path == (
        "/v1beta/tunedModels/t1:generateContent"
    )
    assert CLIENT.auth_headers("k") == (("x-goog-api-key", "k"),)


def test_roles_system_prompts_and_pictures() -> None:
    body = chat(
        Message.of("system", "Be brief."),
        Message("user", (Text("see"), Image(data=b"\x89PNG", media_type="image/png"))),
        Message.of("assistant", "yes"),
        Message.of("developer", "In French."),
        Message("user", (Image(url="https://x/y.png"), Image(url="data:image/gif;base64,R0lG"))),
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "In French."}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "see"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}]},
        {"role": "model", "parts": [{"text": "yes"}]},
        {
            "role": "user",
            "parts": [
                {"fileData": {"fileUri": "https://x/y.png"}},
                {"inlineData": {"mimeType": "image/gif", "data": "R0lG"}},
            ],
        },
    ]


def test_results_go_together_in_the_order_of_their_calls() -> None:
    """Made-up ids are not sent, so order is what tells two calls of one function apart."""
    body = chat(
        HI,
        Message(
            "assistant",
            (
                ToolCall(id="call_gemini_r1_1", name="f", arguments='{"a":1}', signature="S"),
                ToolCall(id="call_gemini_r1_2", name="f"),
                ToolCall(id="x9", name="g", arguments=""),
            ),
        ),
        Message("tool", (ToolResult(call_id="call_gemini_r1_2", content=(Text('{"k": 2}'),)),)),
        Message("tool", (ToolResult(call_id="x9", content=(Text("bad"),), is_error=True),)),
        Message("tool", (ToolResult(call_id="call_gemini_r1_1", content=(Text("one"), Image(data=b"P"))),)),
    )
    assert body["contents"][1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "S"},
        {"functionCall": {"name": "f", "args": {}}},
        {"functionCall": {"name": "g", "args": {}, "id": "x9"}},
    ]
    assert len(body["contents"]) == 3
    assert [part["functionResponse"] for part in body["contents"][2]["parts"]] == [
        {
            "name": "f",
            "response": {"output": "one"},
            "parts": [{"inlineData": {"mimeType": "image/png", "data": "UA=="}}],
        },
        {"name": "f", "response": {"k": 2}},
        {"name": "g", "response": {"error": "bad"}, "id": "x9"},
    ]


def test_no_turn_is_empty() -> None:
    """Gemini refuses a turn without parts, and a conversation without turns."""
    empty, said = Message("user", ()), Message.of("assistant", "a")
    turns = chat(HI, said, empty, Message("user", (Text(""),)), said, HI)["contents"]
    assert [(turn["role"], len(turn["parts"])) for turn in turns] == [("user", 1), ("model", 2), ("user", 1)]
    ended = Message("assistant", (Text("a"), Text("", signature="S")))
    assert chat(HI, ended, HI)["contents"][1]["parts"][1] == {"text": "", "thoughtSignature": "S"}
    for messages in ((empty,), (Message.of("system", "be kind"),)):
        with pytest.raises(UnsupportedError, match="messages are empty"):
            chat(*messages)


def test_turns_of_the_model_are_one() -> None:
    """Gemini demands that calls come "immediately after a user turn or after a function response turn"."""
    call, result = Message("assistant", (ToolCall(id="x", name="f"),)), Message("tool", (ToolResult(call_id="x"),))
    turns = chat(HI, Message.of("assistant", "Let me see."), call, result, Message.of("assistant", "So."))["contents"]
    assert [turn["role"] for turn in turns] == ["user", "model", "user", "model"]
    assert [list(part) for part in turns[1]["parts"]] == [["text"], ["functionCall"]]


@pytest.mark.parametrize(("arguments", "args"), [('{"x": NaN}', {"x": None}), (r'{"x": "\ud83d"}', {"x": "\ufffd"})])
def test_odd_arguments_end_no_conversation(arguments: str, args: Any) -> None:
    """They were passed on to the client, so they come back, whoever is next."""
    call = Message("assistant", (ToolCall(id="x", name="f", arguments=arguments),))
    result = Message("tool", (ToolResult(call_id="x"),))
    assert chat(HI, call, result)["contents"][1]["parts"][0]["functionCall"]["args"] == args
    wire = encoded(Anthropic(), ChatRequest(model="m", messages=(HI, call, result)), stream=False)
    assert json.loads(wire.body)["messages"][1]["content"][0]["input"] == args


def test_a_schema_as_a_result_is_text() -> None:
    """Gemini takes a ``$ref`` for the name of a part, and refuses the request if there is none."""
    text = '{"fields": [{"$ref": "#/$defs/a"}]}'
    call = Message("assistant", (ToolCall(id="x", name="f"),))
    turns = chat(HI, call, Message("tool", (ToolResult(call_id="x", content=(Text(text),)),)))["contents"]
    assert turns[2]["parts"][0]["functionResponse"]["response"] == {"output": text}


def test_gemini_3_gets_a_stand_in_for_the_signature_of_another_models_call() -> None:
    history = (HI, Message("assistant", (ToolCall(id="toolu_1", name="f"), ToolCall(id="toolu_2", name="f"))))
    parts = chat(*history, model="gemini-3-pro-preview")["contents"][1]["parts"]
    assert parts[0]["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in parts[1]
    assert "thoughtSignature" not in chat(*history)["contents"][1]["parts"][0]


def test_thoughts_go_back_with_their_signature_only_if_gemini_made_them() -> None:
    own = Reasoning(text="hm", signature="S", dialect="gemini")
    foreign = Reasoning(text="hm", signature="S", dialect="anthropic")
    body = chat(HI, Message("assistant", (own, foreign, Text("a", signature="T"))))
    assert body["contents"][1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "S"},
        {"text": "hm", "thought": True},
        {"text": "a", "thoughtSignature": "T"},
    ]
    unreadable = Message("assistant", (Reasoning(encrypted="E", dialect="anthropic"),))
    assert chat(HI, unreadable, HI)["contents"] == chat(HI, HI)["contents"]


def test_tools_and_choices() -> None:
    schema = {"type": "object"}
    f, g = Tool(name="f", description="F", parameters=schema), Tool(name="g")
    search = HostedTool(dialect="gemini", value={"googleSearch": {}})
    body = chat(tools=(f, g, search), tool_choice=ToolChoice("named", "g"))
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "F", "parametersJsonSchema": schema},
                {"name": "g"},
            ]
        },
        {"googleSearch": {}},
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}}

    def mode(tool: Tool, choice: ToolChoice | None) -> Any:
        found = chat(tools=(tool,), tool_choice=choice).get("toolConfig")
        return found and found["functionCallingConfig"]["mode"]

    assert [mode(f, ToolChoice(name)) for name in ("auto", "none", "required")] == ["AUTO", "NONE", "ANY"]
    assert mode(f, None) is None
    assert mode(Tool(name="s", strict=True), None) == "VALIDATED"


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = ResponseFormat(type="json_schema", schema=schema)
    assert chat(response_format=wanted)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert chat(response_format=ResponseFormat(type="json"))["generationConfig"] == {
        "responseMimeType": "application/json"
    }
    assert "generationConfig" not in chat(response_format=ResponseFormat(type="text"))


def test_sampling_parameters_have_their_places() -> None:
    assert config(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        max_output_tokens=9,
        stop=("a", "b"),
        frequency_penalty=0.1,
        presence_penalty=0.2,
        seed=7,
        parallel_tool_calls=True,
    ) == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 4,
        "maxOutputTokens": 9,
        "stopSequences": ["a", "b"],
        "frequencyPenalty": 0.1,
        "presencePenalty": 0.2,
        "seed": 7,
    }


@pytest.mark.parametrize("parameters", [{"parallel_tool_calls": False}, {"user": "u"}])
def test_what_gemini_lacks_is_left_out_and_told(parameters: dict[str, Any]) -> None:
    request = ChatRequest(model="gemini-3-pro", messages=(HI,), parameters=Parameters(**parameters))
    assert adjusted(CLIENT, request) == [(name, "left_out", None) for name in parameters]
    assert config(**parameters) is None


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", "low", {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
        ("gemini-3-pro-preview", "low", {"thinkingLevel": "LOW"}),
        ("gemini-3.6-flash", "minimal", {"thinkingLevel": "MINIMAL"}),
        ("models/gemini-flash-latest", "xhigh", {"thinkingLevel": "HIGH"}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW"}),
        ("gemini-3.7-flash", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3.1-pro-preview", "max", {"thinkingLevel": "HIGH"}),
        ("gemini-3.5-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-flash-lite", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-4-hydrogen", "max", {"thinkingLevel": "XHIGH"}),
        ("gemini-4-hydrogen", "none", {"thinkingLevel": "LOW"}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
    ],
)
def test_effort_is_a_level_or_a_budget_by_model(model: str, effort: str, thinking: Any) -> None:
    assert config(model, reasoning_effort=effort)["thinkingConfig"] == thinking


@pytest.mark.parametrize(("model", "effort"), [("gemini-3.8-flash", "a lot"), ("gemini-2.0-flash", "low")])
def test_an_effort_that_the_model_lacks_is_left_out(model: str, effort: str) -> None:
    assert config(model, reasoning_effort=effort) is None


def test_budget_and_readable_thoughts() -> None:
    thinking = config(reasoning_budget=100, reasoning_summary="auto")["thinkingConfig"]
    assert thinking == {"thinkingBudget": 100, "includeThoughts": True}
    assert config(reasoning_budget=100, reasoning_effort="low")["thinkingConfig"] == {"thinkingBudget": 100}


def test_extra_fields_join_inside_and_never_win() -> None:
    extra = {"gemini": {"safetySettings": [1], "generationConfig": {"temperature": 2, "mediaResolution": "LOW"}}}
    body = chat(parameters=Parameters(temperature=0.0, extra=extra))
    assert body["safetySettings"] == [1]
    assert body["generationConfig"] == {"temperature": 0, "mediaResolution": "LOW"}
    assert extra["gemini"]["generationConfig"] == {"temperature": 2, "mediaResolution": "LOW"}
    with pytest.raises(BadRequestError, match="base_url"):
        chat(parameters=Parameters(extra={"gemini": {"base_url": "http://evil"}}))


@pytest.mark.parametrize(
    ("messages", "error", "param"),
    [
        (
            (Message("user", (Opaque(dialect="openai_responses", value={}),)),),
            UnsupportedError,
            "messages[0].content[0]",
        ),
        ((Message("user", (Image(),)),), BadRequestError, "messages[0].content[0]"),
        ((Message("user", (Image(url="data:nonsense"),)),), BadRequestError, "messages[0].content[0]"),
        ((HI, Message("tool", (ToolResult(call_id="x"),))), BadRequestError, "messages[1].content[0]"),
        ((HI, Message("tool", (Text("x"),))), BadRequestError, "messages[1].content[0]"),
        (
            (Message("assistant", (ToolCall(id="a", name="f", arguments="[1]"),)),),
            UnsupportedError,
            "messages[0].content[0]",
        ),
        ((Message("system", (Image(data=b"x"),)), HI), UnsupportedError, "messages"),
    ],
)
def test_what_cannot_be_said_is_refused_by_place(messages: Any, error: type[Exception], param: str) -> None:
    with pytest.raises(error) as caught:
        chat(*messages)
    assert caught.value.failure.param == param  # type: ignore[attr-defined]


def test_a_tool_of_another_vendor_is_left_out_and_a_type_without_endpoint_is_refused() -> None:
    assert "tools" not in chat(tools=(HostedTool(dialect="anthropic", value={}),))
    with pytest.raises(UnsupportedError, match="completion"):
        encoded(CLIENT, CompletionRequest(prompt="x"), stream=False)


def test_pictures_are_asked_for_by_ratio_and_scale() -> None:
    def body(**fields: Any) -> Any:
        request = ImageRequest(model="gemini-3-pro-image", prompt="a cat", **fields)
        return json.loads(encoded(CLIENT, request, stream=False).body)["generationConfig"]

    assert body() == {"responseModalities": ["TEXT", "IMAGE"]}
    assert body(size="1024x1024")["imageConfig"] == {"aspectRatio": "1:1"}
    assert body(size="2048x2048")["imageConfig"] == {"aspectRatio": "1:1", "imageSize": "2K"}
    assert body(size="1792x1024")["imageConfig"] == {"aspectRatio": "16:9"}
    assert body(size="1024x1536")["imageConfig"] == {"aspectRatio": "2:3"}
    assert body(size="3840x2160")["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "4K"}
    for fields in ({"size": "100x900"}, {"n": 2}, {"background": "transparent"}):
        with pytest.raises(UnsupportedError) as caught:
            body(**fields)
        assert caught.value.failure.param in fields
    with pytest.raises(BadRequestError):
        body(size="large")


def test_embeddings() -> None:
    request = EmbeddingRequest(model="gemini-embedding-001", inputs=("a", "b"), dimensions=8, input_type="search_query")
    wire = encoded(CLIENT, request, stream=False)
    assert wire.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    common = {"model": "models/gemini-embedding-001", "outputDimensionality": 8, "taskType": "RETRIEVAL_QUERY"}
    assert json.loads(wire.body) == {
        "requests": [{**common, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]
    }
    body = b'{"embeddings":[{"values":[1,2.5]},{"values":[3]}],"usageMetadata":{"promptTokenCount":4}}'
    answer = fold(CLIENT.decode_response(request, WireResponse(200, (), body)))
    assert answer.embeddings == (Embedding.of((1.0, 2.5)), Embedding.of((3.0,)))
    assert answer.usage is not None
    assert answer.usage.input_tokens == 4
    poem = EmbeddingRequest(inputs=("a",), input_type="poem")
    assert adjusted(CLIENT, poem) == [("input_type", "left_out", None)]
    assert b"taskType" not in encoded(CLIENT, poem, stream=False).body


@pytest.mark.parametrize("body", [b"{}", b'{"embeddings":[{"values":[1]}]}', b'{"embeddings":[{},{}]}', b"<html>", b""])
def test_vectors_that_do_not_match_their_texts_are_no_answer(body: bytes) -> None:
    request = EmbeddingRequest(model="e", inputs=("a", "b"))
    (end,) = CLIENT.decode_response(request, WireResponse(200, (), body))
    assert isinstance(end, Failed)
    assert end.failure.kind is FailureKind.PROTOCOL


def test_the_model_list_has_pages() -> None:
    assert CLIENT.models_request(None).path == "/v1beta/models?pageSize=1000"
    assert CLIENT.models_request("a&b").path == "/v1beta/models?pageSize=1000&pageToken=a%26b"
    assert CLIENT.decode_models(b'{"models":[{"name":"models/x"}],"nextPageToken":"t"}').next == "t"
    with pytest.raises(ProtocolError):
        CLIENT.decode_models(b'{"models":3}')


# ---------------------------------------------------------------- streams

THOUGHT = {"text": "hm", "thought": True}
CALL = {"functionCall": {"name": "f", "args": {"a": [1, "ü"]}}, "thoughtSignature": "S"}
STREAM = sse(
    chunk(THOUGHT),
    chunk({"text": "Hel"}),
    chunk({"text": "lo 😀"}),
    chunk({"text": "", "thoughtSignature": "T"}),
    chunk(CALL, {"functionCall": {"name": "f", "args": {}}}),
    chunk({"text": ""}, finish="STOP", usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 2}),
)


def test_a_stream_of_everything() -> None:
    events = decode(make, STREAM)
    check_order(events)
    answer = fold(events)
    assert answer.output == (
        Reasoning(text="hm", dialect="gemini"),
        Text("Hello 😀", signature="T"),
        ToolCall(id="call_gemini_r1_1", name="f", arguments='{"a":[1,"ü"]}', signature="S"),
        ToolCall(id="call_gemini_r1_2", name="f", arguments="{}"),
    )
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.raw_finish_reason == "STOP"
    assert [event.final for event in events if isinstance(event, UsageReported)] == [False, True]


def test_every_split_of_a_stream_gives_the_same_events() -> None:
    check_all_splits(make, STREAM)


def test_every_split_of_a_json_array_gives_the_same_events() -> None:
    chunks = [chunk({"text": 'a "quoted\\" {brace'}), chunk({"text": "]"}, finish="STOP")]
    body = json.dumps(chunks, indent=2).encode()
    check_all_splits(make, body)
    assert fold(decode(make, body)).content == 'a "quoted\\" {brace]'
    whole = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    assert whole == decode(make, body)


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "tail",
    [
        json.dumps(ERROR, indent=2).encode(),
        json.dumps([ERROR], indent=2).encode(),
        b"data: " + json.dumps(ERROR).encode() + b"\r\n\r\n",
    ],
    ids=["plain", "plain list", "event"],
)
def test_every_split_of_a_stream_that_ends_in_an_error(tail: bytes) -> None:
    """Plain over many lines, in a list, or as an event; alone or after content."""
    for head in (b"", sse(chunk({"text": "a"}, finish="STOP"))):
        check_all_splits(make, head + tail)
        end = decode(make, head + tail)[-1]
        assert isinstance(end, Failed)
        assert end.failure.kind is FailureKind.OVERLOADED


def test_an_error_in_a_json_array() -> None:
    body = json.dumps([chunk({"text": "a"}), ERROR]).encode()
    end = decode(make, body)[-1]
    assert isinstance(end, Failed)
    assert end.failure.kind is FailureKind.OVERLOADED


def test_a_stream_cut_after_any_chunk_is_truncated() -> None:
    """No finish reason, no success; and the text so far stays what it is."""
    chunks = STREAM.split(b"\r\n\r\n")[:-1]
    for count in range(len(chunks)):
        events = decode(make, b"".join(part + b"\r\n\r\n" for part in chunks[:count]))
        assert isinstance(events[-1], Failed)
        assert events[-1].failure.kind is FailureKind.TRUNCATED
    cut = decode(make, STREAM[: STREAM.index(b'"args"')])
    assert not fold(cut).tool_calls


def test_a_blocked_prompt_is_a_content_filter() -> None:
    for more in ({}, {"error": None, "candidates": None}):
        blocked: dict[str, Any] = {"candidates": [], "promptFeedback": {"blockReason": "JAILBREAK"}, **more}
        for events in (
            decode(make, sse(blocked)),
            CLIENT.decode_response(REQUEST, WireResponse(200, (), json.dumps(blocked).encode())),
        ):
            assert events[-1] == Finished(reason=FinishReason.CONTENT_FILTER, raw_reason="JAILBREAK")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("IMAGE_SAFETY", FinishReason.CONTENT_FILTER),
        ("MALFORMED_FUNCTION_CALL", FinishReason.ERROR),
        ("NOT_INVENTED_YET", FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons(raw: str, reason: FinishReason) -> None:
    """Also with no content at all, as when thinking used up the budget."""
    body = {"candidates": [{"finishReason": raw}], "usageMetadata": {"promptTokenCount": 1, "thoughtsTokenCount": 5}}
    assert decode(make, sse(body))[-1] == Finished(reason=reason, raw_reason=raw)


def test_usage_is_the_last_count() -> None:
    first = {"promptTokenCount": 9, "candidatesTokenCount": 1}
    last = {
        "promptTokenCount": 9,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 4,
        "toolUsePromptTokenCount": 5,
    }
    body = sse(chunk({"text": "a"}, usageMetadata=first), chunk({"text": "b"}, finish="STOP", usageMetadata=last))
    usage = fold(decode(make, body)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (14, 5, 4, 3)


def test_usage_is_told_of_a_broken_answer_too() -> None:
    body = sse(chunk({"text": "a"}, usageMetadata={"promptTokenCount": 9}))
    assert [type(event) for event in decode(make, body)[-2:]] == [UsageReported, Failed]


def test_parts_that_only_gemini_knows_survive_and_go_back() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "S"}
    thought_picture = {"thought": True, "inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    answer = fold(decode(make, sse(chunk({"text": "a"}, code, thought_picture, {"text": "b"}, finish="STOP"))))
    assert [part.value for part in answer.output if isinstance(part, Opaque)] == [code, thought_picture]
    assert answer.content == "ab"
    body = chat(HI, Message("assistant", answer.output))
    assert body["contents"][1]["parts"] == [{"text": "a"}, code, thought_picture, {"text": "b"}]


def test_unknown_fields_and_nulls_do_no_harm() -> None:
    odd = chunk({"text": "a", "new": 1}, finish="STOP", promptFeedback=None, usageMetadata=None, brandNew=[{}])
    odd["candidates"][0] |= {"safetyRatings": None, "index": None}
    assert (
        fold(decode(make, sse({"candidates": None}, {"candidates": [{"content": {"parts": None}}]}, odd))).content
        == "a"
    )


def test_another_choice_is_not_mixed_in() -> None:
    two = chunk({"text": "a"}, finish="STOP")
    two["candidates"].append({"index": 1, "content": {"parts": [{"text": "other"}]}, "finishReason": "SAFETY"})
    answer = fold(decode(make, sse(two)))
    assert (answer.content, answer.finish_reason) == ("a", FinishReason.STOP)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {nonsense\r\n\r\n",
        b'data: {"candidates": 3}\r\n\r\n',
        b'data: {"candidates": [{"content": {"parts": [{"text": NaN}]}}]}\r\n\r\n',
        b'data: {"candidates": [{"content": {"parts": [{"functionCall": {"args": {}}}]}}]}\r\n\r\n',
        sse(chunk({"inlineData": {"mimeType": "image/png", "data": "?"}})),
        b"data: " + b"[" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_malformed_chunk_ends_the_answer(bad: bytes) -> None:
    """Typed, and nothing after it counts."""
    events = decode(make, sse(chunk({"text": "a"})) + bad + sse(chunk({"text": "b"}, finish="STOP")))
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.PROTOCOL
    assert fold(events).content == "a"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FailureKind.TRUNCATED),
        (b"\r\n\r\n", FailureKind.TRUNCATED),
        (b"<html>busy</html>", FailureKind.PROTOCOL),
        (b'{"fine": true}', FailureKind.PROTOCOL),
        (b"[1, 2]", FailureKind.PROTOCOL),
        (b"[]", FailureKind.TRUNCATED),
    ],
)
def test_what_is_no_stream_is_no_success(body: bytes, kind: FailureKind) -> None:
    end = decode(make, body)[-1]
    assert isinstance(end, Failed)
    assert end.failure.kind is kind


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"candidates": []}', b"null", b'"x"', b"\xff"])
def test_a_whole_answer_that_is_none_is_no_success(body: bytes) -> None:
    events = CLIENT.decode_response(REQUEST, WireResponse(200, (), body))
    assert isinstance(events[-1], Failed)


def test_a_line_and_an_object_without_end_are_cut_off() -> None:
    """At the decoders' own limits."""
    decoder = make()
    events: list[Any] = []
    for _ in range(80):
        events += decoder.feed(b"data: " + b"x" * 65_536)
    assert [event.failure.kind for event in events] == [FailureKind.ANSWER_TOO_LARGE]
    array = JsonArrayDecoder(max_bytes=100)
    with pytest.raises(WireError, match="100 bytes"):
        list(array.feed(b'[{"a": "' + b"x" * 200))


def test_what_stands_before_a_fault_in_an_array_is_told_however_it_is_cut() -> None:
    """In one piece with what is no object, the text before it was lost."""
    body = b'[{"candidates": [{"content": {"parts": [{"text": "hi"}]}}]}, "?"]'
    check_all_splits(make, body)
    assert TextDelta(0, "hi") in decode(make, body)


def test_an_array_takes_time_in_proportion_to_its_length() -> None:
    """40 000 objects; with a copy of the rest for each of them it was seconds."""
    body = b"[" + b'{"a": "%b"},' % (b"x" * 90) * 40_000 + b"{}]"
    began = time.thread_time()
    assert sum(1 for _ in JsonArrayDecoder(len(body)).feed(body)) == 40_001
    assert time.thread_time() - began < 1


def test_the_array_decoder_keeps_an_escape_that_is_cut() -> None:
    array = JsonArrayDecoder()
    pieces = [b'[ {"a": "\\', b'"}"}, ', b'{"b": [{}]} ]']
    assert [found for piece in pieces for found in array.feed(piece)] == [b'{"a": "\\"}"}', b'{"b": [{}]}']


def test_item_done_of_a_text_comes_with_the_end_of_it() -> None:
    events = decode(make, STREAM)
    done = [event.index for event in events if isinstance(event, ItemDone)]
    assert done == [0, 1, 2, 3]


# ---------------------------------------------------------------- errors


def failure(status: int, message: str, word: str = "", details: Any = ()) -> Any:
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return CLIENT.decode_error(WireResponse(status, (), json.dumps({"error": error}).encode()))


def quota(quota_id: str) -> Any:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}


@pytest.mark.parametrize(
    ("status", "word", "message", "details", "kind"),
    [
        (400, "INVALID_ARGUMENT", "API key not valid.", [{"reason": "API_KEY_INVALID"}], FailureKind.AUTH),
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", [], FailureKind.AUTH),
        (401, "UNAUTHENTICATED", "no", [], FailureKind.AUTH),
        (403, "PERMISSION_DENIED", "disabled", [{"reason": "SERVICE_DISABLED"}], FailureKind.AUTH),
        (400, "FAILED_PRECONDITION", "User location is not supported.", [], FailureKind.AUTH),
        (400, "FAILED_PRECONDITION", "Please enable billing on project 1.", [], FailureKind.QUOTA),
        (400, "INVALID_ARGUMENT", "Unknown name foo", [], FailureKind.BAD_REQUEST),
        (400, "INVALID_ARGUMENT", "Thinking is not supported for this model.", [], FailureKind.UNSUPPORTED),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (2000000) exceeds the maximum number of tokens allowed (1048575).",
            [],
            FailureKind.CONTEXT_LENGTH,
        ),
        (404, "NOT_FOUND", "models/x is not found for API version v1beta", [], FailureKind.MODEL_NOT_FOUND),
        (404, "NOT_FOUND", "CachedContent not found", [], FailureKind.BAD_REQUEST),
        (429, "RESOURCE_EXHAUSTED", "slow", [quota("RequestsPerMinutePerProject"), RETRY], FailureKind.RATE_LIMITED),
        (429, "RESOURCE_EXHAUSTED", "slow", [], FailureKind.RATE_LIMITED),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "no",
            [quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), RETRY],
            FailureKind.QUOTA,
        ),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: m, limit: 0, model: x", [], FailureKind.QUOTA),
        (429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.", [], FailureKind.QUOTA),
        (500, "INTERNAL", "An internal error", [], FailureKind.SERVER_ERROR),
        (503, "UNAVAILABLE", "overloaded", [], FailureKind.OVERLOADED),
        (504, "DEADLINE_EXCEEDED", "late", [], FailureKind.SERVER_ERROR),
    ],
)
def test_error_kinds(status: int, word: str, message: str, details: Any, kind: FailureKind) -> None:
    found = failure(status, message, word, details)
    assert found.kind is kind
    assert found.upstream_status == status
    assert found.upstream_code == word


def test_the_delay_of_a_rate_limit_is_in_the_body() -> None:
    assert failure(429, "slow", "RESOURCE_EXHAUSTED", [RETRY]).retry_after == 34.4
    assert failure(429, "slow. Please retry in 12.5s.", "RESOURCE_EXHAUSTED").retry_after == 12.5
    assert failure(429, "slow", "RESOURCE_EXHAUSTED", [quota("XPerDay"), RETRY]).retry_after is None


def test_whose_limit_it_was_is_in_the_body() -> None:
    """Most of Google's limits are per model, and one model's used-up day leaves the others theirs."""

    def wide(*quotas: str) -> bool | None:
        found: bool | None = failure(429, "slow", "RESOURCE_EXHAUSTED", [quota(each) for each in quotas]).account_wide
        return found

    assert wide("GenerateRequestsPerMinutePerProjectPerModel") is False
    assert wide("GenerateRequestsPerMinutePerProjectPerModel", "RequestsPerMinutePerProject") is True
    assert wide() is None


def test_a_field_violation_names_the_field() -> None:
    violation = {"fieldViolations": [{"field": "generation_config.top_k", "description": "no"}]}
    assert failure(400, "bad", "INVALID_ARGUMENT", [violation]).param == "generation_config.top_k"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>bad gateway</html>", FailureKind.SERVER_ERROR),
        (503, b"", FailureKind.OVERLOADED),
        (429, b'{"error": null}', FailureKind.RATE_LIMITED),
        (404, b'[{"error": {"message": "gone", "details": [3, {"reason": 7}]}}]', FailureKind.MODEL_NOT_FOUND),
        (400, b'{"error": "plain words"}', FailureKind.BAD_REQUEST),
        (500, b"[" * 100_000, FailureKind.SERVER_ERROR),
        (429, b'{"error": {"message": 5, "details": {"a": 1}}}', FailureKind.RATE_LIMITED),
    ],
)
def test_an_error_body_of_any_form_is_read(status: int, body: bytes, kind: FailureKind) -> None:
    assert CLIENT.decode_error(WireResponse(status, (), body)).kind is kind


def test_no_key_comes_out_in_an_error() -> None:
    key = "AIza" + "SyA1234567890abcdefghijklmnopqrstuv"
    found = failure(400, f"API key not valid: {key}", "INVALID_ARGUMENT")
    assert key not in repr(found)
    assert found.kind is FailureKind.AUTH
