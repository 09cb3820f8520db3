"""The files of the request log: one for each day (UTC), ``requests-2026-01-31.jsonl``, readable by their owner only.

The methods block and are called in threads. Several processes may write to one folder: each batch is one append.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import final

import msgspec

from llm_actors.request_log.record import LoggedRequest, logged
from llm_actors.run import Run
from llm_protocol.codec.json import encode_json

_NAME = re.compile(r"requests-(\d{4}-\d\d-\d\d)\.jsonl")

_DECODER = msgspec.json.Decoder(LoggedRequest)


@final
class RequestLogFiles:
    """Writes to the folder ``path``. The methods may raise `OSError`."""

    def __init__(self, path: str, *, max_bytes: int, keep_days: int, redacted: bool, wall: Callable[[], float]) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep_days = keep_days
        self._redacted = redacted
        self._wall = wall

    def write(self, runs: Sequence[Run]) -> None:
        """Append a line for each run. Then delete files that are too old, and the oldest ones while all files together
        are too large; the newest file stays.
        """
        wall = self._wall()
        lines = [line for run in runs if (line := self._line(run, wall))]
        if not lines:
            return
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        name = f"requests-{datetime.fromtimestamp(wall, UTC):%Y-%m-%d}.jsonl"
        file = os.open(os.path.join(self._path, name), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(b"".join([b"\n" * _is_broken_off(file), *lines]))
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)
        self._tidy(wall)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _line(self, run: Run, wall: float) -> bytes:
        try:
            found = logged(run, redacted=self._redacted, wall=wall)
            return b"" if found is None else encode_json(found) + b"\n"
        except (TypeError, ValueError, OverflowError, RecursionError):
            return b""  # it holds what JSON cannot say

    def _tidy(self, wall: float) -> None:
        oldest = f"{datetime.fromtimestamp(wall, UTC) - timedelta(days=self._keep_days):%Y-%m-%d}"
        files = log_files(self._path)
        sizes = {file: _size(file) for file in files}
        total = sum(sizes.values())
        for file in reversed(files[1:]):  # the newest stays
            if _day(file) < oldest or total > self._max_bytes:
                total -= sizes[file]
                with suppress(FileNotFoundError):
                    os.unlink(file)


def log_files(path: str) -> list[str]:
    """Return the files in the folder, the newest first."""
    try:
        names = sorted((name for name in os.listdir(path) if _NAME.fullmatch(name)), reverse=True)
    except FileNotFoundError:
        return []
    return [os.path.join(path, name) for name in names]


def find(path: str, wanted: str) -> LoggedRequest | None:
    """Return the newest logged request that has the id ``wanted``, as the id of the request, of its response, or of the
    client; ``None`` if there is none. Raises `OSError`.
    """
    if not _is_text(wanted):
        return None
    for file in log_files(path):
        found = None
        for line in _lines(file, wanted):
            with suppress(msgspec.MsgspecError):  # half a line, after a kill
                each = _DECODER.decode(line)
                if wanted in (each.id, each.response_id, each.client_id):
                    found = each
        if found is not None:
            return found
    return None


def _is_text(wanted: str) -> bool:
    """Whether an id can be in the log. An argument of a command line may have bytes that are not text."""
    return not any("\ud800" <= each <= "\udfff" for each in wanted)


def _lines(file: str, wanted: str) -> Iterator[bytes]:
    needle = msgspec.json.encode(wanted)[1:-1]
    with open(file, "rb") as stream:
        yield from (line for line in stream if needle in line)


def _is_broken_off(file: int) -> bool:
    """Whether the last line is incomplete: the disk was full, or a process was killed."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _size(file: str) -> int:
    with suppress(OSError):
        return os.stat(file).st_size
    return 0


def _day(file: str) -> str:
    found = _NAME.fullmatch(os.path.basename(file))
    return found[1] if found else ""
