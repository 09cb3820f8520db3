"""``llm-runtime chat`` as a person meets it: a real process, a terminal or a pipe, and a provider on loopback."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import pytest
import trio

from llm_runtime.cli.conversation import place
from llm_runtime.fake import FakeProvider, Fault, ScriptRule
from support import commands


@final
class Chats:
    """``chat`` with a configuration whose provider is the fake."""

    def __init__(self, fake: FakeProvider, folder: Path) -> None:
        self.fake = fake
        self.environ = {"XDG_STATE_HOME": str(folder / "state"), "TERM": "dumb"}
        self.config = folder / "c.toml"
        self.config.write_text(
            f'[providers.fake]\nkind = "openai_compatible"\nbase_url = "{fake.base_url("openai_compatible")}"\n'
            'models = ["m", "n"]\n'
        )

    async def piped(self, text: str, *arguments: str, command: str = "chat") -> commands.Done:
        return await commands.run(
            command, "--config", str(self.config), *arguments, stdin=text.encode(), **self.environ
        )

    @asynccontextmanager
    async def terminal(self, *arguments: str) -> AsyncIterator[Terminal]:
        """A chat in a terminal of its own."""
        main, other = pty.openpty()
        command = [*commands.COMMAND, "chat", "--config", str(self.config), *arguments]
        environ = commands.environment(self.environ)
        process = await trio.lowlevel.open_process(command, stdin=other, stdout=other, stderr=other, env=environ)
        try:
            with trio.fail_after(commands.SECONDS):
                yield Terminal(process, main)
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
            os.close(main)
            os.close(other)

    def said(self) -> list[list[tuple[str, Any]]]:
        """The messages of each request."""
        bodies = [json.loads(each.body) for each in self.fake.journal.requests]
        return [[(each["role"], each["content"]) for each in body["messages"]] for body in bodies]


@final
class Terminal:
    """What is typed into a terminal, and what it shows."""

    def __init__(self, process: trio.Process, main: int) -> None:
        self.process = process
        self._main = main
        self._shown = ""

    async def until(self, text: str) -> str:
        """What is shown until ``text`` is."""
        while text not in self._shown:
            await trio.lowlevel.wait_readable(self._main)
            self._shown += os.read(self._main, 4096).decode().replace("\r\n", "\n")
        before, _, self._shown = self._shown.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    async def interrupt_prompt(self) -> None:
        """Send SIGINT when the prompt's key is waited for.

        CPython's readline shows the prompt first and waits in select() then. It notices a signal that comes in between
        only with the next key. The process is asleep when its main thread is in select().
        """
        while not _is_asleep(self.process.pid):  # noqa: ASYNC110 - the system tells nobody of it
            await trio.sleep(0.001)
        self.process.send_signal(signal.SIGINT)


def _is_asleep(pid: int) -> bool:
    """Whether the main thread waits for something; true where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"


@pytest.fixture
async def chats(tmp_path: Path) -> AsyncIterator[Chats]:
    async with FakeProvider() as fake:
        yield Chats(fake, tmp_path)


async def test_lines_that_are_piped_in_are_a_conversation_that_ask_continues(chats: Chats) -> None:
    done = await chats.piped("Hi.\n\nAnd more.\n", "-m", "fake/n", "-s", "Be short.", "-o", "temperature", "0")
    assert done == (0, "You said: Hi.\nYou said: And more.\n", "")
    assert chats.said()[-1] == [
        ("system", "Be short."),
        ("user", "Hi."),
        ("assistant", "You said: Hi."),
        ("user", "And more."),
    ]
    first = json.loads(chats.fake.journal.requests[0].body)
    assert (first["model"], first["temperature"], first["stream"]) == ("n", 0, True)
    assert (await chats.piped("", "-c", "Once more.", command="ask")).out == "You said: Once more.\n"
    assert (await chats.piped("Last.\n", "-c")).out == "You said: Last.\n"
    assert [role for role, _ in chats.said()[-1]] == ["system", *["user", "assistant"] * 3, "user"]


async def test_an_answer_that_was_cut_off_is_said_to_be_after_its_line(chats: Chats) -> None:
    done = await chats.piped("Say much more than that.\n", "-o", "max_output_tokens", "2")
    assert done.code == 0
    assert done.out.endswith("\n")
    assert done.err == "llm-runtime: the response is incomplete: it was cut off at the limit of output tokens\n"


