"""What is said to the shared ledger, and what it answers. Pure; the other side of it is `ledger.lua`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, final

import msgspec

from llm_actors.limiter.account import Account
from llm_actors.limiter.leases import Ending


class Party(NamedTuple):
    """An account of ours, and its name in the ledger."""

    key: str
    account: Account


class Claim(NamedTuple):
    """May reservation ``number`` go, of so many ``tokens``? It would wait for ``patience_s`` to have its place."""

    number: int
    parties: tuple[Party, ...]
    tokens: int
    patience_s: float


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where one account of the ledger, opened at ``born``, stood after a charge."""

    born: str
    requests: float
    tokens: float


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """To a claim. If it is ``charged`` it may go after ``wait_s``; if not, ``wait_s`` is when to ask again.

    ``last`` is the place of the party that makes it wait, and ``open_s`` when that one lets anybody go at all.
    """

    charged: bool
    wait_s: float
    last: int
    open_s: float
    marks: tuple[Mark, ...]


class Receipt(NamedTuple):
    """A claim that was charged. With it, the charge can be corrected."""

    claim: Claim
    marks: tuple[Mark, ...]


@final
class Settle(NamedTuple):
    """The claim is over; ``tokens`` is what was really used, if known."""

    receipt: Receipt
    ending: Ending
    tokens: int | None


@final
class Hold(NamedTuple):
    """Let nothing go for so long, in any process."""

    party: Party
    seconds: float


Entry: TypeAlias = Claim | Settle | Hold

_answers = msgspec.msgpack.Decoder(tuple[Answer, ...])


class Batch(NamedTuple):
    """Keys and argument of one run of the script."""

    keys: list[str]
    argument: bytes


def encode(process: str, entries: Sequence[Entry], waiting: Sequence[Claim], also: Sequence[Party]) -> Batch:
    """One batch. ``waiting``: all claims without an answer, these entries' included: what they hold does not count
    yet. ``also``: parties whose slots are told, although nothing happens to them.
    """
    places: dict[str, int] = {}
    accounts: list[tuple[int, int, int, int]] = []

    def place(party: Party) -> int:
        found = places.get(party.key)
        if found is None:
            found = places[party.key] = len(accounts)
            limits = party.account.limits
            open_claims = sum(party.key == each.key for claim in waiting for each in claim.parties)
            held = max(0, party.account.in_flight - open_claims)
            rates = limits.requests_per_minute or 0, limits.tokens_per_minute or 0
            accounts.append((*rates, limits.max_concurrency or 0, held))
        return found

    operations: list[tuple[object, ...]] = []
    for entry in entries:
        if isinstance(entry, Claim):
            operations.append(("claim", [place(each) for each in entry.parties], entry.tokens, entry.patience_s))
        elif isinstance(entry, Hold):
            operations.append(("hold", place(entry.party), entry.seconds))
        else:
            operations.extend(_corrections(entry, [place(each) for each in entry.receipt.claim.parties]))
    for party in also:
        place(party)
    argument = msgspec.msgpack.encode((process, accounts, operations))
    return Batch(list(places), argument)


def _corrections(entry: Settle, places: Sequence[int]) -> list[tuple[object, ...]]:
    charged = entry.receipt.claim.tokens
    used = 0 if entry.ending is not Ending.SPENT else charged if entry.tokens is None else max(0, entry.tokens)
    back = entry.ending is Ending.UNSENT
    return [
        ("end", place, mark.born, mark.requests, back, mark.tokens, charged, used)
        for place, mark in zip(places, entry.receipt.marks, strict=True)
    ]


def decode(answer: bytes) -> tuple[Answer, ...]:
    """The answers to a batch's claims, in order. Raises `msgspec.MsgspecError` for anything else."""
    return _answers.decode(answer)
