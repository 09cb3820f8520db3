"""What an answer costs: the `CostCalculator` of this runtime, as two functions over a shipped table.

``prices.json`` is made by ``bin/make-prices`` and bears its date. It is read on first use. A model that is not in it
has no known price, which is ``None`` and never 0. Names are looked for as they are, then without what stands before the
last "/", then without a date at their end.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from llm_protocol.response import Usage

MAX_REMEMBERED = 4096
"""Names whose answer is kept, found or not."""

_PER = 1_000_000
_DATE = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices for requests with more than ``above`` input tokens; they hold for all of the request's tokens."""

    above: int
    input: float
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    image_output: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars for a million tokens. ``None``: there is no price of its own."""

    input: float
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    image_output: float | None = None
    tiers: tuple[PriceTier, ...] = ()

    def cost(self, usage: Usage) -> float | None:
        """What ``usage`` costs, or ``None`` where it has tokens without a price."""
        at = self._at(usage.input_tokens)
        billed_in, billed_out = usage.billed_input_tokens, usage.billed_output_tokens
        tokens_in = usage.input_tokens if billed_in is None else billed_in
        tokens_out = usage.output_tokens if billed_out is None else billed_out
        if tokens_out and at.output is None:
            return None
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        total = max(0, tokens_in - cached - written) * at.input
        total += cached * (at.input if at.cached is None else at.cached)
        total += written * (at.input if at.cache_write is None else at.cache_write)
        output = at.output or 0.0
        pictures = min(usage.image_tokens, tokens_out)
        total += (tokens_out - pictures) * output + pictures * (at.image_output or output)
        return total / _PER

    def _at(self, input_tokens: int) -> Price | PriceTier:
        found: Price | PriceTier = self
        for tier in self.tiers:
            if input_tokens > tier.above:
                found = tier
        return found


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: tuple[str, ...]
    price: dict[str, float]
    prefixes: tuple[str, ...] = ()
    pattern: str = ""
    tiers: tuple[PriceTier, ...] = ()


class _File(msgspec.Struct, frozen=True):
    date: str
    source: str
    vendors: dict[str, list[_Model]]


class PriceTable:
    """The prices of one file."""

    def __init__(self, data: bytes) -> None:
        file = msgspec.json.decode(data, type=_File)
        self.date = file.date
        self._vendors = {kind: [_Entry(model) for model in models] for kind, models in file.vendors.items()}
        self._remembered: dict[tuple[str, str], Price | None] = {}

    def price_of(self, kind: str, model: str) -> Price | None:
        """The price of ``model`` at a vendor of ``kind``."""
        key = (kind, model)
        try:
            return self._remembered[key]
        except KeyError:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[key] = self._look_up(kind, model)
            return found

    def _look_up(self, kind: str, model: str) -> Price | None:
        entries = self._vendors.get(kind, ())
        for name in _spellings(model):
            exact = next((entry for entry in entries if name in entry.names), None)
            found = exact or next((entry for entry in entries if entry.fits(name)), None)
            if found is not None:
                return found.price
        return None


class _Entry:
    """One model: which names mean it, and its price."""

    def __init__(self, model: _Model) -> None:
        self.names = frozenset(model.names)
        self.price = msgspec.convert({**model.price, "tiers": model.tiers}, Price)
        self._prefixes = model.prefixes
        self._pattern = model.pattern  # compiled when it is first needed

    def fits(self, name: str) -> bool:
        return name.startswith(self._prefixes) or bool(self._pattern and re.match(self._pattern, name))


def _spellings(model: str) -> list[str]:
    """The names under which ``model`` may be known, the likeliest first."""
    name = model.lower()
    found: list[str] = []
    for spelling in (name, name.rpartition("/")[2]):
        found += [spelling, _DATE.sub("", spelling)]
    return list(dict.fromkeys(found))


_table: PriceTable | None = None


def shipped() -> PriceTable:
    """The table that is shipped, read once."""
    global _table
    if _table is None:
        _table = PriceTable(Path(__file__).with_name("prices.json").read_bytes())
    return _table


def price_of(kind: str, model: str) -> Price | None:
    """The price of ``model`` at a vendor of ``kind`` (a value of `LLMProvider`), or ``None`` if it is not known."""
    return shipped().price_of(kind, model)


def cost_of(kind: str, model: str, usage: Usage | None) -> float | None:
    """What ``usage`` costs in US dollars, or ``None`` if price or usage is not known."""
    price = price_of(kind, model)
    return None if price is None or usage is None else price.cost(usage)
