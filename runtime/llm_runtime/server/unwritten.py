"""Responses that Redis does not have yet: the next change to write, and the responses that are given up because they
wait too long or need too much memory.
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
"""The exceptions of packing for a value that msgspec cannot encode: a lone surrogate, or a number beyond 64 bits."""

log = logging.getLogger("llm_runtime.server")


class Change(NamedTuple):
    """The next change to write to Redis for a response. ``progress``: how much of the response has been written."""

    progress: StoredProgress
    put: Put


async def put_changes(shared: SharedResponses, batch: Sequence[Change]) -> list[PutResult]:
    """Write a batch to Redis. Raises `RedisAwayError`. If the batch is one large change, its failure is counted."""
    try:
        return await shared.put([each.put for each in batch])
    except RedisAwayError:
        if len(batch) == 1 and batch[0].put.size > BATCH_BYTES:
            batch[0].progress.failures += 1
        raise


async def next_put(progress: StoredProgress, generation: str) -> Put:
    """Return the change that gives Redis all events that it lacks."""
    stored, start = progress.stored, progress.position
    run_log = stored.run.log
    end, ending = len(run_log), Ending.OPEN if run_log.end is None else Ending.ENDED
    head = piece = b""
    if progress.failures >= PUT_FAILURES:
        log.warning(
            "giving up response %s: %d attempts to write it to Redis failed; other replicas cannot read it",
            stored.id,
            progress.failures,
        )
        return Put(stored.id, stored.caller, generation, not progress.has_row, b"", start, start, b"", Ending.UNSHARED)
    try:
        piece = pack_events(run_log.read(start)) if end > start else b""
        if not progress.has_row:
            head = await run_large(stored.asked_bytes, pack_head, stored.inbound, stored.options, stored.asked_bytes)
    except _UNPACKABLE:
        log.warning("response %s cannot be encoded for Redis, so other replicas cannot read it", stored.id)
        end, piece, ending = start, b"", Ending.UNSHARED
    return Put(stored.id, stored.caller, generation, not progress.has_row, head, start, end, piece, ending)


def to_give_up(pending: Sequence[StoredProgress], *, before: float) -> list[StoredProgress]:
    """Return the responses of ``pending`` to give up. Only responses that the response store has dropped count. Those
    that ended before ``before`` (Trio's clock) are given up, and the oldest beyond `UNWRITTEN_BYTES`.
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
    """Rows of responses that were given up. Each is marked as interrupted when Redis is reachable again, so that
    other replicas do not wait for it.
    """

    def __init__(self) -> None:
        self._puts: OrderedDict[str, Put] = OrderedDict()
        self._is_logged = False

    @property
    def puts(self) -> list[Put]:
        """The changes that mark the rows as interrupted."""
        return list(self._puts.values())

    def add(self, progress: StoredProgress, generation: str) -> None:
        """Mark the row of this response as interrupted at the next write. Redis may or may not have the row. Logs one
        warning, until `ended` has removed all rows.
        """
        stored, end = progress.stored, progress.position
        self._puts[stored.id] = Put(stored.id, stored.caller, generation, False, b"", end, end, b"", Ending.INTERRUPTED)
        while len(self._puts) > GIVEN_UP_ROWS:
            self._puts.popitem(last=False)
        if not self._is_logged:
            log.warning(
                "other replicas cannot read some responses: Redis was unreachable for too long, or more than %d MB of "
                "responses waited to be written",
                UNWRITTEN_BYTES >> 20,
            )
        self._is_logged = True

    def ended(self, puts: Iterable[Put]) -> None:
        """Remove the rows of ``puts``: Redis has marked them as interrupted."""
        for put in puts:
            self._puts.pop(put.id, None)
        self._is_logged = bool(self._puts)
