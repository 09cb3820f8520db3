"""Logging for the commands: lines on stderr that never block the program and never contain a prompt.

A line is written if stderr accepts it at once. Otherwise it is dropped and counted, because a slow reader of the log
must not slow down requests. Of an exception only the type and place are logged, since its text may contain anything.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import final

import msgspec

from llm_actors.kernel.errors import exception_site
from llm_actors.orchestrator.log_line import LOGGER, LogFields, line_text

LINE_BYTES = 4096
"""The most bytes of a line, and of several lines that are written together. A writable pipe accepts this much without
blocking (POSIX's PIPE_BUF on Linux).
"""


def start_logging(level: str, form: str) -> None:
    """Send messages of ``level`` and above to stderr, as ``text`` or ``json``."""
    root = logging.getLogger()
    root.handlers[:] = [StderrHandler(JsonFormatter() if form == "json" else TextFormatter())]
    root.setLevel(level.upper())
    # No line shows the thread, the process, or the place in the code, so they need not be determined for each line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # documented in the logging HOWTO, "Optimization"


@contextmanager
def warnings_held(*, of_daemon: bool) -> Iterator[None]:
    """Hold back warnings about a provider, such as a refused key, until the end of the block. If the block raises,
    they are dropped, because the error gives the reason. ``of_daemon``: the provider is a daemon. A daemon logs such
    warnings itself, so they are always dropped.
    """
    held = _Held(_OF_DAEMON if of_daemon else _OF_PROVIDERS)
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(held)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(held)
    for record in () if of_daemon else held.records:
        logging.getLogger(record.name).handle(record)


_OF_PROVIDERS = ("llm_actors.selector",)
_OF_DAEMON = ("llm_actors.selector", "llm_actors.provider")


@final
class _Held(logging.Filter):
    """Holds back the warnings of the given loggers, in ``records``."""

    def __init__(self, loggers: tuple[str, ...]) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._loggers = loggers

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is logged now. If not, it is held back."""
        if record.levelno != logging.WARNING or not record.name.startswith(self._loggers):
            return True
        self.records.append(record)
        return False


@final
class StderrHandler(logging.Handler):
    """Writes log lines to file descriptor 2 without blocking. Lines that do not fit are dropped and counted."""

    def __init__(self, formatter: LineFormatter, file: int = 2) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0
        self._formatter = formatter
        self._file = file
        self._poll = select.poll()
        self._poll.register(file, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, preceded by the number of lines dropped before it."""
        self._emit(_line(self._formatter.format(record)))

    def emit_requests(self, lines: Sequence[tuple[LogFields, float]]) -> None:
        """Write the lines of requests, several at once, see `llm_actors.orchestrator.log_line.BatchHandler`."""
        block, count = b"", 0
        self.acquire()  # as `logging.Handler.handle` does
        try:
            for fields, ended_at in lines:
                line = _line(self._formatter.format_request(fields, ended_at))
                if len(block) + len(line) > LINE_BYTES:
                    self._emit(block, count)
                    block, count = b"", 0
                block, count = block + line, count + 1
            self._emit(block, count)
        finally:
            self.release()

    def _emit(self, lines: bytes, count: int = 1) -> None:
        if self.dropped and self._write(_line(self._formatter.format(_note(f"{self.dropped} log lines were dropped")))):
            self.dropped = 0
        if self.dropped or not self._write(lines):
            self.dropped += count

    def _write(self, lines: bytes) -> bool:
        try:
            for _, events in self._poll.poll(0):
                if events & select.POLLOUT:
                    return os.write(self._file, lines) > 0
        except OSError:  # a full disk, or a pipe without a reader
            pass
        return False


def _line(text: str) -> bytes:
    return text.encode(errors="backslashreplace")[: LINE_BYTES - 1] + b"\n"


def _note(message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, "", 0, message, None, None)


class LineFormatter(logging.Formatter):
    """Formats a record, or the fields of a request's line without a record, as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        exception = record.exc_info[1] if record.exc_info else None
        site = exception_site(exception) if exception else ""
        fields = getattr(record, "fields", None)
        return self.line(record.created, record.levelname, record.name, record.getMessage(), site, fields)

    def format_request(self, fields: LogFields, ended_at: float) -> str:
        """Return the line of a request that ended at ``ended_at``, in seconds since the epoch."""
        return self.line(ended_at, "INFO", LOGGER, line_text(fields), "", fields)

    def line(self, seconds: float, level: str, logger: str, message: str, site: str, fields: object) -> str:
        """Return the line. ``site`` is the place of an exception, if there is one, and ``fields`` are those of a
        request's line.
        """
        raise NotImplementedError


class TextFormatter(LineFormatter):
    """``2026-01-31T12:00:00.000Z INFO llm_runtime.server: message``"""

    def line(self, seconds: float, level: str, logger: str, message: str, site: str, fields: object) -> str:  # noqa: ARG002
        """Return the line. Line breaks in the message are escaped. The fields are not in it."""
        text = f"{timestamp(seconds)} {level} {logger}: {message}"
        if site:
            text += f" ({site})"
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class JsonFormatter(LineFormatter):
    """One JSON object per line: time, level, logger, message, the exception if there is one, and the fields of a
    request's line (`LogFields`).
    """

    def line(self, seconds: float, level: str, logger: str, message: str, site: str, fields: object) -> str:
        """Return the line, in ASCII."""
        entry = {"time": timestamp(seconds), "level": level.lower(), "logger": logger, "message": message}
        if site:
            entry["exception"] = site
        told = fields if isinstance(fields, msgspec.Struct) else None
        line = _json(entry, told)
        # A line that is cut would not be JSON: the message is shortened, or else the fields are left out.
        while len(line) >= LINE_BYTES and (entry["message"] or told):
            if entry["message"]:
                entry["message"] = entry["message"][: len(entry["message"]) // 2]
            else:
                entry["message"], told = message, None
            line = _json(entry, told)
        return line


def _json(entry: dict[str, str], fields: msgspec.Struct | None) -> str:
    """Return one JSON object in ASCII: other characters are escaped, because they might control a terminal."""
    try:
        line = msgspec.json.encode(entry)
        if fields is not None:
            line = line[:-1] + b"," + msgspec.json.encode(fields)[1:]
        if line.isascii():
            return line.decode()
    except ValueError:  # a lone surrogate
        pass
    return json.dumps(entry | (msgspec.to_builtins(fields) if fields is not None else {}))


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as UTC in ISO 8601."""
    return f"{_whole_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
