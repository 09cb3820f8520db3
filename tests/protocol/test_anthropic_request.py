"""What the Anthropic dialect sends: every parameter is mapped or refused by name, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from support.adapting import adjusted, encoded
from support.conversations import conversations, pdfs, texts, tokens, tool_choices, tools

CLIENT, SERVER = Anthropic(), AnthropicServer()
NEW, OLD, MIDDLE = "claude-opus-5", "claude-haiku-4-5", "claude-sonnet-4-6"
HI = (Message.of("user", "Hi"),)


def sent(model: str = OLD, messages: tuple[Message, ...] = HI, **fields: Any) -> dict[str, Any]:
    names = set(msgspec.structs.asdict(ChatRequest(messages=())))
    own = {key: fields.pop(key) for key in list(fields) if key in names}
    request = ChatRequest(model=model, messages=messages, parameters=Parameters(**fields), **own)
    wire = encoded(CLIENT, request, stream=False)
    assert wire[:2] == ("POST", "/v1/messages")
    body: dict[str, Any] = msgspec.json.decode(wire.body)
    body["version"] = dict(wire.headers)["anthropic-version"]
    return body


def told(model: str = OLD, **fields: Any) -> list[tuple[str, str, object]]:
    """What is told of a request with these parameters."""
    return adjusted(CLIENT, ChatRequest(model=model, messages=HI, parameters=Parameters(**fields)))


def test_a_plain_chat_is_small() -> None:
    """Only what was asked for, and the field that the vendor demands."""
    assert sent() == {
        "model": OLD,
        "max_tokens": 16_384,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "version": "2026-10-21",
    }


def test_max_tokens_has_a_default_below_the_models_limit() -> None:
    """The caller's number, else the default, at most what the model can."""
    assert sent(max_output_tokens=7)["max_tokens"] == 7
    assert sent("claude-3-haiku-20240307")["max_tokens"] == 4_096
    assert sent(reasoning_budget=4_000)["max_tokens"] == 16_384 + 4_000


def test_sampling_goes_out_under_the_version_that_takes_it() -> None:
    """On models that take it; elsewhere only the defaults, which mean nothing, and so are not sent."""
    body = sent(OLD, temperature=0.5, top_p=0.9, top_k=3)
    assert (body["temperature"], body["top_p"], body["top_k"], body["version"]) == (0.5, 0.9, 3, "2023-06-01")
    body = sent(NEW, temperature=1.0, top_p=1.0)
    assert "temperature" not in body
    assert "top_p" not in body
    assert body["version"] == "2026-10-21"
    unusual: dict[str, Any] = {"temperature": 0.0, "top_p": 0.5, "top_k": 4}
    assert not unusual.keys() & sent(NEW, **unusual).keys(), "they would be refused"
    assert told(NEW, **unusual) == [(name, "left_out", None) for name in unusual]
    assert sent(OLD, temperature=1.5)["temperature"] == 1
    assert told(OLD, temperature=1.5) == [("temperature", "translated", 1.0)]


def test_old_shapes_go_out_under_the_old_version() -> None:
    """Documents in assistant turns, citations in user turns; a document in a user turn is no old shape."""
    document = Opaque(dialect="anthropic", value={"type": "document", "source": {}, "citations": {"enabled": True}})
    cited = Text("x", extra={"anthropic": {"citations": [{"type": "char_location"}]}})
    assert sent(messages=(Message("user", (document,)),))["version"] == "2026-10-21"
    assert sent(messages=(*HI, Message("assistant", (cited,)), *HI))["version"] == "2026-10-21"
    assert sent(messages=(*HI, Message("assistant", (document,)), *HI))["version"] == "2023-06-01"
    assert sent(messages=(Message("user", (cited,)),))["version"] == "2023-06-01"


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "seed"])
def test_what_anthropic_has_not_is_left_out_and_told(name: str) -> None:
    """Never dropped in silence."""
    fields: dict[str, Any] = {name: 1}
    assert name not in sent(**fields)
    assert told(**fields) == [(name, "left_out", None)]


