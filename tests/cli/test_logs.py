"""What is logged is one line, in UTC, without anybody's text; it never holds up the program."""

import json
import logging
import os
from collections.abc import Iterator

import msgspec
import pytest

from llm_actors.orchestrator.log_line import LOGGER, BatchHandler, LogFields, line_text
from llm_runtime.cli.logs import (
    LINE_BYTES,
    JsonFormatter,
    LineFormatter,
    StderrHandler,
    TextFormatter,
    start_logging,
    timestamp,
)

log = logging.getLogger("llm_runtime.test")


def record(message: str, *args: object, exception: BaseException | None = None) -> logging.LogRecord:
    info = (type(exception), exception, exception.__traceback__) if exception else None
    made = logging.LogRecord("llm_runtime.x", logging.INFO, __file__, 1, message, args, info)
    made.created = 1_700_000_000.1239
    return made


def crash() -> BaseException:
    try:
        raise ValueError("CANARY")
    except ValueError as exc:
        return exc


def test_text_is_one_line_in_utc() -> None:
    assert TextFormatter().format(record("request %s done\n\x1b[31m", "r1")) == (
        "2023-11-14T22:13:20.123Z INFO llm_runtime.x: request r1 done\\n\\x1b[31m"
    )


def test_json_is_one_object_a_line() -> None:
    assert json.loads(JsonFormatter().format(record("a\n%s", "b"))) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "logger": "llm_runtime.x",
        "message": "a\nb",
    }


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class Fields(msgspec.Struct, omit_defaults=True):
    id: str
    words: str = ""


@pytest.mark.parametrize("words", ["plain", "\x9b31m\u202e é", "\ud800", 'a "b"\n'])
def test_json_has_the_fields_of_a_request_and_ascii_alone(words: str) -> None:
    made = record("done")
    made.fields = Fields("req_1", words)
    line = JsonFormatter().format(made)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z", "level": "info", "logger": "llm_runtime.x", "message": "done",
        "id": "req_1", "words": words,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "words", "has_fields"),
    [
        ("x" * 5_000, "", True),
        ("\n" * 4_000, "", True),
        ("é" * 900, "é" * 20, True),
        ("done", "x" * 5_000, False),
        ("x" * 5_000, "x" * 5_000, False),
    ],
)
def test_a_long_line_is_still_json(pipe: tuple[int, int], message: str, words: str, has_fields: bool) -> None:
    reader, writer = pipe
    made = record("%s", message)
    made.fields = Fields("req_1", words)
    StderrHandler(JsonFormatter(), writer).emit(made)
    line = os.read(reader, 1024 * 1024)
    assert len(line) <= LINE_BYTES
    told = json.loads(line)
    assert message.startswith(told["message"])
    assert told["message"]
    assert ("id" in told) is has_fields


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_told_by_its_place_not_by_its_text(formatter: logging.Formatter) -> None:
    line = formatter.format(record("failed", exception=crash()))
    assert "ValueError at test_logs.py" in line
    assert "CANARY" not in line


def test_the_clock_after_2038() -> None:
    assert timestamp(2**31 + 0.5) == "2038-01-19T03:14:08.500Z"


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """Lines are dropped, counted, and the count is told when there is room again."""
    reader, writer = pipe
    handler = StderrHandler(TextFormatter(), writer)
    while not handler.dropped:
        handler.emit(record("x" * 2 * LINE_BYTES))
    handler.emit(record("lost"))
    assert handler.dropped == 2
    os.read(reader, 1024 * 1024)
    handler.emit(record("again"))
    lines = os.read(reader, 1024 * 1024).decode().splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["2 log lines were dropped", "again"]
    assert handler.dropped == 0


def test_a_line_has_a_limit(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = StderrHandler(TextFormatter(), writer)
    handler.emit(record("x" * 100_000))
    assert len(os.read(reader, 1024 * 1024)) == LINE_BYTES


def fields(number: int) -> LogFields:
    return LogFields(id=f"req_{number}", caller="é\n", model="m", status=200, ms=1.0, attempts=1)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_lines_of_requests_are_those_of_their_records(pipe: tuple[int, int], formatter: LineFormatter) -> None:
    """`WaitingLines` gives them to the handler in one call, and they are written in blocks that a pipe takes."""
    reader, writer = pipe
    many = [(fields(number), 1_700_000_000.1239) for number in range(40)]
    for each, ended_at in many:
        made = logging.LogRecord(LOGGER, logging.INFO, "", 0, line_text(each), (), None)
        made.created, made.fields = ended_at, each
        StderrHandler(formatter, writer).emit(made)
    expected = os.read(reader, 1024 * 1024)
    handler = StderrHandler(formatter, writer)
    assert isinstance(handler, BatchHandler)
    handler.emit_requests(many)
    assert os.read(reader, 1024 * 1024) == expected
    assert len(expected) > LINE_BYTES


def test_each_dropped_line_of_a_block_is_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = StderrHandler(TextFormatter(), writer)
    while not handler.dropped:
        handler.emit(record("x" * 2 * LINE_BYTES))
    handler.emit_requests([(fields(number), 0.0) for number in range(40)])
    assert handler.dropped == 41
    os.read(reader, 1024 * 1024)
    handler.emit_requests([(fields(40), 0.0)])
    assert [b"41 log lines were dropped" in each for each in os.read(reader, 1024 * 1024).splitlines()] == [True, False]


def test_a_reader_that_has_gone_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = StderrHandler(TextFormatter(), writer)
    handler.emit(record("x"))
    os.close(writer)
    assert handler.dropped == 1


def test_starting_it_replaces_what_was_there(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        start_logging("warning", "json")
        log.info("quiet")
        log.warning("loud")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()] == ["loud"]
