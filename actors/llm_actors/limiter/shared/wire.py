"""The messages to the shared ledger, and its answers. Pure; the other side is `ledger.lua`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias, final

import msgspec
from msgspec import Meta

from llm_actors.limiter.limit_state import LimitState
from llm_protocol.failures import Settlement

MAX_TIME = 1e12
"""A clock value above this is invalid."""

MAX_WAIT_SECONDS = 1e9
"""A longer wait is invalid, and so is one that is no number."""


class Party(NamedTuple):
    """The limits of a provider or caller, and their name in the ledger."""

    key: str
    account: LimitState


class Claim(NamedTuple):
    """May reservation ``number``, of so many ``tokens``, go? It would wait for ``patience_s`` to have its place."""

    number: int
    parties: tuple[Party, ...]
    tokens: int
    patience_s: float
    model: str = ""
    """The provider's model it is for; the provider is the first party then."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The second in which the ledger's entry for one party, created at ``born``, counted a charge."""

    born: str
    second: int


Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)]


class LedgerReply(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a claim. If it is ``charged`` it may go after ``wait_s``; if not, ``wait_s`` is when to ask again.

    ``last`` is the index of the party that makes it wait, and ``open_s`` when that one lets anything go at all.
    """

    charged: bool
    wait_s: Seconds
    last: int
    open_s: Seconds
    marks: tuple[Mark, ...]
    held_s: Seconds = 0.0
    """For how much longer the model is held. If set, that is the only reason for the refusal."""


class Receipt(NamedTuple):
    """A claim that was charged, with what is needed to correct the charge."""

    claim: Claim
    marks: tuple[Mark, ...]


@final
class Settle(NamedTuple):
    """The claim has ended; ``tokens`` is what was really used, if known."""

    receipt: Receipt
    ending: Settlement
    tokens: int | None


@final
class LedgerPause(NamedTuple):
    """Pause all requests to a provider for so many seconds, in every process; with ``model``, only those for that
    model.
    """

    party: Party
    seconds: float
    model: str = ""


@final
class Held(NamedTuple):
    """The requests that this process has in progress, reported again."""

    party: Party


Entry: TypeAlias = Claim | Settle | LedgerPause | Held


class LedgerReplies(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a batch: the ledger's clock in seconds, and the answers to its claims."""

    now: Annotated[float, Meta(ge=0, le=MAX_TIME)]
    answers: tuple[LedgerReply, ...]


_replies = msgspec.msgpack.Decoder(LedgerReplies)


class Batch(NamedTuple):
    """Keys and argument of one call of the script."""

    keys: list[str]
    argument: bytes


def encode(clock: str, process: str, latest: float, entries: Sequence[Entry], waiting: Sequence[Claim]) -> Batch:
    """One batch. ``clock``: the key of the ledger's clock. ``latest``: the latest value that it can have now, by this
    process's own clock; 0 if unknown. ``waiting``: all claims without an answer, including these entries: what they
    hold does not count yet.
    """
    open_claims = Counter(each.key for claim in waiting for each in claim.parties)
    places: dict[str, int] = {}
    accounts: list[tuple[int, int, int, int, float]] = []

    def place(party: Party) -> int:
        found = places.get(party.key)
        if found is None:
            found = places[party.key] = len(accounts)
            limits = party.account.limits
            held = max(0, party.account.in_flight - open_claims[party.key])
            rates = limits.requests_per_minute or 0, limits.tokens_per_minute or 0
            accounts.append((*rates, limits.max_concurrency or 0, held, limits.burst))
        return found

    operations: list[tuple[object, ...]] = []
    for entry in entries:
        if isinstance(entry, Claim):
            parties = [place(each) for each in entry.parties]
            operations.append(("claim", parties, entry.tokens, entry.patience_s, entry.model))
        elif isinstance(entry, LedgerPause):
            operations.append(("hold", place(entry.party), entry.seconds, entry.model))
        elif isinstance(entry, Held):
            place(entry.party)
        else:
            operations.extend(_corrections(entry, [place(each) for each in entry.receipt.claim.parties]))
    argument = msgspec.msgpack.encode((process, latest, accounts, operations))
    return Batch([clock, *places], argument)


def _corrections(entry: Settle, places: Sequence[int]) -> list[tuple[object, ...]]:
    charged = entry.receipt.claim.tokens
    used = 0 if entry.ending is not Settlement.CHARGED else charged if entry.tokens is None else max(0, entry.tokens)
    back = entry.ending is Settlement.REFUNDED
    return [
        ("end", place, mark.born, mark.second, back, charged, used)
        for place, mark in zip(places, entry.receipt.marks, strict=True)
    ]


def decode(answer: bytes, claims: Sequence[Claim]) -> tuple[float, list[tuple[Claim, LedgerReply]]]:
    """Parse the ledger's clock, and the answers to a batch's ``claims``, which are in order. Raises `ValueError` for
    anything else.
    """
    try:
        replies = _replies.decode(answer)
        answered = list(zip(claims, replies.answers, strict=True))
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from None
    for claim, each in answered:
        parties = len(claim.parties)
        if not 0 <= each.last < parties or len(each.marks) != parties * each.charged:
            raise ValueError("a reply about other limits")
        if not each.charged and not each.wait_s:
            raise ValueError("neither charged nor with a time to ask again")
    return replies.now, answered
