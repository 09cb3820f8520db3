"""Which rule decides, what a script file may say, and what is told of mistakes in it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.content import Message, Text, ToolResult
from llm_protocol.dialect import ClientRequest
from llm_protocol.errors import BadRequestError
from llm_protocol.requests import ChatRequest, EmbeddingRequest, LLMProvider, RequestType
from llm_runtime.fake import FakeToolCall, Fault, ScriptRule, load_script
from llm_runtime.fake.sample import MAX_DEPTH, MAX_VALUES, sample
from llm_runtime.fake.script import USUAL, Script, fault_named
from support.faking import chat

OPENAI, GEMINI = LLMProvider.OPENAI, LLMProvider.GEMINI
HELLO = ClientRequest(chat(model="gpt-5"), stream=True)
RESULT = Message("tool", (ToolResult(call_id="c", content=(Text("4 degrees"),)),))


def test_the_first_rule_that_fits_decides() -> None:
    script = Script([ScriptRule(kind=GEMINI, text="a"), ScriptRule(model="gpt-*", text="b"), ScriptRule(text="c")])
    assert [script.choose(kind, HELLO, None).text for kind in (OPENAI, GEMINI)] == ["b", "a"]


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (ScriptRule(), True),
        (ScriptRule(kind=OPENAI), True),
        (ScriptRule(kind=GEMINI), False),
        (ScriptRule(model="gpt-?"), True),
        (ScriptRule(model="gpt"), False),
        (ScriptRule(request_type=RequestType.CHAT), True),
        (ScriptRule(request_type=RequestType.EMBEDDING), False),
        (ScriptRule(stream=True), True),
        (ScriptRule(stream=False), False),
        (ScriptRule(contains="there"), True),
        (ScriptRule(contains="elsewhere"), False),
        (ScriptRule(after_tool=True), False),
        (ScriptRule(after_tool=False), True),
    ],
)
def test_a_rule_fits_by_everything_it_says(rule: ScriptRule, fits: bool) -> None:
    assert rule.matches(OPENAI, HELLO) is fits


def test_a_rule_with_calls_leaves_their_results_to_others() -> None:
    after = ClientRequest(ChatRequest(model="m", messages=(RESULT,)))
    assert not ScriptRule(tool_calls=(FakeToolCall(name="f"),)).matches(OPENAI, after)
    assert ScriptRule(tool_calls=(FakeToolCall(name="f"),), after_tool=True).matches(OPENAI, after)
    assert ScriptRule(contains="4 degrees").matches(OPENAI, after)


def test_what_an_embedding_says_is_in_its_inputs() -> None:
    assert ScriptRule(contains="two").matches(OPENAI, ClientRequest(EmbeddingRequest(model="e", inputs=("one", "two"))))


def test_the_nth_and_the_first_times() -> None:
    script = Script([ScriptRule(nth=2, text="second"), ScriptRule(times=2, text="early")])
    assert [script.choose(OPENAI, HELLO, None).text for _ in range(5)] == ["early", "second", "early", None, None]


def test_a_header_and_a_models_name_come_before_the_rules() -> None:
    script = Script([ScriptRule(text="rule")])
    assert script.choose(OPENAI, HELLO, "stall@0") == ScriptRule(fault=Fault.STALL, after_events=0)
    assert script.choose(OPENAI, ClientRequest(chat(model="some/fault-503")), None) == ScriptRule(status=503)
    assert Script().choose(OPENAI, HELLO, None) is USUAL


@pytest.mark.parametrize(
    "word",
    ["", "teapot", "200", "600", "reset@", "reset@x", "4290", "429 ", "\u0664\u0662\u0669", "4" * 5000],
)
def test_a_fault_that_there_is_not_is_told_with_those_there_are(word: str) -> None:
    with pytest.raises(BadRequestError, match=r"write 400 to 599, or one of truncate, close, reset"):
        fault_named(word)


def test_a_file_says_all_that_a_rule_can(tmp_path: Path) -> None:
    file = tmp_path / "script.toml"
    file.write_text("""
[[rule]]
kind = "anthropic"
model = "claude-*"
nth = 2
status = 529
retry_after = 1.5
headers = { "anthropic-ratelimit-requests-remaining" = "0" }

[[rule]]
contains = "weather"
tool_calls = [{ name = "weather", arguments = { city = "Oslo" } }, { name = "time" }]
usage = { input_tokens = 10, output_tokens = 3 }

[[rule]]
fault = "bomb-line"
after_events = 2
""")
    first, second, third = load_script(file)
    assert (first.kind, first.nth, first.status, first.retry_after) == (LLMProvider.ANTHROPIC, 2, 529, 1.5)
    assert second.tool_calls == (FakeToolCall(name="weather", arguments={"city": "Oslo"}), FakeToolCall(name="time"))
    assert third == ScriptRule(fault=Fault.BOMB_LINE, after_events=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[rule]]\nstatus = 200", ":2: rule[0].status: expected a whole number of at least 400"),
        ("[[rule]]\nstaus = 429", ':2: rule[0].staus: unknown key; did you mean "status"?'),
        ('[[rule]]\nfault = "x"', ":2: rule[0].fault: not one of truncate, close,"),
        ("[[rules]]", ':1: rules: unknown key; did you mean "rule"?'),
        ("[[rule]]\n[[rule]]\nnth = 0", ":3: rule[1].nth: expected a whole number of at least 1"),
        ("[[rule]]\ntool_calls = [{ nme = 'x' }]", ":2: rule[0].tool_calls[0].nme: unknown key"),
        ("rule = 3", ":1: rule: expected at most 1000 tables [[rule]]"),
        ("[[rule]]\nheaders = { 'x y' = 'a' }", ":2: rule[0].headers.x y: not a valid header name"),
        ("[[rule]]\nheaders = { x = '\u20ac' }", ":2: rule[0].headers.x: a header's value must be printable Latin-1"),
        ("[[rule]]\nheaders = { x = 'a\\r\\nb: c' }".replace("'a", '"a').replace("c'", 'c"'), "must be printable"),
        ("[[rule]", "not TOML"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "script.toml"
    file.write_text(text)
    with pytest.raises(BadRequestError) as caught:
        load_script(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert told in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="cannot be read: No such file"):
        load_script(tmp_path / "none.toml")


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "hi"),
        ({"type": "string", "maxLength": 1}, "h"),
        ({"type": "string", "minLength": 4}, "hi.."),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "number", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "NULL"}, None),
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 1),
        ({"properties": {"a": {"type": "object", "properties": {"b": {"type": "boolean"}}}}}, {"a": {"b": True}}),
        ({"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}, {"a": 1}),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}], "type": "object"},
            {"a": 1, "b": 2},
        ),
    ],
)
def test_a_sample_fits_its_schema(schema: dict[str, object], value: object) -> None:
    assert sample(schema, "hi") == value


def test_a_schema_that_contains_itself_ends() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}}
    assert json.dumps(sample(tree)).count("child") == MAX_DEPTH // 2 + 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcd"}},
        {"type": "array", "minItems": 4000, "items": {"type": "array", "minItems": 4000, "items": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_contains_itself_many_times_is_sampled_in_part(schema: dict[str, object]) -> None:
    assert len(json.dumps(sample(schema))) < 20 * MAX_VALUES


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["#", "#/a", "object", "array", "string", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "allOf", "anyOf", "$ref", "enum", "minItems", "maxLength", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "items", "allOf", "oneOf", "$ref", "a"]), ODD, max_size=4)
)
def test_no_schema_however_odd_breaks_the_sampler(schema: dict[str, object]) -> None:
    json.dumps(sample(schema))
