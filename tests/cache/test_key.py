"""Whatever an answer depends on is in its key, field by field."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.cache.key import KEY_BYTES, LEFT_OUT, CacheKey, Target, key_of
from llm_protocol.content import (
    Audio,
    Citation,
    Document,
    HostedTool,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.policy import AttemptsPatch, Policy, TimeoutsPatch
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
)

TARGETS = (Target("a", "m1", "openai_chat", 1, "https://a.test"), Target("b", "m2", "anthropic", 2))
POLICY = Policy(candidates=("a/m1", "b/m2"), strategy="fallback", select="order")
EXTRA: dict[str, dict[str, Any]] = {"gemini": {"x": 1}}
PARAMETERS = Parameters(
    temperature=0.5,
    top_p=0.5,
    top_k=4,
    max_output_tokens=100,
    stop=("x", "y"),
    frequency_penalty=0.1,
    presence_penalty=0.2,
    seed=7,
    reasoning_effort="low",
    reasoning_budget=10,
    reasoning_summary="auto",
    parallel_tool_calls=True,
    user="u",
    lenient=True,
    wire="a",
    headers={"x": "y"},
    extra=EXTRA,
)
COMMON: dict[str, Any] = {
    "request_id": "req_1",
    "provider": "a",
    "model": "m1",
    "parameters": PARAMETERS,
    "context": {"topic": "x"},
    "metadata": {"note": "x"},
    "timestamp": 1.0,
    "deadline_s": 5.0,
    "caller": "alice",
    "policy": POLICY,
    "forwarded": {"traceparent": "00"},
    "one_of": 2,
}
PARTS = (
    Text("hi", "sig", EXTRA, (Citation(url="u", title="t", start=1, end=2, quote="q"),), ({"token": "hi"},)),
    Image(url="https://x.test/1.png", detail="low"),
    Image(data=b"\x89PNG", media_type="image/png", signature="s", extra=EXTRA),
    Document(data=b"%PDF-1", media_type="application/pdf", title="t", context="c", pages=2, extra=EXTRA),
    Document(base64="eA==", media_type="text/plain"),
    Document(file_id="f1", vendor="openai"),
    Document(text="x", title="t"),
    Document(url="https://x.test/1.pdf", title="t"),
    Audio(data=b"RIFF", media_type="audio/wav", title="t", extra=EXTRA),
    Audio(base64="eA==", media_type="audio/wav"),
    Audio(url="https://x.test/1.wav", media_type="audio/wav"),
    Audio(file_id="f1", vendor="openai"),
    Reasoning(
        text="hm",
        signature="s",
        encrypted="e",
        id="rs_1",
        dialect="openai_responses",
        extra={"openai_chat": {"format": "x"}},
    ),
    ToolCall(id="c1", name="f", arguments='{"x": 1}', signature="s", extra=EXTRA),
    ToolResult(call_id="c1", content=(Text("1"),), name="f", is_error=True, extra=EXTRA),
    Refusal("no"),
    Opaque(dialect="anthropic", value={"x": 1}),
)
REQUESTS: tuple[AnyRequest, ...] = (
    ChatRequest(
        messages=(
            Message.of("system", "be brief"),
            Message("user", PARTS, "bob", {"openai_chat": {"audio": {"id": "a"}}}),
        ),
        tools=(
            Tool(name="f", description="d", parameters={"type": "object"}, strict=True, extra=EXTRA),
            HostedTool(dialect="anthropic", value={"type": "web_search"}),
        ),
        tool_choice=ToolChoice("named", "f"),
        response_format=ResponseFormat(
            type="json_schema", name="n", schema={"type": "object"}, strict=True, description="d"
        ),
        n=2,
        **COMMON,
    ),
    CompletionRequest(prompt="once", suffix="end", **COMMON),
    EmbeddingRequest(inputs=("one", "two"), dimensions=8, input_type="search_query", **COMMON),
    ImageRequest(
        prompt="a cat",
        n=2,
        size="8x8",
        quality="low",
        output_format="png",
        background="transparent",
        images=(Image(data=b"1", media_type="image/png"),),
        mask=Image(data=b"2", media_type="image/png"),
        **COMMON,
    ),
    CodeRequest(
        instruction="sort", language="python", prefix="def", suffix="end", files=(CodeFile("a.py", "x = 1"),), **COMMON
    ),
)

# Whoever adds a field to one of these decides here whether answers depend on it. If they do not, it goes into LEFT_OUT.
COMMON_FIELDS = (
    "request_id provider model parameters context metadata timestamp deadline_s caller policy forwarded one_of"
)
DECIDED = {
    ChatRequest: f"{COMMON_FIELDS} messages tools tool_choice response_format n",
    CompletionRequest: f"{COMMON_FIELDS} prompt suffix",
    EmbeddingRequest: f"{COMMON_FIELDS} inputs dimensions input_type",
    ImageRequest: f"{COMMON_FIELDS} prompt n size quality output_format background images mask",
    CodeRequest: f"{COMMON_FIELDS} instruction language prefix suffix files",
    Parameters: "temperature top_p top_k max_output_tokens stop frequency_penalty presence_penalty seed"
    " reasoning_effort reasoning_budget reasoning_summary parallel_tool_calls user lenient wire headers extra",
    Message: "role content name extra",
    Text: "text signature extra citations logprobs",
    Citation: "url title start end quote",
    Image: "url data media_type detail signature extra",
    Document: "data base64 url file_id vendor media_type title extra text context pages",
    Audio: "data base64 url file_id vendor media_type title extra",
    Reasoning: "text signature encrypted id dialect extra",
    ToolCall: "id name arguments signature extra",
    ToolResult: "call_id content name is_error extra",
    Refusal: "text",
    Opaque: "dialect value",
    Tool: "name description parameters strict extra",
    HostedTool: "dialect value",
    ToolChoice: "mode name",
    ResponseFormat: "type name schema strict description",
    CodeFile: "path content",
    Policy: "candidates strategy select shares on_broken_stream deadline_s timeouts attempts cache strict hedge"
    " priority"
    " members quorum grace_s member_deadline_s refill rounds samples synthesiser template judge share_context"
    " share_knowledge max_cost max_tokens stream_members",
    TimeoutsPatch: "connect first_token idle total",
    AttemptsPatch: "max wait_min_s wait_max_s",
}


class Place(msgspec.Struct, frozen=True):
    """One field somewhere in a request: how to come there, and whose it is."""

    path: tuple[str | int, ...]
    owner: type[msgspec.Struct]

    @property
    def left_out(self) -> bool:
        return self.path[0] in LEFT_OUT[LLMRequest]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    """Every field of every struct in ``value`` that is set."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if getattr(value, name) not in (None, ()):
                yield Place((*path, name), type(value))
                yield from places(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step] if isinstance(step, int) else getattr(value, step)
    return value


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return (*value[:step], replaced(value[step], rest, new), *value[step + 1 :])
    return msgspec.structs.replace(value, **{step: replaced(getattr(value, step), rest, new)})


