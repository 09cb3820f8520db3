"""``llm-runtime ask``: one question, with the response streamed to stdout."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast, final

import trio

from llm_protocol.codec.json import encode_json
from llm_protocol.content import Message, Part, Text
from llm_protocol.errors import BadRequestError
from llm_protocol.policy import Policy
from llm_runtime.cli.attachments import attachment, options, schema
from llm_runtime.cli.conversation import KeptConversation, begun, keep, load
from llm_runtime.cli.logs import start_logging, warnings_held
from llm_runtime.cli.member_view import columns, watch
from llm_runtime.cli.response_output import StdoutWriter, say_if_cut_off
from llm_runtime.cli.signals import cancel_on_signal
from llm_runtime.cli.target import as_said, is_daemon, name_of, target
from llm_runtime.cli.terminal import (
    FAILED,
    INTERRUPTED,
    STDIN_BYTES,
    UNREAD,
    UNUSABLE,
    is_piped,
    leaf,
    print_error,
    say,
    write_all,
)
from llm_runtime.config import Config, ConfigError
from llm_runtime.opening import open_runtime
from llm_runtime.options import ChatOptions
from llm_runtime.requesting import chat_request

HINT_SECONDS = 2.0
"""Seconds without input on stdin after which a message says that the command waits for it."""


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask, and return the exit code. Raises `LLMClientError`, including `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    earlier = load(environ) if arguments.continued else None
    config, model = target(arguments, environ, earlier)
    asking = _Asking(
        arguments,
        environ,
        earlier,
        tuple(map(attachment, arguments.attachment)),
        {**options(arguments.option), **({"response_format": schema(arguments.schema)} if arguments.schema else {})},
    )
    try:
        with warnings_held(of_daemon=is_daemon(model)):
            return trio.run(_ask, config, model, asking)
    except BaseExceptionGroup as group:
        raise as_said(leaf(group), model, config) from None


async def _ask(config: Config, model: str, asking: _Asking) -> int:
    """Stream the response. A signal cancels it, including the vendor's connection."""
    code = INTERRUPTED
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        code = await _answer(config, model, asking)
        nursery.cancel_scope.cancel(reason="answered")
    return code


async def _answer(config: Config, model: str, asking: _Asking) -> int:
    arguments = asking.arguments
    question = await _question(" ".join(arguments.question))
    if not question and not asking.attachments:
        return print_error('there is no question; for example: llm-runtime ask "Say hello."', UNUSABLE)
    messages = asking.messages(question)
    policy = Policy(stream_members=True) if arguments.route else Policy()
    try:
        given = chat_request(messages, cast("ChatOptions", {"model": model, "policy": policy, **asking.options}))
    except (TypeError, BadRequestError) as exc:
        return print_error(f"-o: {exc}", UNUSABLE)
    async with open_runtime(config) as runtime, runtime.stream_request(given) as answer:
        paper = _AsyncWriter()
        try:
            if arguments.json:
                async for _ in answer:
                    pass
                await paper.write(encode_json(answer.response).decode() + "\n")
            else:
                await watch(answer, paper, columns())
        except BrokenPipeError:
            return UNREAD
        except OSError as exc:
            return print_error(f"cannot write the response: {exc.strerror}", FAILED)
        finally:
            with trio.move_on_after(0.5, shield=True):
                await paper.end_line()
    if not arguments.no_log:
        keep(name_of(model), [*messages, answer.response.message], asking.environ)
    say_if_cut_off(answer.response)
    return 0


class _Asking(NamedTuple):
    """The inputs of the command other than the text of the question."""

    arguments: argparse.Namespace
    environ: Mapping[str, str]
    earlier: KeptConversation | None
    attachments: tuple[Part, ...]
    options: Any

    def messages(self, question: str) -> list[Message]:
        """The conversation with the question at its end."""
        words = (Text(question),) if question else ()
        return [*begun(self.earlier, self.arguments.system), Message("user", (*self.attachments, *words))]


async def _question(words: str) -> str:
    """Return the question: the arguments, followed by the piped input."""
    if words and not is_piped(0):
        return words
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hint)
        piped = await trio.to_thread.run_sync(_read_stdin, abandon_on_cancel=True)
        nursery.cancel_scope.cancel(reason="read")
    return "\n\n".join(part for part in (words, piped.strip()) if part)


def _read_stdin() -> str:
    """Read all of stdin. Reads the file descriptor, because the lock of Python's own buffer would be held beyond a
    cancellation.
    """
    pieces: list[bytes] = []
    try:
        while piece := os.read(0, 64 * 1024):
            pieces.append(piece)
            if sum(map(len, pieces)) > STDIN_BYTES:
                raise ConfigError(f"stdin has more than {STDIN_BYTES} bytes")
    except OSError as exc:
        raise ConfigError(f"stdin cannot be read: {exc.strerror}") from None
    return b"".join(pieces).decode(errors="replace")


async def _hint() -> None:
    await trio.sleep(HINT_SECONDS)
    say("llm-runtime: waiting for the end of stdin (Ctrl-D ends it in a terminal; use </dev/null if there is no input)")


@final
class _AsyncWriter:
    """Calls a `StdoutWriter` in a thread, because the reader of stdout may be slow."""

    def __init__(self) -> None:
        self._writer = StdoutWriter()

    async def write(self, text: str) -> None:
        """Write a piece. Waits for the reader. Raises OSError if the reader is gone."""
        if data := self._writer.encode(text):
            await trio.to_thread.run_sync(write_all, data, abandon_on_cancel=True)

    async def end_line(self) -> None:
        """Write a line break if the last line has none."""
        if self._writer.is_line_open:
            with suppress(OSError):
                await self.write("\n")