def test_effort_and_budget_become_what_the_model_knows() -> None:
    """Grades where the model grades, tokens where it counts, both where it does both."""
    body = sent(NEW, reasoning_effort="high")
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    body = sent(OLD, reasoning_effort="low")
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2_048}
    assert "output_config" not in body
    assert sent("claude-opus-4-5", reasoning_effort="low")["output_config"] == {"effort": "low"}
    assert sent(MIDDLE, reasoning_budget=2_000)["thinking"] == {"type": "enabled", "budget_tokens": 2_000}
    assert sent(NEW, reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert sent(OLD, reasoning_budget=0)["thinking"] == {"type": "disabled"}
    assert sent(NEW, reasoning_effort="minimal")["output_config"] == {"effort": "low"}
    assert sent(NEW, reasoning_budget=2_000)["output_config"] == {"effort": "low"}
    assert told(NEW, reasoning_budget=2_000) == [("reasoning_budget", "translated", "low")]
    assert told(OLD, reasoning_budget=100) == [("reasoning_budget", "translated", 1_024)]
    assert told(OLD, reasoning_effort="gigantic") == [("reasoning_effort", "left_out", None)]
    assert told("claude-3-5-haiku-20241022", reasoning_effort="low") == [("reasoning_effort", "left_out", None)]


def test_effort_alone_is_not_lost() -> None:
    """A client of this wire that asks for effort without thinking gets just that."""
    alone = {"anthropic": {"thinking": None}}
    assert sent(MIDDLE, reasoning_effort="low", extra=alone)["output_config"] == {"effort": "low"}
    assert "thinking" not in sent(MIDDLE, reasoning_effort="low", extra=alone)


def test_a_budget_of_our_own_leaves_room_for_the_answer() -> None:
    """The vendor refuses a thinking budget that is not below max_tokens."""
    assert sent(OLD, reasoning_effort="high", max_output_tokens=4_096)["thinking"]["budget_tokens"] == 2_048


def test_a_summary_of_the_reasoning() -> None:
    """Shown where there is reasoning to show."""
    assert sent(NEW, reasoning_summary="auto")["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent(OLD, reasoning_summary="auto", reasoning_budget=2_000)["thinking"]["display"] == "summarized"
    assert "thinking" not in sent(OLD, reasoning_summary="auto")


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


def test_structured_output() -> None:
    """A schema goes into output_config; JSON without one is an order to the model."""
    form = ResponseFormat(type="json_schema", schema=CLOSED)
    assert sent(response_format=form)["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    assert "valid JSON" in sent(response_format=ResponseFormat(type="json"))["system"]
    assert "output_config" not in sent(response_format=ResponseFormat(type="text"))


def test_tools_and_choices() -> None:
    """All four choices, one call at a time, hosted tools of this vendor, and web search of others."""
    tool = Tool(name="f", description="d", parameters={"type": "object"}, strict=True)
    body = sent(tools=(tool,), tool_choice=ToolChoice("named", "f"), parallel_tool_calls=False)
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object"}, "description": "d", "strict": True}]
    assert body["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    for mode, type_ in (("auto", "auto"), ("none", "none"), ("required", "any")):
        assert sent(tools=(tool,), tool_choice=ToolChoice(mode))["tool_choice"] == {"type": type_}  # type: ignore[arg-type]
    assert sent(tools=(tool,), parallel_tool_calls=False)["tool_choice"]["type"] == "auto"
    assert "tool_choice" not in sent(tools=(tool,), parallel_tool_calls=True)
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert sent(tools=(HostedTool(dialect="anthropic", value=search),))["tools"] == [search]
    assert sent(tools=(HostedTool(dialect="gemini", value={"googleSearch": {}}),))["tools"] == [search]
    code = {"type": "code_execution_20250825", "name": "code_execution"}
    assert sent(tools=(HostedTool(dialect="gemini", value={"codeExecution": {}}),))["tools"] == [code]
    assert "tools" not in sent(tools=(HostedTool(dialect="gemini", value={"urlContext": {}}),))


def test_extra_adds_fields_beside_ours() -> None:
    """Also inside the objects that we fill; never over what we set, never where the request goes."""
    extra = {"service_tier": "auto", "model": "other", "output_config": {"task_budget": 1, "effort": "max"}}
    body = sent(NEW, reasoning_effort="low", extra={"anthropic": extra, "openai": {"x": 1}})
    assert body["service_tier"] == "auto"
    assert body["model"] == NEW
    assert body["output_config"] == {"task_budget": 1, "effort": "low"}
    assert "x" not in body
    with pytest.raises(BadRequestError, match="base_url"):
        sent(extra={"anthropic": {"base_url": "http://elsewhere"}})


def test_system_messages_stand_where_the_model_takes_them() -> None:
    """Leading ones in ``system``; later ones in place on new models, and in ``system`` on old ones."""
    messages = (
        Message.of("system", "a"),
        Message.of("developer", "b"),
        Message.of("user", "Hi"),
        Message.of("system", "c"),
    )
    body = sent(NEW, messages)
    assert [block["text"] for block in body["system"]] == ["a", "b"]
    assert [message["role"] for message in body["messages"]] == ["user", "system"]
    body = sent(OLD, messages)
    assert [block["text"] for block in body["system"]] == ["a", "b", "c"]
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_tool_results_stand_together_in_one_user_turn() -> None:
    """As the vendor demands, whether they come as one message or as several, with the user's words after them."""
    messages = (
        *HI,
        Message("assistant", (ToolCall(id="a:1", name="f"), ToolCall(id="b", name="f", arguments='{"x": 1.0}'))),
        Message("tool", (ToolResult(call_id="a:1", content=(Text("one"),)),)),
        Message("tool", (ToolResult(call_id="b", is_error=True),)),
        Message.of("user", "go on"),
    )
    turns = sent(messages=messages)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == [
        {"type": "tool_use", "id": "a_1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "b", "name": "f", "input": {"x": 1.0}},
    ]
    assert turns[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a_1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "b", "content": "The tool failed without a message.", "is_error": True},
        {"type": "text", "text": "go on"},
    ]


def test_texts_of_white_space_are_not_sent() -> None:
    """Other models write some before their calls: the vendor demands "non-whitespace text"."""
    call = ToolCall(id="a", name="f")
    said = Message("assistant", (Text("\n\n"), call))
    result = Message("tool", (ToolResult(call_id="a", content=(Text("1"),)),))
    turns = sent(messages=(Message.of("system", " "), *HI, said, result, Message.of("user", " \n")))
    assert "system" not in turns
    assert turns["messages"][1]["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]
    assert [block["type"] for block in turns["messages"][2]["content"]] == ["tool_result"]
    with pytest.raises(UnsupportedError, match="messages are empty"):
        sent(messages=(Message.of("user", " "),))


def test_a_picture_of_the_assistant_is_refused_by_name() -> None:
    """Gemini makes some: the vendor does not permit them "within assistant turns"."""
    drawn = Message("assistant", (Text("here"), Image(data=b"\x89PNG")))
    with pytest.raises(UnsupportedError, match="turn of the assistant") as caught:
        sent(messages=(*HI, drawn, *HI))
    assert caught.value.failure.param == "messages[1].content"


PLACE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "Of the place."},
        "size": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"type": ["string", "null"], "enum": ["a", None]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 2},
        "when": {"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "week"}]},
    },
    "required": ["name"],
    "$defs": {"part": {"type": "object", "properties": {}, "additionalProperties": False}},
}


def test_a_schema_of_another_wire_is_brought_into_the_vendors_subset() -> None:
    """Objects are closed, and bounds are told in words: everything else is refused by the vendor."""
    form = ResponseFormat(type="json_schema", schema=PLACE)
    assert sent(response_format=form)["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Of the place.\n\n{minLength: 1}"},
            "size": {"anyOf": [{"type": "integer", "description": "{minimum: 0}"}, {"type": "null"}]},
            "kind": {"enum": ["a", None]},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "description": "{minItems: 2}"},
            "when": {"anyOf": [
                {"type": "string", "format": "date"}, {"type": "string", "description": "{format: week}"}
            ]},
        },
        "required": ["name"],
        "$defs": {"part": {"type": "object", "properties": {}, "additionalProperties": False}},
        "additionalProperties": False,
    }  # fmt: skip
    request = ChatRequest(model=OLD, messages=HI, response_format=form)
    assert adjusted(CLIENT, request) == [("response_format", "rewritten", "a schema of closed objects")]
    assert sent(response_format=form, wire="anthropic")["output_config"]["format"]["schema"] == PLACE


