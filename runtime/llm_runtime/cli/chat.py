"""``llm-runtime chat``: a conversation in the terminal. Responses are streamed. Ctrl-C stops a response; it does not
end the chat. Uses the runtime for threads: this thread waits either for the user or for a response.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from typing import Any, cast, final

from llm_protocol.content import Message
from llm_protocol.errors import BadRequestError, LLMClientError
from llm_protocol.events import TextDelta
from llm_protocol.response import LLMResponse
from llm_runtime import sync
from llm_runtime.cli.attachments import options
from llm_runtime.cli.conversation import begun, keep, load
from llm_runtime.cli.logs import start_logging, warnings_held
from llm_runtime.cli.response_output import StdoutWriter, say_if_cut_off
from llm_runtime.cli.target import as_said, is_daemon, name_of, target
from llm_runtime.cli.terminal import (
    FAILED,
    INTERRUPTED,
    STDIN_BYTES,
    UNREAD,
    leaf,
    print_error,
    say,
    write_all,
)
from llm_runtime.config import Config, ConfigError
from llm_runtime.options import ChatOptions
from llm_runtime.requesting import chat_request

PROMPT = "> "
MORE = ". "
"""The prompt for further lines of a text."""

ENDS = frozenset(("exit", "quit"))
HELP = """\
Chatting with {model}
'exit', 'quit' or Ctrl-D ends the chat; Ctrl-C stops a response
'!multi' begins a text of several lines, '!end' ends it"""


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Chat until the end, and return the exit code. Raises `LLMClientError`, including `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    earlier = load(environ) if arguments.continued else None
    config, model = target(arguments, environ, earlier)
    given = options(arguments.option)
    try:
        chat_request("hi", cast("ChatOptions", {"model": model, **given}))
    except (TypeError, BadRequestError) as exc:
        raise ConfigError(f"-o: {exc}") from None
    messages = begun(earlier, arguments.system)
    user = _User()
    try:
        user.show(HELP.format(model=name_of(model)))
        with sync.open_runtime(config) as runtime:
            chat = _Chat(runtime, model, given, messages, config)
            while (text := user.ask()) is not None:
                if chat.answer(text) and not arguments.no_log:
                    keep(name_of(model), chat.messages, environ)
    except BrokenPipeError:
        return UNREAD
    except OSError as exc:
        return print_error(f"cannot write the response: {exc.strerror}", FAILED)
    if user.has_left:
        return INTERRUPTED
    return FAILED if chat.has_failed and not user.is_there else 0


@final
class _Chat:
    """The conversation so far."""

    def __init__(
        self, runtime: sync.SyncRuntime, model: str, given: dict[str, Any], messages: list[Message], config: Config
    ) -> None:
        self.messages = messages
        self.has_failed = False
        """Whether a request has failed."""
        self._config = config
        self._runtime = runtime
        self._model = model
        self._given: Any = given

    def answer(self, text: str) -> bool:
        """Send ``text``, and write the response as it arrives. Returns whether the conversation now includes both.
        Raises `OSError` if stdout is closed.
        """
        asked = [*self.messages, Message.of("user", text)]
        stream = self._runtime.stream(asked, model=self._model, **self._given)
        writer = StdoutWriter()
        try:
            with warnings_held(of_daemon=is_daemon(self._model)), stream as answer:
                for event in answer:
                    if isinstance(event, TextDelta):
                        writer.write(event.text)
            writer.end_line()
            say_if_cut_off(stream.response)
            return self._take(asked, stream.response)
        except KeyboardInterrupt:
            writer.end_line()
            say("llm-runtime: the response was stopped")
            return self._take(asked, _so_far(stream))
        except LLMClientError as exc:
            writer.end_line()
            self.has_failed = True
            print_error(as_said(leaf(exc), self._model, self._config), FAILED)
            return False
        finally:
            writer.end_line()

    def _take(self, asked: list[Message], response: LLMResponse | None) -> bool:
        if response is None or not response.output:
            return False
        self.messages = [*asked, response.message]
        return True


def _so_far(stream: sync.SyncStream) -> LLMResponse | None:
    try:
        return stream.response
    except (LLMClientError, RuntimeError):  # the response had not begun
        return None


@final
class _User:
    """Reads the user's input. If stdin is not a terminal, each line is a text, and only responses are shown."""

    def __init__(self) -> None:
        self.is_there = bool(sys.stdin and sys.stdin.isatty())
        """Whether stdin is a terminal."""
        self.has_left = False
        """Whether Ctrl-C ended the chat."""
        self._is_warned = False
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        if self.is_there:
            import readline  # noqa: F401 - it gives `input` a history and the keys to edit a line

    def show(self, text: str) -> None:
        """Show a line if stdin is a terminal."""
        if self.is_there:
            write_all(f"{text}\n".encode())

    def ask(self) -> str | None:
        """Return the next non-empty text; ``None`` at the end of the chat."""
        while True:
            try:
                line = self._line(PROMPT)
                if line is None or line.strip() in ENDS:
                    return None
                if line.split()[:1] == ["!multi"]:
                    line = self._several(" ".join(["!end", *line.split()[1:]]))
            except KeyboardInterrupt:
                if self.is_there and not self._is_warned:
                    write_all(b"\n")
                    say("llm-runtime: Ctrl-C again, Ctrl-D or 'exit' ends the chat")
                    self._is_warned = True
                    continue
                self.has_left = True
                return None
            self._is_warned = False
            if line.strip():
                return line.strip()

    def _several(self, end: str) -> str:
        """Return the lines up to ``end`` or the end of the input."""
        lines: list[str] = []
        size = 0
        while (line := self._line(MORE)) is not None and line.strip() != end:
            lines.append(line)
            size += len(line)
            _check_length(size)
        return "\n".join(lines)

    def _line(self, prompt: str) -> str | None:
        if self.is_there:
            try:
                return input(prompt)
            except EOFError:
                write_all(b"\n")
                return None
        try:
            line = sys.stdin.readline(STDIN_BYTES + 1) if sys.stdin else ""
        except OSError as exc:
            raise ConfigError(f"stdin cannot be read: {exc.strerror}") from None
        _check_length(len(line))
        return line.rstrip("\n") if line else None


def _check_length(characters: int) -> None:
    if characters > STDIN_BYTES:
        raise ConfigError(f"the message has more than {STDIN_BYTES} characters")
