"""The messages of the store, and the client functions that send them."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple, TypeAlias

import trio

from llm_actors.kernel import Call, KernelError, MailboxSpec, Ref
from llm_actors.store.ledger import By, SpendRow, SpentBy
from llm_actors.store.write import Write

STORE_MAILBOX = MailboxSpec(4_096)
"""The mailbox of the store. The size of its messages is limited by `QUEUE_BYTES`."""

PERSIST_SECONDS = 2.0
"""The most seconds that a sender waits for a write."""

LOAD_SECONDS = 2.0
"""The most seconds that a sender waits for a read."""


class StoredResponseRow(NamedTuple):
    """A response in the file. ``events`` are the pieces of its log, in order. ``ended_at`` is a UNIX time, ``None``
    while the response is in progress in another process, or while this process has not written its end yet.
    """

    caller: str
    head: bytes
    events: tuple[bytes, ...]
    ended_at: float | None
    interrupted: bool
    """Whether the response's process ended before the response was complete."""


class Persist(Call[bool], frozen=True):
    """Make these changes in one transaction. The reply is True once they are in the file, False if they are not, or if
    that is unknown.
    """

    writes: tuple[Write, ...]


class Loaded(NamedTuple):
    """The parts of a response that are in the file. ``row`` is ``None`` if the response is not in the file."""

    row: StoredResponseRow | None


class Load(Call[Loaded | None], frozen=True):
    """Get a response of a caller. The reply is ``None`` if the file cannot be read, and `Loaded` without a row if the
    file does not contain the response.
    """

    response_id: str
    caller: str


class GetSpend(Call[tuple[SpendRow, ...] | None], frozen=True, kw_only=True):
    """Get the spending since ``since`` (UNIX time), one row for each value of ``by``; ``None`` if the file cannot be
    read. ``caller``: only the spending of this caller; ``None``: of all callers.
    """

    by: By
    since: float = 0.0
    caller: str | None = None


class GetSpent(Call[tuple[SpentBy, ...] | None], frozen=True):
    """Get the spending since ``since`` (UNIX time), from which budgets start; ``None`` if the file cannot be read."""

    since: float


Look: TypeAlias = Load | GetSpend | GetSpent
StoreMessage: TypeAlias = Persist | Look
StoreRef: TypeAlias = Ref[StoreMessage]


async def persist(store: StoreRef, writes: tuple[Write, ...]) -> bool:
    """Write the changes. Waits at most `PERSIST_SECONDS`. Returns True only if they are in the file; False if they are
    not, or if that is unknown.
    """
    with trio.move_on_after(PERSIST_SECONDS):
        try:
            return await store.call(Persist(writes))
        except KernelError:
            return False
    return False


async def get_spend(store: StoreRef, by: By, *, since: float, caller: str | None) -> tuple[SpendRow, ...] | None:
    """Return the spending; see `ledger.spend`. Waits at most `LOAD_SECONDS`; ``None`` if it is not available."""
    with trio.move_on_after(LOAD_SECONDS):
        try:
            return await store.call(GetSpend(by=by, since=since, caller=caller))
        except KernelError:
            return None
    return None


async def get_spent(store: StoreRef, since: float) -> tuple[SpentBy, ...] | None:
    """Return the spending since ``since`` (UNIX time), from which budgets start. Waits at most `LOAD_SECONDS`; ``None``
    if it is not available in time.
    """
    with trio.move_on_after(LOAD_SECONDS):
        try:
            return await store.call(GetSpent(since))
        except KernelError:
            return None
    return None


class StoreAwayError(Exception):
    """The store cannot be read now."""


async def load(store: StoreRef, response_id: str, caller: str) -> StoredResponseRow | None:
    """Return the caller's response with this id; ``None`` if the file does not have it. Waits at most `LOAD_SECONDS`.
    Raises `StoreAwayError` if the file cannot be read, the store is not running, or it does not reply in time.
    """
    loaded: Loaded | None = None
    with trio.move_on_after(LOAD_SECONDS), suppress(KernelError):
        loaded = await store.call(Load(response_id, caller))
    if loaded is None:
        raise StoreAwayError("the store cannot be read")
    return loaded.row
