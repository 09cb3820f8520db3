"""The cost of a response: two functions over a table that is shipped.

``prices.json`` is made by ``bin/make-prices`` and has its date. ``prices_more.json`` is maintained by hand and has what
the other lacks. Both are read on first use. A model that is in neither has no known price, which is ``None`` and never
0. Names are looked up as they are, then without what stands before the last "/", then without a date at their end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
    image_input: float | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars for a million tokens. ``None``: there is no price of its own."""

    input: float
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    image_output: float | None = None
    image_input: float | None = None
    long_cache_write: float | None = None
    """Times the price of input."""
    tiers: tuple[PriceTier, ...] = ()

    def cost(self, usage: Usage) -> float | None:
        """What ``usage`` costs, or ``None`` where it has tokens without a price."""
        at = self._at(usage.input_tokens)
        billed_in, billed_out = usage.billed_input_tokens, usage.billed_output_tokens
        tokens_in = usage.input_tokens if billed_in is None else billed_in
        tokens_out = usage.output_tokens if billed_out is None else billed_out
        if tokens_out and at.output is None:
            return None
        # Where a vendor bills fewer tokens than it counts, more of them can be cached than are billed at all.
        cached = min(usage.cached_tokens, tokens_in)
        written = min(usage.cache_write_tokens, tokens_in - cached)
        plain = tokens_in - cached - written
        seen = min(usage.image_input_tokens, plain)
        total = (plain - seen) * at.input + seen * (at.input if at.image_input is None else at.image_input)
        total += cached * (at.input if at.cached is None else at.cached)
        long = 0 if self.long_cache_write is None else min(usage.long_cache_write_tokens, written)
        total += (written - long) * (at.input if at.cache_write is None else at.cache_write)
        total += long * at.input * (self.long_cache_write or 0.0)
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
    source: str = ""


class _File(msgspec.Struct, frozen=True):
    date: str
    source: str
    vendors: dict[str, list[_Model]]


class _More(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the generated file lacks: models, prices of images that are shown, and factors: of the price of input for
    what is cached for long, and of all prices for ways of service. ``web_search`` is US dollars for a thousand.
    """

    source: str = ""
    vendors: dict[str, list[_Model]] = {}
    image_input: dict[str, dict[str, float]] = {}
    long_cache_write: dict[str, float] = {}
    services: dict[str, dict[str, float]] = {}
    web_search: dict[str, float] = {}
    web_search_source: str = ""


class PriceTable:
    """The prices of one file, and of a second one with ``more``. What both have is the first one's."""

    def __init__(self, data: bytes, more: bytes = b"{}") -> None:
        file, added = msgspec.json.decode(data, type=_File), msgspec.json.decode(more, type=_More)
        self.date = file.date
        self._services = added.services
        self._web_search = added.web_search
        self._vendors: dict[str, list[_Entry]] = {}
        for kind in dict.fromkeys((*file.vendors, *added.vendors)):
            images, long = added.image_input.get(kind, {}), added.long_cache_write.get(kind)
            models = (*file.vendors.get(kind, ()), *added.vendors.get(kind, ()))
            self._vendors[kind] = [_Entry(model, images, long) for model in models]
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

    def factor(self, kind: str, services: Iterable[str]) -> float | None:
        """By what the prices are multiplied for these ways of service; ``None`` where one has no known price."""
        known, factor = self._services.get(kind), 1.0
        if known is not None:
            for service in services:
                if service not in known:
                    return None
                factor *= known[service]
        return factor

    def searching(self, kind: str, searches: int) -> float | None:
        """What so many of the vendor's own web searches cost; ``None`` where that is not known."""
        if not searches:
            return 0.0
        per_thousand = self._web_search.get(kind)
        return None if per_thousand is None else searches * per_thousand / 1_000

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

    def __init__(self, model: _Model, images: Mapping[str, float], long: float | None) -> None:
        self.names = frozenset(model.names)
        said: dict[str, object] = {**model.price, "tiers": model.tiers, "long_cache_write": long}
        said["image_input"] = next((images[name] for name in model.names if name in images), None)
        self.price = msgspec.convert(said, Price)
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
        here = Path(__file__)
        _table = PriceTable(*(here.with_name(name).read_bytes() for name in ("prices.json", "prices_more.json")))
    return _table


def price_of(kind: str, model: str) -> Price | None:
    """The price of ``model`` at a vendor of ``kind`` (`Vendor.facts_key`), or ``None`` if it is not known."""
    return shipped().price_of(kind, model)


def cost_of(kind: str, model: str, usage: Usage | None) -> float | None:
    """What ``usage`` costs in US dollars, or ``None`` if price or usage is not known."""
    price = price_of(kind, model)
    if price is None or usage is None:
        return None
    cost, factor = price.cost(usage), shipped().factor(kind, usage.services) if usage.services else 1.0
    searching = shipped().searching(kind, usage.web_searches)
    return None if cost is None or factor is None or searching is None else cost * factor + searching
