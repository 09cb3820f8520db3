"""Prices in the configuration, which override the shipped table."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, final

import msgspec

from llm_protocol.prices import Price
from llm_protocol.response import Usage

Dollars = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]

_MILLION = 1_000_000


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens, and per request. If omitted, `cached_input` and `cache_write` are the price
    `input`, and `reasoning` and `image` are the price `output`.
    """

    input: Dollars
    """US dollars for a million tokens of the prompt."""
    output: Dollars
    """US dollars for a million tokens of the response."""
    cached_input: Dollars | None = None
    """US dollars for a million tokens of the prompt that the vendor had cached; omitted: the price `input`."""
    cache_write: Dollars | None = None
    """US dollars for a million tokens of the prompt that the vendor wrote to its cache; omitted: the price `input`."""
    reasoning: Dollars | None = None
    """US dollars for a million reasoning tokens of the response; omitted: the price `output`."""
    image: Dollars | None = None
    """US dollars for a million image tokens of the response; omitted: the price `output`."""
    request: Dollars = 0.0
    """US dollars for each request, in addition to its tokens."""

    def cost(self, usage: Usage) -> float:
        """Return the cost of ``usage`` in US dollars."""
        price = Price(
            input=self.input,
            output=self.output,
            cached=self.cached_input,
            cache_write=self.cache_write,
            image_output=self.image,
        )
        total = price.cost(usage) or 0.0
        if self.reasoning is not None:
            total += min(usage.reasoning_tokens, usage.output_tokens) * (self.reasoning - self.output) / _MILLION
        return total + (self.request if usage.input_tokens or usage.output_tokens else 0.0)


@final
class OwnPrices:
    """The configured prices, by ``"provider/model"``; the model may be a glob. The first match wins."""

    def __init__(self, prices: Mapping[str, OwnPrice]) -> None:
        self._exact = dict(prices)
        self._globs = [(pattern, price) for pattern, price in prices.items() if any(each in pattern for each in "*?[")]

    def find(self, provider: str, model: str) -> OwnPrice | None:
        """The configured price of a deployment; ``None`` if there is none."""
        if not self._exact:
            return None
        name = f"{provider}/{model}"
        found = self._exact.get(name)
        return found or next((price for pattern, price in self._globs if fnmatchcase(name, pattern)), None)