def others(old: Any) -> list[Any]:
    """Values that are not ``old`` but might stand in its place."""
    match old:
        case bool():
            return [not old, None]
        case int() | float():
            return [old + 1, old / 2, None]
        case str():
            return [old + "x", old.upper() + " ", "", None]
        case bytes():
            return [old + b"\0", b"", None]
        case tuple():
            return [old[:-1], (*old, old[-1]), *([old[::-1]] if old[::-1] != old else []), ()]
        case dict():
            return [{**old, "more": 1}, {}, {**old, "more": None}]
        case msgspec.Struct():
            return [None]
    raise AssertionError(type(old))


def changes(request: Any, place: Place) -> list[Any]:
    """Requests that differ in that place. A document that would contradict itself cannot be made."""
    found = []
    for new in others(at(request, place.path)):
        with suppress(ValueError):
            found.append(replaced(request, place.path, new))
    return [each for each in found if each != request]


ALL = [(request, place) for request in REQUESTS for place in places(request)]
CHANGING = [(request, place) for request, place in ALL if changes(request, place)]


def the_key(request: AnyRequest) -> CacheKey:
    found = key_of(request, TARGETS, POLICY)
    assert found is not None
    assert len(found) == KEY_BYTES
    return found


def test_every_field_of_every_request_has_been_decided_upon() -> None:
    """A new field anywhere in a request fails this test until its author says what it means for the key."""
    seen: dict[type, str] = {}

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in seen:
            seen[kind] = " ".join(kind.__struct_fields__)
            for field in msgspec.structs.fields(kind):
                walk(field.type)
        for inner in get_args(kind):
            walk(inner)

    walk(AnyRequest)
    assert {kind: set(names.split()) for kind, names in seen.items()} == {
        kind: set(names.split()) for kind, names in DECIDED.items()
    }


def test_the_examples_set_every_field() -> None:
    reached = {(place.owner, str(place.path[-1])) for _, place in ALL}
    deep = {Policy, TimeoutsPatch, AttemptsPatch}  # below `policy`, which is left out as a whole
    wanted = {(kind, name) for kind, names in DECIDED.items() if kind not in deep for name in names.split()}
    assert wanted - reached == set()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_each_change_of_each_field_changes_the_key(request_: AnyRequest) -> None:
    """Of what is not in `LEFT_OUT`, every value tells; of what is, none does."""
    before = the_key(request_)
    for place in places(request_):
        for changed in changes(request_, place):
            assert (the_key(changed) == before) is place.left_out, str(place.path)


