"""The messages to the shared ledger, and its replies. Pure. The other side is `ledger.lua`."""

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
"""A wait of more seconds than this, or one that is not a number, is invalid."""


class SharedLimit(NamedTuple):
    """The limits of a provider or caller, and their key in the ledger."""

    key: str
    account: LimitState


class Claim(NamedTuple):
    """Asks for the reservation ``number``, of ``tokens`` tokens. The request can wait for ``patience_s`` seconds."""

    number: int
    limits: tuple[SharedLimit, ...]
    tokens: int
    patience_s: float
    model: str = ""
    """The vendor's name of the model. If set, the first of ``limits`` is the limit of the provider."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """In which second the ledger's entry for one limit counted a charge. ``born``: when that entry was created; a later
    entry for the same limit does not contain the charge.
    """

    born: str
    second: int


Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)]


class LedgerReply(msgspec.Struct, frozen=True, array_like=True):
    """The reply to a claim. If ``charged``, the request may be sent after ``wait_s`` seconds; if not, claim it again
    after that time.

    ``last``: the index of the limit that the request waits for. ``open_s``: seconds after which that limit lets any
    request go.
    """

    charged: bool
    wait_s: Seconds
    last: int
    open_s: Seconds
    marks: tuple[Mark, ...]
    held_s: Seconds = 0.0
    """For how many more seconds the model is held. If it is not 0, the hold is the only reason for the refusal."""


class Receipt(NamedTuple):
    """A claim that was charged, and the seconds in which it was counted, so that the charge can be corrected."""

    claim: Claim
    marks: tuple[Mark, ...]


@final
class Settle(NamedTuple):
    """Corrects the charge of a request that has ended. ``tokens``: the tokens that the request used, if known."""

    receipt: Receipt
    ending: Settlement
    tokens: int | None


@final
class LedgerPause(NamedTuple):
    """Holds a provider in all processes for ``seconds``; with ``model``, only that model."""

    limit: SharedLimit
    seconds: float
    model: str = ""


@final
class Held(NamedTuple):
    """Reports how many requests this process has in progress under one limit."""

    limit: SharedLimit


Entry: TypeAlias = Claim | Settle | LedgerPause | Held


class LedgerReplies(msgspec.Struct, frozen=True, array_like=True):
    """The reply to a batch: the ledger's clock in seconds, and the replies to its claims."""

    now: Annotated[float, Meta(ge=0, le=MAX_TIME)]
    answers: tuple[LedgerReply, ...]


_replies = msgspec.msgpack.Decoder(LedgerReplies)


class Batch(NamedTuple):
    """The keys and the argument of one call of the script `ledger.lua`."""

    keys: list[str]
    argument: bytes


def encode(clock: str, process: str, latest: float, entries: Sequence[Entry], waiting: Sequence[Claim]) -> Batch:
    """Return one batch. ``clock``: the key of the ledger's clock. ``latest``: the latest value that this clock can
    have now, on the clock of this process; 0 if unknown. ``waiting``: all claims without a reply, including those
    among ``entries``; their requests do not count as in progress yet.
    """
    open_claims = Counter(each.key for claim in waiting for each in claim.limits)
    places: dict[str, int] = {}
    accounts: list[tuple[int, int, int, int, float]] = []

    def place(limit: SharedLimit) -> int:
        found = places.get(limit.key)
        if found is None:
            found = places[limit.key] = len(accounts)
            limits = limit.account.limits
            held = max(0, limit.account.in_flight - open_claims[limit.key])
            rates = limits.requests_per_minute or 0, limits.tokens_per_minute or 0
            accounts.append((*rates, limits.max_concurrency or 0, held, limits.burst))
        return found

    operations: list[tuple[object, ...]] = []
    for entry in entries:
        if isinstance(entry, Claim):
            limits = [place(each) for each in entry.limits]
            operations.append(("claim", limits, entry.tokens, entry.patience_s, entry.model))
        elif isinstance(entry, LedgerPause):
            operations.append(("hold", place(entry.limit), entry.seconds, entry.model))
        elif isinstance(entry, Held):
            place(entry.limit)
        else:
            operations.extend(_corrections(entry, [place(each) for each in entry.receipt.claim.limits]))
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
    """Return the ledger's clock, and the ``claims`` of a batch with their replies. Raises `ValueError` if ``answer`` is
    not a reply to them.
    """
    try:
        replies = _replies.decode(answer)
        answered = list(zip(claims, replies.answers, strict=True))
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from None
    for claim, each in answered:
        limits = len(claim.limits)
        if not 0 <= each.last < limits or len(each.marks) != limits * each.charged:
            raise ValueError("the reply does not fit the limits of the request")
        if not each.charged and not each.wait_s:
            raise ValueError("the reply contains neither a charge nor a time to try again")
    return replies.now, answered
