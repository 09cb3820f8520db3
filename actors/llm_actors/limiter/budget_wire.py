"""The encoding of questions to `budgets.lua` and of its replies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from llm_actors.limiter.budget_window import NOTHING, Amount, Portion, Told, WindowState
from llm_actors.limiter.budgets import BudgetHold, Budgets
from llm_actors.redis import RedisAwayError, RedisProblem

EXTRA_SECONDS = 2 * 86_400
"""Seconds for which Redis keeps a window after its end."""

MICRO = 1_000_000
"""Dollars are sent in millionths, because Redis scripts have no exact fractions."""

INVALID = "Redis's reply to budgets.lua is invalid"

Whole = Annotated[int, msgspec.Meta(ge=0)]


class _Window(msgspec.Struct, frozen=True, array_like=True):
    """The reply about one budget's window: the other processes, this process's share, the unused part that it may
    keep, and whether all processes have reported.
    """

    others: tuple[tuple[str, tuple[Whole, Whole], tuple[Whole, Whole], int], ...]
    share: tuple[Whole, Whole]
    spare: tuple[Whole, Whole]
    complete: int


class _Answers(msgspec.Struct, frozen=True, array_like=True):
    told: tuple[_Window, ...]
    refused: tuple[Whole, ...]
    """For each claim, the number of the window that has too little left, counted from 1; 0 if the claim is paid."""


_answers = msgspec.msgpack.Decoder(_Answers)


class BudgetQuestion(NamedTuple):
    """One question to Redis about ``windows``, with ``claims`` reservations to pay."""

    number: int
    keys: list[str]
    windows: list[tuple[str, WindowState]]
    claims: int
    argument: bytes


def encode(
    budgets: Budgets, numbers: Sequence[int], *, process: str, prefix: str, wall: float, remembers: bool, leaves: bool
) -> BudgetQuestion:
    """Encode a question about all current windows and those of the reservations ``numbers``: this process's amounts
    in each, and the claims. ``remembers``: include the amounts of other processes, in case Redis has lost them.
    ``leaves``: this is the last question of this process.
    """
    windows = {id(state): (name, state) for name, state in budgets.current(wall)}
    holds = [budgets.holds.get(number) for number in numbers]
    for hold in holds:
        for part in () if hold is None else hold.parts:
            windows.setdefault(id(part.state), (part.name, part.state))
    places = {key: place for place, key in enumerate(windows)}
    number = budgets.ask(state for _, state in windows.values())
    said = [_window(budgets, name, state, wall, remembers) for name, state in windows.values()]
    claims = [_claim(hold, places) for hold in holds]
    keys = [f"{{{prefix}}}:budgets", *(_key(budgets, prefix, name, state) for name, state in windows.values())]
    argument = msgspec.msgpack.encode((process, number, int(leaves), said, claims))
    return BudgetQuestion(number, keys, list(windows.values()), len(claims), argument)


def _key(budgets: Budgets, prefix: str, name: str, state: WindowState) -> str:
    """Return the key of a window. The braces put all keys into one slot of a Redis cluster, because a script can use
    one slot only.
    """
    return f"{{{prefix}}}:budget-shares:{name}:{budgets.table.budgets[name].per}:{state.window.start}"


def _window(budgets: Budgets, name: str, state: WindowState, wall: float, remembers: bool) -> tuple[object, ...]:
    budget, own = budgets.table.budgets[name], state.own.minus(state.pending)
    others = [(who, _micro(each.own), _micro(each.share), int(each.gone)) for who, each in state.others.items()]
    return (
        (-1 if budget.usd is None else round(budget.usd * MICRO), -1 if budget.tokens is None else budget.tokens),
        _micro(own),
        _micro(state.share),
        _micro(budgets.last.get(name, NOTHING)),
        state.asked,
        others if remembers else (),
        [(who, _micro(state.base.get(who, NOTHING))) for who in budgets.gone] if remembers else (),
        int((max(0.0, state.window.end - wall) + EXTRA_SECONDS) * 1000),
    )


def _claim(hold: BudgetHold | None, places: dict[int, int]) -> list[tuple[int, tuple[int, int]]]:
    return [] if hold is None else [(places[id(part.state)], _micro(part.amount)) for part in hold.parts]


def _micro(amount: Amount) -> tuple[int, int]:
    return max(0, round(amount.usd * MICRO)), max(0, amount.tokens)


def decode(answer: bytes, question: BudgetQuestion) -> tuple[list[Told], tuple[int, ...]]:
    """Decode the reply: one `Told` per window, and for each claim the number of the window that has too little left,
    counted from 1; 0 if the claim is paid. Raises `RedisAwayError` for an invalid reply.
    """
    try:
        found = _answers.decode(answer)
    except msgspec.MsgspecError:
        raise RedisAwayError(RedisProblem("answer", INVALID)) from None
    places = all(each <= len(question.windows) for each in found.refused)
    if len(found.told) != len(question.windows) or len(found.refused) != question.claims or not places:
        raise RedisAwayError(RedisProblem("answer", INVALID))
    return [_told(each) for each in found.told], found.refused


def _told(said: _Window) -> Told:
    others = {who: Portion(_amount(own), _amount(share), bool(gone)) for who, own, share, gone in said.others}
    return Told(others, _amount(said.share), _amount(said.spare), bool(said.complete))


def _amount(said: tuple[int, int]) -> Amount:
    return Amount(said[0] / MICRO, said[1])
