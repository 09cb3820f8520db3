"""Budgets over many requests: who pays, how much per calendar window, and when a window begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple, TypeAlias, final

import msgspec

Per: TypeAlias = Literal["minute", "day", "month"]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[budgets.NAME]``: the limit for the total cost or tokens of some requests in one calendar window (UTC). A
    budget that names no keys, teams or routes covers all requests.
    """

    keys: tuple[Name, ...] = ()
    """The callers to whose requests the budget applies; omitted: all. If several of `keys`, `teams` and `routes` are
    set, a request must match each of them.
    """
    teams: tuple[Name, ...] = ()
    """The teams (`[keys.NAME] team`) to whose requests the budget applies; omitted: all."""
    routes: tuple[Name, ...] = ()
    """The routes to whose requests the budget applies; omitted: all requests, including those without a route."""
    usd: Annotated[float, msgspec.Meta(gt=0, le=1_000_000_000)] | None = None
    """The most US dollars in one window; omitted: no limit."""
    tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000_000)] | None = None
    """The most tokens in one window, in and out; omitted: no limit."""
    per: Per = "month"
    """The window: `minute`, `day` or `month`, by the calendar (UTC)."""
    soft: Fraction | None = None
    """The used fraction of `usd` or `tokens`, whichever is larger, from which responses and the log contain a warning;
    omitted: no warning.
    """
    unknown_price: Literal["refuse", "allow"] | Price = "refuse"
    """If the budget has `usd`: how a model without a known price counts. `refuse`: the model is not called; `allow`: it
    counts as $0; a number: its price in US dollars per million tokens.
    """

    def pays(self, payer: Payer) -> bool:
        """Return whether the budget applies to the requests of ``payer``."""
        return (
            (not self.keys or payer.caller in self.keys)
            and (not self.teams or payer.team in self.teams)
            and (not self.routes or payer.route in self.routes)
        )

    def cost(self, known: float | None, tokens: int) -> float | None:
        """Return the cost of a request in US dollars as this budget counts it: ``known``, the cost at the known price;
        without a known price, the cost of ``tokens`` by ``unknown_price`` (0 if the budget has no ``usd``). ``None``
        means that the request is refused.
        """
        if known is not None:
            return known
        if self.unknown_price == "allow" or self.usd is None:
            return 0.0
        return None if self.unknown_price == "refuse" else self.unknown_price * tokens / 1_000_000


class Payer(NamedTuple):
    """The origin of a request, which decides who pays. ``run`` is the id of the run. ``team`` and ``route`` are empty
    if there is none.
    """

    run: str
    caller: str = ""
    team: str = ""
    route: str = ""


class CalendarWindow(NamedTuple):
    """A time span, from ``start`` up to but not including ``end``, in seconds since the epoch."""

    start: int
    end: int


def window_at(per: Per, wall: float) -> CalendarWindow:
    """Return the minute, day or month in UTC that contains ``wall`` (seconds since the epoch)."""
    if per == "minute":
        start = int(wall // 60) * 60
        return CalendarWindow(start, start + 60)
    if per == "day":
        start = int(wall // 86_400) * 86_400
        return CalendarWindow(start, start + 86_400)
    first = datetime.fromtimestamp(wall, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + timedelta(days=32)).replace(day=1)
    return CalendarWindow(int(first.timestamp()), int(after.timestamp()))


REMEMBERED_PAYERS = 4_096


@final
class BudgetTable:
    """The budgets, and the decision on which of them apply to a request."""

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        self.budgets = budgets
        self._known: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self.budgets)

    def of(self, payer: Payer) -> tuple[str, ...]:
        """The names of the budgets that pay for a request of ``payer``."""
        if not self.budgets:
            return ()
        key = payer[1:]
        found = self._known.get(key)
        if found is None:
            found = tuple(name for name, budget in self.budgets.items() if budget.pays(payer))
            if len(self._known) < REMEMBERED_PAYERS:
                self._known[key] = found
        return found