@pytest.mark.parametrize("more", [{}, {"additionalProperties": {"type": "integer"}}, {"additionalProperties": True}])
def test_an_object_with_any_names_is_refused(more: dict[str, Any]) -> None:
    """Closed, it would have none: another vendor can keep it."""
    schema = {"type": "object", "properties": {"ages": {"type": "object", **more}}}
    with pytest.raises(UnsupportedError, match="must list its properties"):
        sent(response_format=ResponseFormat(type="json_schema", schema=schema))


@pytest.mark.parametrize("text", ["{", "[1]", "1"])
def test_arguments_that_are_no_object_are_refused_by_name(text: str) -> None:
    """Another vendor takes them: Anthropic cannot be told."""
    with pytest.raises(UnsupportedError, match="not a JSON object") as caught:
        sent(messages=(*HI, Message("assistant", (ToolCall(id="a", name="f", arguments=text),))))
    assert caught.value.failure.param == "messages[1].content[0].arguments"


def test_foreign_parts() -> None:
    """Foreign blocks are refused by name; foreign or unsigned thoughts are not sent."""
    thoughts = (
        Reasoning(text="mine", signature="s", dialect="anthropic"),
        Reasoning(encrypted="e", dialect="anthropic"),
        Reasoning(text="unsigned"),
        Reasoning(text="theirs", signature="s", dialect="gemini"),
        Reasoning(encrypted="e", id="rs_1"),
        Text("Hi"),
    )
    [_, turn, _] = sent(messages=(*HI, Message("assistant", thoughts), *HI))["messages"]
    assert turn["content"] == [
        {"type": "thinking", "thinking": "mine", "signature": "s"},
        {"type": "redacted_thinking", "data": "e"},
        {"type": "text", "text": "Hi"},
    ]
    with pytest.raises(UnsupportedError, match="gemini") as caught:
        sent(messages=(Message("user", (Opaque(dialect="gemini", value={}),)),))
    assert caught.value.failure.param == "messages[0].content[0]"