async def test_several_lines_are_one_text_and_exit_ends_it(chats: Chats) -> None:
    done = await chats.piped("!multi\none\n\n  two\n!end\n!multi stop\n!end\nthree\n!end stop\nquit\nnot asked\n", "-n")
    assert done.code == 0
    assert [messages[-1][1] for messages in chats.said()] == ["one\n\n  two", "!end\nthree"]
    assert not place(chats.environ).exists()


async def test_an_answer_that_fails_is_one_line_and_no_part_of_the_conversation(chats: Chats) -> None:
    chats.fake.script(ScriptRule(contains="bad", status=400), ScriptRule())
    code, out, err = await chats.piped("Hi.\nbad\nMore.\n")
    assert (code, out) == (1, "You said: Hi.\nYou said: More.\n")
    assert err.startswith("llm-runtime: fake/m: ")
    assert err.count("\n") == 1
    assert [text for _, text in chats.said()[-1]] == ["Hi.", "You said: Hi.", "More."]


async def test_ctrl_c_stops_the_answer_and_not_the_chat(chats: Chats) -> None:
    chats.fake.script(ScriptRule(contains="slowly", fault=Fault.STALL, after_events=3), ScriptRule())
    async with chats.terminal() as terminal:
        assert "Chatting with auto\n" in await terminal.until("\n> ")
        terminal.type("Say it slowly.\n")
        await terminal.until("You")
        terminal.process.send_signal(signal.SIGINT)
        await terminal.until("\nllm-runtime: the response was stopped\n> ")
        await chats.fake.journal.until(lambda journal: journal.open == 0)
        terminal.type("Again.\n")
        await terminal.until("You said: Again.\n> ")
        assert [role for role, _ in chats.said()[-1]] == ["user", "assistant", "user"]
        terminal.type("exit\n")
        assert await terminal.process.wait() == 0


async def test_ctrl_c_twice_at_the_prompt_ends_the_chat(chats: Chats) -> None:
    async with chats.terminal() as terminal:
        await terminal.until("\n> ")
        await terminal.interrupt_prompt()
        await terminal.until("Ctrl-C again, Ctrl-D or 'exit' ends the chat\n> ")
        await terminal.interrupt_prompt()
        assert await terminal.process.wait() == 130


async def test_ctrl_d_ends_the_chat_and_a_terminal_is_not_steered_by_an_answer(chats: Chats) -> None:
    chats.fake.script(ScriptRule(text="a\x1b]0;owned\x07b"))
    async with chats.terminal() as terminal:
        await terminal.until("\n> ")
        terminal.type("!multi\none\n!end\n")
        await terminal.until("a]0;ownedb\n> ")
        terminal.type("\x04")
        assert await terminal.process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "temprature", "1"), "-o: there is no option 'temprature'; did you mean \"temperature\"?"),
        (("-o", "temperature", "hot"), "-o: temperature: expected a number, got text"),
        (("-c",), "-c: there is no conversation to continue yet"),
    ],
)
async def test_mistakes_are_one_line_before_the_chat_begins(
    chats: Chats, arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = await chats.piped("Hi.\n", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"llm-runtime: {says}")
    assert err.count("\n") == 1


async def test_a_reader_that_leaves_ends_it_quietly(chats: Chats) -> None:
    command = [*commands.COMMAND, "chat", "--config", str(chats.config)]
    reader, writer = os.pipe()
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE, env=commands.environment(chats.environ)
    )
    os.close(writer)
    os.close(reader)
    assert process.stdin
    with trio.fail_after(commands.SECONDS):
        await process.stdin.send_all(b"Hi.\n")
        assert await process.wait() == 141
        assert await commands.rest(process.stderr) == ""


async def test_input_that_is_not_utf_8_is_no_traceback(chats: Chats) -> None:
    done = await commands.run(
        "chat", "--config", str(chats.config), stdin=b"a\xff\n", PYTHONIOENCODING="utf-8:strict", **chats.environ
    )
    assert (done.code, done.out, done.err) == (0, "You said: a\N{REPLACEMENT CHARACTER}\n", "")


async def test_output_without_a_reader_is_no_traceback(chats: Chats) -> None:
    main, other = pty.openpty()
    reader, writer = os.pipe()
    os.close(reader)
    command = [*commands.COMMAND, "chat", "--config", str(chats.config)]
    try:
        done = await trio.run_process(
            command, stdin=other, stdout=writer, capture_stderr=True, check=False,
            env=commands.environment(chats.environ),
        )  # fmt: skip
    finally:
        for file in (main, other, writer):
            os.close(file)
    assert (done.returncode, done.stderr) == (141, b"")
