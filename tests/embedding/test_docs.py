"""Every program in docs/embedding.md, and README's, runs as it is printed: the vendor alone is a fake."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import llm_runtime.opening
from llm_runtime import Config, LLMProvider, Provider, Runtime, Secret, open_runtime
from llm_runtime.fake import FakeProvider, FakeToolCall, ScriptRule

ROOT = Path(__file__).parents[2]


def programs(file: str) -> Iterator[tuple[str, str]]:
    """Each block of Python, and the heading it stands below."""
    heading = ""
    for title, block in re.findall(
        r"^#+ ([^\n]+)$|^```python\n(.*?)^```$", (ROOT / file).read_text(), re.DOTALL | re.M
    ):
        heading = title or heading
        if block:
            yield heading, block


def program(heading: str, saying: str = "", file: str = "docs/embedding.md") -> str:
    """The only block below ``heading`` that has ``saying`` in it."""
    [found] = [block for below, block in programs(file) if below == heading and saying in block]
    return found


TESTED = [
    ("On Trio", "trio.run(main)"),
    ("On Trio", "Config("),
    ("On asyncio", "asyncio.run(main())"),
    ("In threads, scripts and notebooks", "sync.open_runtime()"),
    ("In a daemon", "connect"),
    ("Sending requests", "rt.chat"),
    ("Images, documents and audio", "Document("),
    ("Streaming", "stream.text()"),
    ("Streaming", "match event"),
    ("Typed responses", "rt.chat"),
    ("Typed responses", "stream.partials()"),
    ("Tools", "rt.run_tools"),
    ("Tools by hand", "tools=[WEATHER]"),
    ("Several models", "collaborate"),
    ("Observers and middleware", "middleware="),
    ("Errors", "error.partial"),
    ("In your tests", "@pytest.fixture"),
]


def config(fake: FakeProvider) -> Config:
    kind = LLMProvider.OPENAI
    provider = Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("any"), models=("gpt-6-luna",))
    return Config(providers={"main": provider, "other": provider})


@asynccontextmanager
async def running(*rules: ScriptRule) -> AsyncIterator[Runtime]:
    async with FakeProvider(*rules) as fake, open_runtime(config(fake)) as rt:
        yield rt


async def run(source: str, **names: Any) -> dict[str, Any]:
    """Run a block that may await, and give the names it leaves."""
    names["__name__"] = "snippet"
    code = compile(source, "docs/embedding.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result
    return names


async def run_whole(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a program that ends in ``trio.run(main)`` within this run, with the fake for the provider it discovers."""
    mains: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(trio, "run", mains.append)
        await run(source)
    [main] = mains
    async with FakeProvider() as fake:
        monkeypatch.setattr(llm_runtime.opening, "_configured", lambda *_: config(fake))
        await main()


def test_no_program_is_left_out() -> None:
    assert [heading for heading, _ in programs("docs/embedding.md")] == [heading for heading, _ in TESTED]
    assert len({program(*each) for each in TESTED}) == len(TESTED)


async def test_the_first_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    await run_whole(program("On Trio", "trio.run(main)"), monkeypatch)
    assert capsys.readouterr().out.startswith("You said: Say hello. Usage(")


async def test_a_document_is_read() -> None:
    async with running() as rt:
        left = await run(program("Images, documents and audio", "Document("), rt=rt)
    assert left["response"].content == "You said: What does it say? [application/pdf, 18 bytes]"


async def test_the_program_in_the_readme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    await run_whole(program("Six ways to use it", "open_runtime", "README.md"), monkeypatch)
    assert capsys.readouterr().out.endswith("You said: Tell me a story.")


async def test_a_configuration_made_by_hand_goes_to_its_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def dial(_: object, host: str, port: int) -> trio.SocketStream:
        asked.append(f"{host}:{port}")
        raise OSError("no network here")

    monkeypatch.setattr("llm_actors.transport.dial.TcpDial.__call__", dial)
    source = (
        program("On Trio", "Config(")
        .replace("...", "await rt.models()")
        .replace("open_runtime(config):", "open_runtime(config) as rt:")
    )
    await run(source, key="sk-none")
    assert set(asked) == {"api.openai.com:443"}


async def test_asking() -> None:
    async with running() as rt:
        names = await run(program("Sending requests"), rt=rt)
    assert names["response"].content == "You said: Why?"
    assert len(names["vectors"]) == 2
    assert names["code"]


async def test_streaming_text(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as rt:
        await run(program("Streaming", "stream.text()"), rt=rt)
    assert capsys.readouterr().out.startswith("You said: Tell me a story.Usage(")


async def test_streaming_everything(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(ScriptRule(reasoning="Hm.", text="So.")) as rt:
        await run(program("Streaming", "match event"), rt=rt)
    assert capsys.readouterr().out == "reasoning: Hm.\nSo."


async def test_the_tool_loop_and_a_mistake_of_the_model() -> None:
    calls = (FakeToolCall(name="weather", arguments={"city": "Oslo"}), FakeToolCall(name="weather", arguments={}))
    async with running(ScriptRule(tool_calls=calls, times=1)) as rt:
        names = await run(program("Tools by hand"), rt=rt)
    assert [message.role for message in names["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert names["response"].content == "The tool said: Oslo: 7 degreesError: The city is missing."
    assert names["messages"][2].content[1].is_error


async def test_typed_answers(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as rt:
        names = await run(program("Typed responses", "rt.chat"), rt=rt)
        assert type(names["response"].parsed) is names["Person"]
        await run(program("Typed responses", "stream.partials()"), rt=rt, Person=names["Person"])
    assert "Person(name=" in capsys.readouterr().out


async def test_tools(capsys: pytest.CaptureFixture[str]) -> None:
    calls = [FakeToolCall(name="weather", arguments={"city": city}) for city in ("Oslo", "Rome")]
    async with running(ScriptRule(contains="weather", after_tool=False, tool_calls=tuple(calls))) as rt:
        names = await run(program("Tools"), rt=rt)
    assert [part.text for part in names["messages"][2].content] == ["Oslo: 7 degrees", "Rome: 7 degrees"]
    assert capsys.readouterr().out


async def test_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as rt:
        assert len((await run(program("Several models"), rt=rt))["answers"]) == 3
    assert capsys.readouterr().out


async def test_observers_and_middleware(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = await run(program("Observers and middleware"))
    async with FakeProvider() as fake:
        monkeypatch.setattr(llm_runtime.opening, "_configured", lambda *_: config(fake))
        await names["main"]()
    assert "gpt-6-luna" in capsys.readouterr().out


async def test_when_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(ScriptRule(status=401)) as rt:
        await run(program("Errors"), rt=rt)
    assert "auth None" in capsys.readouterr().out


async def test_the_test(tmp_path: Path) -> None:
    """It is what a reader's own test file would be, so it is run as one."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    (tmp_path / "test_mine.py").write_text(program("In your tests"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    with trio.fail_after(30):
        done = await trio.run_process(command, capture_stdout=True, check=False)
    assert b"1 passed" in done.stdout, done.stdout.decode()