def test_only_a_text_is_told_in_the_short_form() -> None:
    """A block of a type that is not known, with a field called text, stays what it is."""
    for text in "x", ["x"], [1.5]:
        block = {"type": "verse", "text": text}
        [turn] = sent(messages=(Message("user", (Opaque(dialect="anthropic", value=block),)),))["messages"]
        assert turn["content"] == [block]


def test_pictures() -> None:
    """By URL, by bytes, and by a data URL, which is bytes too."""
    parts = (Image(url="https://x/y.png"), Image(data=b"\x89PNG"), Image(url="data:image/gif;base64,R0lG"))
    [turn] = sent(messages=(Message("user", parts),))["messages"]
    assert [block["source"] for block in turn["content"]] == [
        {"type": "url", "url": "https://x/y.png"},
        {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
        {"type": "base64", "media_type": "image/gif", "data": "R0lG"},
    ]
    with pytest.raises(BadRequestError, match="data URI"):
        sent(messages=(Message("user", (Image(url="data:nonsense"),)),))


def test_prefill_is_known_per_model_and_loses_white_space_at_its_end() -> None:
    """Models from Claude 4.6 on refuse it; the others refuse white space at its end."""
    assert [CLIENT.rules.of(model).prefill for model in (NEW, MIDDLE, OLD, "us.anthropic.claude-opus-4-1-v1:0")] == [
        False,
        False,
        True,
        True,
    ]
    assert sent(messages=(*HI, Message.of("assistant", "So \n")))["messages"][-1]["content"] == "So"


def test_only_chat() -> None:
    """There are no embeddings here."""
    with pytest.raises(UnsupportedError, match="embedding"):
        encoded(CLIENT, EmbeddingRequest(model="m", inputs=("a",)), stream=False)


def test_keys_travel_in_a_header() -> None:
    """And in no URL."""
    assert CLIENT.auth_headers("k") == (("x-api-key", "k"),)
    assert CLIENT.models_request("last").path == "/v1/models?limit=1000&after_id=last"


thoughts = st.builds(Reasoning, text=texts, signature=tokens, dialect=st.just("anthropic")) | st.builds(
    Reasoning, encrypted=tokens, dialect=st.just("anthropic")
)
parameters = st.builds(
    Parameters,
    wire=st.just("anthropic"),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 99),
    max_output_tokens=st.integers(1, 99_999),
    stop=st.lists(texts, max_size=2).map(tuple),
    reasoning_budget=st.none() | st.integers(1_024, 2_048),
    user=st.none() | texts,
    extra=st.just({}) | st.just({"anthropic": {"service_tier": "auto"}}),
)


@given(
    conversations(reasoning=thoughts, media=pdfs),
    st.lists(tools, max_size=2).map(tuple),
    st.none() | tool_choices,
    parameters,
    st.booleans(),
)
def test_requests_survive_the_wire(
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    choice: ToolChoice | None,
    parameters: Parameters,
    stream: bool,
) -> None:
    """``decode(encode(x)) == x``: the server side reads what the client side means."""
    request = ChatRequest(model=MIDDLE, messages=messages, tools=tools, tool_choice=choice, parameters=parameters)
    wire = CLIENT.encode_request(request, stream=stream)
    inbound = SERVER.decode_request(wire.path, wire.body)
    assert isinstance(inbound.request, ChatRequest)
    assert inbound.stream is stream
    ours = {"request_id": request.request_id, "timestamp": request.timestamp}
    assert msgspec.structs.replace(inbound.request, **ours) == request


