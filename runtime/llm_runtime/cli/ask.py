"""``llm-runtime ask``: one question, its answer streamed to stdout.

A daemon is called through the same runtime as a vendor: as an OpenAI-compatible provider at the given address.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast

import msgspec
import trio

from llm_actors.orchestrator.attempt_loop import WHOSE_KEY
from llm_protocol.codec.json import encode_json
from llm_protocol.content import Message, Part, Text
from llm_protocol.errors import BadRequestError, LLMClientError, error_for
from llm_protocol.policy import Attempts, Policy
from llm_protocol.requests import AUTO
from llm_protocol.response import FinishReason, LLMResponse
from llm_runtime.cli.attachments import attachment, options, schema
from llm_runtime.cli.conversation import KeptConversation, load, save
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.member_view import columns, watch
from llm_runtime.cli.setup import WRONG_KEY, configured, daemon
from llm_runtime.cli.signals import cancel_on_signal
from llm_runtime.cli.terminal import (
    FAILED,
    INTERRUPTED,
    UNREAD,
    UNUSABLE,
    harmless,
    is_piped,
    leaf,
    print_error,
    say,
    write_all,
)
from llm_runtime.config import Config, ConfigError, Provider
from llm_runtime.options import ChatOptions
from llm_runtime.requesting import chat_request
from llm_runtime.runtime import open_runtime

STDIN_BYTES = 8 * 1024 * 1024
"""The most that is read from stdin."""

HINT_SECONDS = 2.0
"""How long stdin may be silent before the user is told that the command waits for it."""

_CUT_OFF: dict[FinishReason | None, str] = {
    FinishReason.LENGTH: "at the limit of output tokens",
    FinishReason.CONTENT_FILTER: "by the vendor's content filter",
}

DAEMON = "daemon"
"""The name under which a running daemon is a provider."""


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask, and return the exit code. Raises `LLMClientError`, `ConfigError` among them."""
    start_logging(arguments.log_level, arguments.log_format)
    earlier = load(environ) if arguments.continued else None
    config, model = _target(arguments, environ, earlier)
    asking = _Asking(
        arguments,
        environ,
        earlier,
        tuple(map(attachment, arguments.attachment)),
        {**options(arguments.option), **({"response_format": schema(arguments.schema)} if arguments.schema else {})},
    )
    try:
        return trio.run(_ask, config, model, asking)
    except BaseExceptionGroup as group:
        raise _as_said(leaf(group), model) from None


def _as_said(exc: BaseException, model: str) -> BaseException:
    """The daemon's own error message. That the daemon is configured as a provider here is an internal detail."""
    ours = f"{model}: "
    if not (isinstance(exc, LLMClientError) and ours.startswith(f"{DAEMON}/") and exc.failure.message.startswith(ours)):
        return exc
    said = exc.failure.message.removeprefix(ours)
    if exc.failure.upstream_status == 401:
        said = said.replace(f" {WHOSE_KEY}", "") + WRONG_KEY  # of whose key it is, its user knows better
    return error_for(msgspec.structs.replace(exc.failure, message=said), exc.partial)


def _target(
    arguments: argparse.Namespace, environ: Mapping[str, str], earlier: KeptConversation | None
) -> tuple[Config, str]:
    """The provider to use, and the model."""
    running = daemon(arguments.url, arguments.config, environ)
    model = arguments.route or arguments.model or (earlier.model if earlier else AUTO)
    if running is None:
        config = configured(arguments.config, environ, say)
        if arguments.route and arguments.route not in config.routes:
            known = ", ".join(config.routes) or "none is configured"
            raise ConfigError(f"--route: there is no route {arguments.route!r}; known: {known}")
        return config, model
    kind = "openai_compatible"
    provider = Provider(kind=kind, base_url=running.base_url, api_key=running.key, models=(AUTO,))
    # The daemon retries; if it is not running, the user should learn that at once.
    return Config(providers={DAEMON: provider}, attempts=Attempts(max=1)), f"{DAEMON}/{model}"


