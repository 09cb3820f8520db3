"""Answers of a type, and tools, on every host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

import llm_runtime
from hosts.adapters import HOSTS, Scenario, called
from hosts.conftest import Upstream
from llm_protocol.content import ToolCall
from llm_protocol.events import Started
from llm_protocol.response import LLMResponse
from llm_runtime import Message, ResponseTypeError, ToolEnded, ToolStarted, tool
from llm_runtime.schemas import DoesNotFitError, fits, schema_of
from llm_runtime.typed import ResponseType, completed

Host = Callable[[Scenario, llm_runtime.Config], None]
on_every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)


class Person(msgspec.Struct):
    name: str
    age: int


@dataclass
class Place:
    city: Annotated[str, msgspec.Meta(description="a city's name")]
    people: list[Person]


class Entry(TypedDict):
    key: str


class Model(pydantic.BaseModel):
    name: str
    inner: list[Inner] = []


class Inner(pydantic.BaseModel):
    value: int


class Models(pydantic.RootModel[list[Model]]):
    pass


class Days(pydantic.RootModel[list[date]]):
    pass


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


@on_every_host
@pytest.mark.parametrize("kind", [Person, Place, Entry, list[Person], int], ids=str)
def test_an_answer_has_the_type_that_was_asked_for(host: Host, upstream: Upstream, kind: Any) -> None:
    async def scenario(rt: Any) -> None:
        response = await rt.chat("Who?", model="fake/m", response_type=kind)
        assert msgspec.convert(msgspec.to_builtins(response.parsed), kind) == response.parsed
        assert response.usage.output_tokens
        async with rt.stream("Who?", model="fake/m", response_type=kind) as stream:
            partials = [value async for value in stream.partials()]
            assert await called(stream.parsed) == response.parsed
        assert partials[-1] == msgspec.to_builtins(response.parsed)

    host(scenario, upstream.config)


@on_every_host
def test_what_does_not_fit_is_an_error_with_the_answer_or_repaired(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        with pytest.raises(
            ResponseTypeError, match="not JSON of the type Person: Object missing required field `age`"
        ) as e:
            await rt.chat("Who?", model="fake/wrong", response_type=Person)
        assert e.value.partial is not None
        assert e.value.partial.content == '{"name": "Ada"}'
        response = await rt.chat("Who?", model="fake/wrong", response_type=Person, repair=True)
        assert response.parsed == Person("Ada", 36)

    host(scenario, upstream.config)


@pytest.mark.parametrize("host", [HOSTS["trio"], HOSTS["sync"]])
def test_a_response_that_calls_tools_is_not_repaired(host: Host, upstream: Upstream) -> None:
    """Vendors refuse a conversation that goes on without the results of its calls."""

    async def scenario(rt: Any) -> None:
        tools = [weather.tool, tool(clock).tool]
        with pytest.raises(ResponseTypeError) as e:
            await rt.chat("The weather?", model="fake/m", response_type=Person, tools=tools, repair=True)
        assert e.value.partial is not None
        assert [call.name for call in e.value.partial.tool_calls] == ["weather", "clock"]

    before = upstream.journal()["asked"]
    host(scenario, upstream.config)
    assert upstream.journal()["asked"] == before + 1


def test_a_pydantic_model_is_a_type_too(upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        response = await rt.chat("Who?", model="fake/m", response_type=Model)
        assert isinstance(response.parsed, Model)
        with pytest.raises(ResponseTypeError, match="Field required"):
            await rt.chat("Who?", model="fake/wrong", response_type=Inner)

    HOSTS["trio"](scenario, upstream.config)
    assert "$ref" not in str(schema_of(Model))


def test_a_pydantic_root_model_is_a_type_too(upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        response = await rt.chat("Who?", model="fake/m", response_type=Models)
        assert [type(each) for each in response.parsed.root] == [Model]
        kind = ResponseType(Days)
        said = LLMResponse(request_id="r", provider="p", model="m", content='{"value": ["2026-01-31", "no day"]}')
        with pytest.raises(ResponseTypeError, match="valid date"):
            kind.parse(said)

    HOSTS["trio"](scenario, upstream.config)


@tool
def weather(city: Annotated[str, msgspec.Meta(description="where")], days: int = 1) -> dict[str, Any]:
    """The weather in a city.

    Of this the model is not told.
    """
    return {"city": city, "degrees": 7, "days": days}


def clock() -> str:
    raise RuntimeError("it has stopped")


def test_a_tool_is_made_of_its_function() -> None:
    assert weather.tool.name == "weather"
    assert weather.tool.description == "The weather in a city."
    properties = weather.tool.parameters["properties"]
    assert properties["city"] == {"type": "string", "description": "where"}
    assert weather.tool.parameters["required"] == ["city"]
    assert weather.tool.parameters["additionalProperties"] is False
    assert weather("Oslo")["degrees"] == 7, "it is still a function"
    with pytest.raises(TypeError, match="the tool untyped has no type for x: write for example x: str"):
        tool(untyped)
    with pytest.raises(TypeError, match="cannot be passed by name"):
        tool(lambda *rest: rest)


def untyped(x):  # type: ignore[no-untyped-def]
    return x


def test_schemas_have_no_references_unless_a_type_contains_itself() -> None:
    assert "$ref" not in str(schema_of(Place))
    schema = schema_of(Node)
    assert schema["type"] == "object"
    assert "#/$defs/Node" in str(schema["properties"])
    with pytest.raises(TypeError, match="there is no JSON schema for complex"):
        schema_of(complex)


@on_every_host
def test_the_loop_runs_tools_until_none_is_called(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        events: list[Any] = []
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], on_event=events.append)
        assert (run.stopped, run.rounds, run.response.tool_calls) == ("done", 2, ())
        assert [message.role for message in run.messages] == ["user", "assistant", "tool", "assistant"]
        one, two = run.messages[2].content
        assert one.text == '{"city":"Oslo","degrees":7,"days":1}'
        assert (two.text, two.is_error) == ("RuntimeError: it has stopped", True)
        assert {event.call.name for event in events if isinstance(event, ToolStarted)} == {"weather", "clock"}
        assert len([event for event in events if isinstance(event, ToolEnded)]) == 2
        assert len([event for event in events if isinstance(event, Started)]) == 2
        assert run.cost is None, "the price of this model is not known"

    host(scenario, upstream.config)


@on_every_host
def test_a_loop_without_room_for_a_tool_is_refused_at_once(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        with pytest.raises(ValueError, match="parallel must be at least 1"):
            await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], parallel=0)

    host(scenario, upstream.config)


@on_every_host
def test_two_tools_with_the_same_name_are_refused_at_once(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        with pytest.raises(ValueError, match="there are two tools with the name weather"):
            await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock, weather])

    host(scenario, upstream.config)


@on_every_host
def test_calls_are_approved_or_refused(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        def approve(call: Any) -> bool | str:
            return "Ask me first." if call.name == "weather" else False

        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], approve=approve)
        assert [part.text for part in run.messages[2].content] == ["Ask me first.", "This call was not approved."]

    host(scenario, upstream.config)


@on_every_host
def test_a_loop_ends_after_so_many_rounds_or_when_told(host: Host, upstream: Upstream) -> None:
    async def scenario(rt: Any) -> None:
        run = await rt.run_tools("The weather?", model="fake/endless", tools=[weather, clock], max_rounds=3)
        assert (run.stopped, run.rounds, run.messages[-1].role) == ("rounds", 3, "tool")
        run = await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], until=lambda _: True)
        assert (run.stopped, run.rounds, run.messages) == ("asked", 1, (Message.of("user", "The weather?"),))
        assert len(run.response.tool_calls) == 2

    host(scenario, upstream.config)


@on_every_host
def test_what_the_model_gets_wrong_it_is_told(host: Host, upstream: Upstream) -> None:
    @tool(name="weather")
    def other(town: str) -> str:
        return town

    async def scenario(rt: Any) -> None:
        run = await rt.run_tools("The weather?", model="fake/m", tools=[other])
        first, second = run.messages[2].content
        assert first.text.startswith("The arguments do not fit: Object contains unknown field `city`")
        assert second.text == "There is no tool 'clock'. There are: weather."

    host(scenario, upstream.config)


@on_every_host
def test_what_an_approval_raises_comes_out_as_itself(host: Host, upstream: Upstream) -> None:
    def approve(call: Any) -> bool:
        raise KeyError("mine")

    async def scenario(rt: Any) -> None:
        with pytest.raises(KeyError, match="mine"):
            await rt.run_tools("The weather?", model="fake/m", tools=[weather, clock], approve=approve)

    host(scenario, upstream.config)


def test_an_answer_or_a_call_that_is_nested_too_deeply_does_not_fit() -> None:
    deep = '{"entries": ' + "[" * 100_000
    with pytest.raises(DoesNotFitError, match="nested too deeply"):
        fits(dict[str, Any], deep)
    assert completed(deep) is None

    def look_up(entries: dict[str, Any]) -> str:
        raise AssertionError

    with pytest.raises(DoesNotFitError, match="nested too deeply"):
        tool(look_up).arguments(ToolCall(id="c", name="look_up", arguments=deep.replace("[", '{"a":')))
