# pyright: strict
"""A program as a user's editor sees it: every public name, checked by mypy and pyright at their strictest.

It is checked and not run; tests/embedding and tests/hosts run the same calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

import msgspec
import trio

import llm_runtime
from llm_runtime import (
    AnyRequest,
    AttemptEnded,
    AttemptsPatch,
    AttemptStarted,
    Audio,
    CacheStore,
    ChatRequest,
    ChoiceFinished,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    Config,
    ConfigError,
    Document,
    Embedding,
    EmbeddingRequest,
    Event,
    EventsDropped,
    Failed,
    Failure,
    FailureKind,
    Finished,
    FinishReason,
    FirstToken,
    FunctionTool,
    HostedTool,
    Image,
    ImageRequest,
    ItemDone,
    ItemStarted,
    LLMClientError,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    MemberDelta,
    MemberDone,
    MemberFailed,
    MemberStarted,
    Message,
    Middleware,
    Next,
    Observer,
    Opaque,
    OrderingFunction,
    OrderingInputs,
    Parameters,
    ParsedResponse,
    Policy,
    Provider,
    RankedCandidate,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    RemoteRuntime,
    RequestType,
    ResponseFormat,
    ResponseStream,
    ResponseTypeError,
    Restarted,
    RunAccepted,
    RunEvent,
    RunFailed,
    RunFinished,
    Runtime,
    Secret,
    Started,
    StrategyFunction,
    Team,
    Text,
    TextDelta,
    TimeoutsPatch,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolEnded,
    ToolResult,
    ToolRun,
    ToolStarted,
    Usage,
    UsageReported,
    aio,
    connect,
    open_runtime,
    sync,
    tool,
)


class Person(msgspec.Struct):
    """A typed answer."""

    name: str


@dataclass
class City:
    """Another one."""

    name: str


@tool
async def weather(city: Annotated[str, msgspec.Meta(description="a city's name")]) -> str:
    """The weather in a city."""
    return f"{city}: 7 degrees"


@tool
def clock() -> int:
    """The time."""
    return 7


CONFIG = Config(
    providers={"main": Provider(kind=LLMProvider.OPENAI, api_key=Secret("k"), models=("m",))},
    routes={"careful": Policy(candidates=("main/m",), strategy="own", select="cheapest")},
)
POLICY = Policy(strategy="panel", attempts=AttemptsPatch(max=1), timeouts=TimeoutsPatch(idle=5), members=2)
FORMAT = ResponseFormat(type="json_schema", name="answer", schema={"type": "object"})
SEARCH = HostedTool(dialect="openai_responses", value={"type": "web_search"})
WEATHER = Tool(name="weather", description="The weather.", parameters={"type": "object"})


# -- what a program adds --------------------------------------------------------------------------------


def observe(event: RunEvent) -> None:
    """Every event of a run."""
    match event:
        case RunAccepted():
            assert_type(event.request_type, RequestType)
        case AttemptStarted() | AttemptEnded():
            print(event.provider, event.model)
        case FirstToken():
            assert_type(event.seconds, float)
        case RunFinished():
            assert_type(event.usage, Usage | None)
        case RunFailed():
            assert_type(event.failure, Failure)
        case EventsDropped():
            assert_type(event.count, int)


async def careful(request: AnyRequest, proceed: Next) -> LLMResponse:
    """Middleware."""
    assert isinstance(request, LLMRequest)
    return await proceed(request)


def blocking(request: AnyRequest, proceed: Any) -> LLMResponse:
    """Middleware for threads."""
    response: LLMResponse = proceed(request)
    return response


async def agreed(team: Team) -> LLMResponse | str:
    """A strategy."""
    first, *others = await team.ask(["main/m"], enough=1, seconds=10)
    team.note("others", len(others))
    if others:
        return await team.stream("main/m", team.about(others, "{answers}"))
    return first if first.content else "nothing"


def agreed_in_a_thread(team: sync.SyncTeam) -> LLMResponse:
    """The same for threads."""
    return team.ask()[0] if team.candidates else team.stream("main/m", team.request)


def by_price(choices: list[RankedCandidate], inputs: OrderingInputs) -> Sequence[RankedCandidate]:
    """An ordering."""
    return sorted(choices, key=lambda each: each.figures.cost_usd or inputs.draw)


class Shelf:
    """A store for the cache."""

    def get(self, key: bytes, /) -> bytes | None:
        """See `CacheStore`."""
        return None

    def put(self, key: bytes, value: bytes, ttl_s: float, /) -> None:
        """See `CacheStore`."""


OBSERVERS: list[Observer] = [observe]
MIDDLEWARE: list[Middleware] = [careful]
STRATEGIES: dict[str, StrategyFunction] = {"own": agreed}
ORDERINGS: dict[str, OrderingFunction] = {"own": by_price}
STORE: CacheStore = Shelf()


# -- what a program does --------------------------------------------------------------------------------


def show(event: Event) -> None:
    """Every event of a stream."""
    match event:
        case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta():
            assert_type(event.text, str)
        case Started() | ItemStarted() | ItemDone() | UsageReported() | Restarted():
            print(event)
        case MemberStarted() | MemberDelta() | MemberDone() | MemberFailed():
            assert_type(event.member, str)
        case Finished() | ChoiceFinished():
            assert_type(event.reason, FinishReason)
        case Failed():
            assert_type(event.failure.kind, FailureKind)
        case _:
            print("embeddings or images")


def read(response: LLMResponse) -> None:
    """Every part of a response."""
    for part in response.output:
        match part:
            case Text() | Reasoning() | Refusal():
                print(part.text)
            case Image() | Document() | Audio() | ToolCall() | ToolResult() | Opaque():
                print(part)
    for vector in response.embeddings:
        assert_type(vector, Embedding)


async def ask(rt: Runtime | RemoteRuntime) -> None:
    """Every kind of request, on Trio."""
    messages = [Message.of("system", "Be short."), Message("user", (Text("Look."), Image(url="https://example.com/a")))]
    read(
        await rt.chat(
            messages,
            tools=[WEATHER, HostedTool(dialect="openai_responses", value={"type": "web_search"})],
            tool_choice=ToolChoice(mode="auto"),
        )
    )
    person = await rt.chat("Who?", response_type=Person, repair=True)
    assert_type(person, ParsedResponse[Person])
    assert_type(person.parsed, Person)
    cities = await rt.chat("Where?", response_type=list[City], response_format=FORMAT)
    assert_type(cities.parsed, list[City])
    requests: list[AnyRequest] = [
        ChatRequest(messages=tuple(messages), parameters=Parameters(temperature=0.5), policy=POLICY),
        CompletionRequest(prompt="Once"),
        CodeRequest(instruction="Add.", files=(CodeFile(path="a.py", content=""),)),
        EmbeddingRequest(inputs=("one",)),
        ImageRequest(prompt="A cat."),
    ]
    for request in requests:
        assert_type(await rt.send(request), LLMResponse)
    assert_type(await rt.collaborate("Sound?", members=2), list[LLMResponse])
    await rt.complete("Once", temperature=0.5)
    await rt.generate_code("Add.", language="python")
    await rt.embed(["one"])
    await rt.generate_image("A cat.")
    run = await rt.run_tools("Weather?", tools=[weather, clock], on_event=tell)
    assert_type(run, ToolRun)


def tell(event: Any) -> None:
    """The events of tools."""
    if isinstance(event, ToolStarted | ToolEnded):
        print(event.call.name)


async def stream(rt: Runtime | RemoteRuntime) -> None:
    """A stream, on Trio."""
    answer = rt.stream("Tell me a story.", response_type=Person)
    assert_type(answer, ResponseStream)
    try:
        async with answer:
            async for event in answer:
                show(event)
    except ResponseTypeError as error:
        print(error.failure.message)
    except LLMClientError as error:
        assert_type(error.partial, LLMResponse | None)


async def on_trio() -> None:
    """The runtime in this process, and one in a daemon."""
    async with open_runtime(
        CONFIG,
        observers=OBSERVERS,
        middleware=MIDDLEWARE,
        strategies=STRATEGIES,
        orderings=ORDERINGS,
        cache_store=STORE,
    ) as rt:
        await ask(rt)
        await stream(rt)
        print(rt.tree(), rt.is_ready(), await rt.models(), await rt.explain("careful"), rt.model_list())
    async with connect("http://127.0.0.1:8080", key="k", observers=OBSERVERS, middleware=MIDDLEWARE) as remote:
        await ask(remote)
        await stream(remote)
        print(await remote.tree(), await remote.is_ready())


async def on_asyncio() -> None:
    """The same on asyncio."""
    async with aio.open_runtime(
        CONFIG,
        observers=OBSERVERS,
        middleware=MIDDLEWARE,
        strategies=STRATEGIES,
        orderings=ORDERINGS,
        cache_store=STORE,
    ) as rt:
        assert_type(rt, aio.AsyncioRuntime)
        person = await rt.chat("Who?", response_type=Person)
        assert_type(person.parsed, Person)
        answer = rt.stream("Tell me a story.")
        assert_type(answer, aio.AsyncioStream)
        async with answer:
            async for text in answer.text():
                assert_type(text, str)
        assert_type(await rt.run_tools("Weather?", tools=[weather]), ToolRun)
        assert_type(await rt.collaborate("Sound?"), list[LLMResponse])
    async with aio.connect("http://127.0.0.1:8080", key=Secret("k")) as remote:
        assert_type(remote, aio.AsyncioRemoteRuntime)
        assert_type(await remote.chat("Hi."), LLMResponse)


def in_threads() -> None:
    """The same without an event loop."""
    own: dict[str, sync.SyncStrategy] = {"own": agreed_in_a_thread}
    around: list[sync.SyncMiddleware] = [blocking]
    with sync.open_runtime(
        CONFIG, observers=OBSERVERS, middleware=around, strategies=own, orderings=ORDERINGS, cache_store=STORE
    ) as rt:
        assert_type(rt, sync.SyncRuntime)
        assert_type(rt.chat("Who?", response_type=Person).parsed, Person)
        with rt.stream("Tell me a story.") as answer:
            assert_type(answer, sync.SyncStream)
            for text in answer.text():
                assert_type(text, str)
        assert_type(rt.run_tools("Time?", tools=[clock]), ToolRun)
    with sync.connect("http://127.0.0.1:8080", key="k") as remote:
        assert_type(remote.embed(["one"]), LLMResponse)


def main() -> None:
    """All hosts."""
    functions: list[FunctionTool[..., Any]] = [weather, clock]
    print(llm_runtime.__version__, functions)
    try:
        trio.run(on_trio)
    except ConfigError as error:
        print(error.all)
    asyncio.run(on_asyncio())
    in_threads()