async def _ask(config: Config, model: str, asking: _Asking) -> int:
    """Stream the answer; a signal cancels it, including the vendor's connection."""
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
        return print_error('what is the question? For example: llm-runtime ask "Say hello."', UNUSABLE)
    messages = asking.messages(question)
    policy = Policy(stream_members=True) if arguments.route else Policy()
    try:
        given = chat_request(messages, cast("ChatOptions", {"model": model, "policy": policy, **asking.options}))
    except (TypeError, BadRequestError) as exc:
        return print_error(f"-o: {exc}", UNUSABLE)
    async with open_runtime(config) as runtime, runtime.stream_request(given) as answer:
        paper = StdoutWriter()
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
            return print_error(f"cannot write the answer: {exc.strerror}", FAILED)
        finally:
            with trio.move_on_after(0.5, shield=True):
                await paper.end_line()
    asking.keep(messages, answer.response, model)
    if cut := _CUT_OFF.get(answer.response.finish_reason):
        say(f"llm-runtime: the answer was cut off {cut}")
    return 0


class _Asking(NamedTuple):
    """What is asked, besides words."""

    arguments: argparse.Namespace
    environ: Mapping[str, str]
    earlier: KeptConversation | None
    attachments: tuple[Part, ...]
    options: Any

    def messages(self, question: str) -> list[Message]:
        """The conversation with the question at its end. A new system prompt takes the place of the old one."""
        found = list(self.earlier.messages) if self.earlier else []
        if self.arguments.system:
            found = [Message.of("system", self.arguments.system), *(each for each in found if each.role != "system")]
        words = (Text(question),) if question else ()
        return [*found, Message("user", (*self.attachments, *words))]

    def keep(self, messages: list[Message], response: LLMResponse, model: str) -> None:
        """Keep the conversation for ``-c``. That it cannot be kept is said, and no failure."""
        if self.arguments.no_log:
            return
        named = model.removeprefix(f"{DAEMON}/")
        try:
            save(KeptConversation(model=named, messages=(*messages, response.message)), self.environ)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            say(f"llm-runtime: the conversation is not kept for -c: {reason}")


async def _question(words: str) -> str:
    """The question: the arguments, followed by the piped input."""
    if words and not is_piped(0):
        return words
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hint)
        piped = await trio.to_thread.run_sync(_read_stdin, abandon_on_cancel=True)
        nursery.cancel_scope.cancel(reason="read")
    return "\n\n".join(part for part in (words, piped.strip()) if part)


def _read_stdin() -> str:
    """All of stdin. Reads the file descriptor: Python's own buffer has a lock that would be held beyond a
    cancellation.
    """
    pieces: list[bytes] = []
    while piece := os.read(0, 64 * 1024):
        pieces.append(piece)
        if sum(map(len, pieces)) > STDIN_BYTES:
            raise ConfigError(f"stdin holds more than {STDIN_BYTES} bytes")
    return b"".join(pieces).decode(errors="replace")


async def _hint() -> None:
    await trio.sleep(HINT_SECONDS)
    say("llm-runtime: waiting for the end of stdin (Ctrl-D ends it in a terminal; use </dev/null for none)")


class StdoutWriter:
    """Stdout, for the answer."""

    def __init__(self) -> None:
        self._at_line_start = True
        self._clean = harmless if sys.stdout and sys.stdout.isatty() else str

    async def write(self, text: str) -> None:
        """Write a piece; waits for the reader, and raises OSError if it is gone."""
        text = self._clean(text)
        if text:
            self._at_line_start = text.endswith("\n")
            await trio.to_thread.run_sync(write_all, text.encode(errors="replace"), abandon_on_cancel=True)

    async def end_line(self) -> None:
        """End with a newline if stdout is a terminal."""
        if not self._at_line_start:
            with suppress(OSError):
                await self.write("\n")
