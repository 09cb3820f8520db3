"""Responses that Redis does not have yet: what is written of them next, how much is kept of those that memory has no
room for, and what becomes of the others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, final

from llm_actors.shared_responses import BATCH_BYTES, Ending, Put, PutResult, RedisAwayError, SharedResponses
from llm_actors.threads import run_large
from llm_runtime.server.limits import GIVEN_UP_ROWS, PUT_FAILURES, UNWRITTEN_BYTES
from llm_runtime.server.packing import pack_events, pack_head
from llm_runtime.server.persistence import StoredProgress

_UNPACKABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What packing raises for what has no bytes: a lone surrogate, a number beyond 64 bits."""

log = logging.getLogger("llm_runtime.server")


class Change(NamedTuple):
    """What is written next of a response."""

    progress: StoredProgress
    put: Put


async def put_changes(shared: SharedResponses, batch: Sequence[Change]) -> list[PutResult]:
    """Have Redis take a batch. Raises `RedisAwayError`; a large change that was alone in it has failed then."""
    try:
        return await shared.put([each.put for each in batch])
    except RedisAwayError:
        if len(batch) == 1 and batch[0].put.size > BATCH_BYTES:
            batch[0].progress.failures += 1
        raise


async def next_put(progress: StoredProgress, generation: str) -> Put:
    """All that Redis does not have yet of a response, as one change of its row."""
    stored, start = progress.stored, progress.position
    run_log = stored.run.log
    end, ending = len(run_log), Ending.OPEN if run_log.end is None else Ending.ENDED
    head = piece = b""
    if progress.failures >= PUT_FAILURES:
        log.warning("response %s cannot be written to redis: it takes too long", stored.id)
        return Put(stored.id, stored.caller, generation, not progress.has_row, b"", start, start, b"", Ending.UNSHARED)
    try:
        piece = pack_events(run_log.read(start)) if end > start else b""
        if not progress.has_row:
            head = await run_large(stored.asked_bytes, pack_head, stored.inbound, stored.options, stored.asked_bytes)
    except _UNPACKABLE:
        log.warning("response %s cannot be written to redis", stored.id)
        end, piece, ending = start, b"", Ending.UNSHARED
    return Put(stored.id, stored.caller, generation, not progress.has_row, head, start, end, piece, ending)


def to_give_up(pending: Sequence[StoredProgress], *, before: float) -> list[StoredProgress]:
    """Those of ``pending`` that are in no other memory and are not written, either: they ended before that time, or
    with the later ones they are more than `UNWRITTEN_BYTES`.
    """
    found: list[StoredProgress] = []
    room = UNWRITTEN_BYTES
    for progress in reversed(pending):
        stored = progress.stored
        if stored.is_gone:
            room -= stored.weight
            if room < 0 or stored.ended_at <= before:
                found.append(progress)
    return found


@final
class GivenUpRows:
    """Rows of responses that are not written to their end. For the other replicas they are interrupted."""

    def __init__(self) -> None:
        self._puts: OrderedDict[str, Put] = OrderedDict()
        self._is_logged = False

    @property
    def puts(self) -> list[Put]:
        """What ends them."""
        return list(self._puts.values())

    def add(self, progress: StoredProgress, generation: str) -> None:
        """Have the row of this response ended. Redis may have it or not. Logged once until `ended`."""
        stored, end = progress.stored, progress.position
        self._puts[stored.id] = Put(stored.id, stored.caller, generation, False, b"", end, end, b"", Ending.INTERRUPTED)
        while len(self._puts) > GIVEN_UP_ROWS:
            self._puts.popitem(last=False)
        if not self._is_logged:
            log.warning("responses are lost: they expired, or memory had no room for them, before redis took them")
        self._is_logged = True

    def ended(self, puts: Iterable[Put]) -> None:
        """Redis has these ended."""
        for put in puts:
            self._puts.pop(put.id, None)
        self._is_logged = bool(self._puts)