@given(st.sampled_from(CHANGING), st.sampled_from(CHANGING), st.data())
def test_two_changes_never_cancel_out(
    one: tuple[AnyRequest, Place], other: tuple[AnyRequest, Place], data: st.DataObject
) -> None:
    (request, place), (request2, place2) = one, other
    first = data.draw(st.sampled_from(changes(request, place)))
    second = data.draw(st.sampled_from(changes(request2, place2)))
    neutral: dict[str, Any] = LEFT_OUT[LLMRequest]
    same = msgspec.structs.replace(first, **neutral) == msgspec.structs.replace(second, **neutral)
    same = same and type(first) is type(second)
    assert (the_key(first) == the_key(second)) is same


def test_the_order_of_tools_and_of_schema_fields_counts() -> None:
    [chat, *_] = REQUESTS
    assert isinstance(chat, ChatRequest)
    assert the_key(chat) != the_key(msgspec.structs.replace(chat, tools=chat.tools[::-1]))
    schemas = [{"a": {"type": "string"}, "b": {}}, {"b": {}, "a": {"type": "string"}}]
    keys = {
        the_key(msgspec.structs.replace(chat, response_format=ResponseFormat(type="json_schema", schema=each)))
        for each in schemas
    }
    assert len(keys) == 2


def test_the_type_of_a_request_counts() -> None:
    assert the_key(CompletionRequest(prompt="x")) != the_key(ImageRequest(prompt="x"))


@pytest.mark.parametrize("field", Target._fields)
def test_who_may_answer_counts(field: str) -> None:
    """Another provider, model, dialect, dialect version or address is another key."""
    request = REQUESTS[0]
    old = getattr(TARGETS[0], field)
    changed: dict[str, Any] = {field: old + 1 if isinstance(old, int) else old + "x"}
    other = TARGETS[0]._replace(**changed)
    assert key_of(request, (other, *TARGETS[1:]), POLICY) != the_key(request)
    assert key_of(request, TARGETS[:1], POLICY) != the_key(request)
    assert key_of(request, TARGETS[::-1], POLICY) != the_key(request)


POLICIES: dict[str, Any] = {
    "candidates": ("b/m2",),
    "strategy": "single",
    "select": "cheapest",
    "shares": {"a/m": 2.0},
    "on_broken_stream": "restart",
    "deadline_s": 3.0,
    "timeouts": TimeoutsPatch(idle=1.0),
    "attempts": AttemptsPatch(max=1),
    "cache": "refresh",
    "strict": True,
    "hedge": True,
    "priority": 1,
    "members": ("a/m1",),
    "quorum": 2,
    "grace_s": 1.0,
    "member_deadline_s": 1.0,
    "refill": True,
    "rounds": 2,
    "samples": 2,
    "synthesiser": "longest",
    "template": "{answers}",
    "judge": "a/m1",
    "share_context": "all",
    "share_knowledge": True,
    "max_cost": 1.0,
    "max_tokens": 10,
    "stream_members": True,
}


@pytest.mark.parametrize("field", Policy.__struct_fields__)
def test_how_one_is_chosen_counts_and_how_hard_it_is_tried_does_not(field: str) -> None:
    request = REQUESTS[0]
    changed = key_of(request, TARGETS, msgspec.structs.replace(POLICY, **{field: POLICIES[field]}))
    assert (changed == the_key(request)) is (field in LEFT_OUT[Policy])


def test_a_key_is_the_same_in_another_process() -> None:
    """A file outlives the process, so a key must not depend on hash seeds or addresses."""
    code = (
        "from llm_actors.cache.key import *; from llm_protocol.requests import *; from llm_protocol.policy import *\n"
        "print(key_of(CompletionRequest(prompt='x'), [Target('a', 'm1', 'openai_chat', 1)], Policy()).hex())"
    )
    command = [sys.executable, "-P", "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    here = key_of(CompletionRequest(prompt="x"), [Target("a", "m1", "openai_chat", 1)], Policy())
    assert here is not None
    assert here.hex() == there


def test_what_depends_on_the_conversation_so_far_has_no_key() -> None:
    assert key_of(REQUESTS[0], TARGETS, Policy(share_knowledge=True)) is None


@pytest.mark.parametrize("odd", ["\ud83d", 2**70, object()])
def test_what_has_no_canonical_bytes_has_no_key(odd: object) -> None:
    assert key_of(CompletionRequest(prompt="x", context={"odd": odd}), TARGETS, POLICY) is None