FORCED: dict[str, Any] = {"tools": (Tool(name="f"),), "tool_choice": ToolChoice("required")}


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "f")])
@pytest.mark.parametrize(
    ("model", "settings", "config"),
    [
        (OLD, {"reasoning_effort": "low"}, None),
        (OLD, {"reasoning_budget": 2_000}, None),
        (MIDDLE, {"reasoning_effort": "low"}, {"effort": "low"}),
        (MIDDLE, {"reasoning_budget": 2_000}, None),
        (NEW, {"reasoning_effort": "low"}, {"effort": "low"}),
        (NEW, {"reasoning_budget": 2_000}, {"effort": "low"}),
    ],
)
def test_no_thinking_is_requested_with_a_forced_call(
    choice: ToolChoice, model: str, settings: dict[str, Any], config: dict[str, Any] | None
) -> None:
    """The vendor refuses both: "Thinking may not be enabled when tool_choice forces tool use"."""
    body = sent(model, **{**FORCED, "tool_choice": choice}, **settings, reasoning_summary="auto")
    assert body["tool_choice"]["type"] in ("any", "tool")
    assert body["thinking"] == {"type": "disabled"}
    assert body.get("output_config") == config


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        (OLD, {"reasoning_effort": "low"}, [("reasoning_effort", "left_out", None)]),
        (OLD, {"reasoning_budget": 2_000}, [("reasoning_budget", "left_out", None)]),
        (NEW, {"reasoning_effort": "low"}, [("reasoning_effort", "translated", "low, without thinking")]),
        (NEW, {"reasoning_summary": "auto"}, [("reasoning_summary", "left_out", None)]),
        (NEW, {"reasoning_effort": "none"}, []),
        (NEW, {}, []),
    ],
)
def test_thinking_that_a_forced_call_excludes_is_told(
    model: str, settings: dict[str, Any], told: list[tuple[str, str, object]]
) -> None:
    request = ChatRequest(model=model, messages=HI, parameters=Parameters(**settings), **FORCED)
    assert adjusted(CLIENT, request) == told


def test_thinking_with_a_forced_call_of_the_own_wire_is_the_vendors_to_refuse() -> None:
    body = sent(MIDDLE, **FORCED, reasoning_effort="low", reasoning_summary="auto", wire="anthropic")
    assert body["thinking"]["type"] == "adaptive"
    assert "thinking" not in sent(NEW, **FORCED)


CALL = ToolCall(id="toolu_1", name="f")
ANSWERED = Message("tool", (CALL.result("1"),))
FOREIGN = Reasoning(text="hm", signature="s", dialect="gemini")
THOUGHT = Reasoning(text="hm", signature="s", dialect="anthropic")


@pytest.mark.parametrize(
    ("model", "turns", "kind"),
    [
        (OLD, [Message("assistant", (CALL,)), ANSWERED], "disabled"),
        (OLD, [Message("assistant", (Text("a"), CALL)), ANSWERED, Message.of("user", "b")], "disabled"),
        (OLD, [Message("assistant", (FOREIGN, CALL)), ANSWERED], "disabled"),
        (OLD, [Message("assistant", (THOUGHT, CALL)), ANSWERED], "enabled"),
        (OLD, [Message("assistant", (THOUGHT, CALL)), ANSWERED, Message("assistant", (CALL,)), ANSWERED], "enabled"),
        (OLD, [Message("assistant", (CALL,)), ANSWERED, Message.of("assistant", "a"), *HI], "enabled"),
        (OLD, [Message.of("assistant", "a"), *HI], "enabled"),
        (MIDDLE, [Message("assistant", (CALL,)), ANSWERED], "adaptive"),
    ],
)
def test_thinking_with_a_budget_does_not_begin_between_calls(model: str, turns: list[Message], kind: str) -> None:
    """The vendor: "a final assistant message must start with a thinking block". Most clients return none."""
    more: dict[str, Any] = {"tools": (Tool(name="f"),), "reasoning_effort": "low"}
    assert sent(model, (*HI, *turns), **more)["thinking"]["type"] == kind
    assert sent(OLD, (*HI, *turns), **more, wire="anthropic")["thinking"]["type"] == "enabled"
    request = ChatRequest(model=model, messages=(*HI, *turns), parameters=Parameters(reasoning_effort="low"))
    told = [("reasoning_effort", "left_out", None)]
    assert (adjusted(CLIENT, request)[-1:] == told) == (kind == "disabled")
