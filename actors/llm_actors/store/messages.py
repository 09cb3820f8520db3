"""What the store is asked and told."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import trio

from llm_actors.kernel import Call, KernelError, MailboxSpec, Ref
from llm_actors.store.ledger import By, SpendRow, SpentBy
from llm_actors.store.write import Write

STORE_MAILBOX = MailboxSpec(4_096)
"""Messages that wait for the store; what they carry is bounded by `QUEUE_BYTES`."""

PERSIST_SECONDS = 2.0
"""How long anybody waits for something to be written."""

LOAD_SECONDS = 2.0
"""How long anybody waits for something to be read."""


class StoredResponseRow(NamedTuple):
    """A response as the file has it. ``events`` are the pieces of its log in order.

    ``ended_at`` is by the wall clock; ``None`` while it is being made, which is by another process then, or if this
    one's own writes are still on their way.
    """

    caller: str
    head: bytes
    events: tuple[bytes, ...]
    ended_at: float | None
    interrupted: bool
    """Whether the process that made it ended before it did."""


class Persist(Call[bool], frozen=True):
    """Make these changes together. Answered when they are in the file, or with False when they are not going to be."""

    writes: tuple[Write, ...]


class Load(Call[StoredResponseRow | None], frozen=True):
    """Find a response of a caller."""

    response_id: str
    caller: str


class GetSpend(Call[tuple[SpendRow, ...] | None], frozen=True, kw_only=True):
    """Say what was spent; ``None`` when the file cannot be read. ``caller``: by this one alone."""

    by: By
    since: float = 0.0
    caller: str | None = None


class GetSpent(Call[tuple[SpentBy, ...] | None], frozen=True):
    """Say what budgets start from; ``None`` when the file cannot be read."""

    since: float


Look: TypeAlias = Load | GetSpend | GetSpent
StoreMessage: TypeAlias = Persist | Look
StoreRef: TypeAlias = Ref[StoreMessage]


async def persist(store: StoreRef, writes: tuple[Write, ...]) -> bool:
    """Have the changes made. Waits for that, at most `PERSIST_SECONDS`; returns whether it is known that they were."""
    with trio.move_on_after(PERSIST_SECONDS):
        try:
            return await store.call(Persist(writes))
        except KernelError:
            return False
    return False


async def get_spend(store: StoreRef, by: By, *, since: float, caller: str | None) -> tuple[SpendRow, ...] | None:
    """What was spent, see `ledger.spend`. Waits for that, at most `LOAD_SECONDS`; ``None`` when it cannot be told."""
    with trio.move_on_after(LOAD_SECONDS):
        try:
            return await store.call(GetSpend(by=by, since=since, caller=caller))
        except KernelError:
            return None
    return None


async def get_spent(store: StoreRef, since: float) -> tuple[SpentBy, ...] | None:
    """What budgets start from. Waits for that, at most `LOAD_SECONDS`; ``None`` when it cannot be told."""
    with trio.move_on_after(LOAD_SECONDS):
        try:
            return await store.call(GetSpent(since))
        except KernelError:
            return None
    return None


async def load(store: StoreRef, response_id: str, caller: str) -> StoredResponseRow | None:
    """The caller's response of that id, if the file has it. Waits for that, at most `LOAD_SECONDS`."""
    with trio.move_on_after(LOAD_SECONDS):
        try:
            return await store.call(Load(response_id, caller))
        except KernelError:
            return None
    return None
