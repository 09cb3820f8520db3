"""The cost of attempts, computed from the configured prices and the price table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import final

from llm_protocol.prices import OwnPrice, OwnPrices
from llm_protocol.response import Usage
from llm_protocol.vendor import Vendor

MAX_UNPRICED_LOGGED = 1_000
"""The most models without a known price that are logged, once each."""

log = logging.getLogger(__name__)


@final
class Costs:
    """Computes costs with the prices of a configuration. ``vendors``: the vendor of each provider, by name."""

    def __init__(self, prices: Mapping[str, OwnPrice], vendors: dict[str, Vendor]) -> None:
        self.vendors = vendors
        self._former_vendors: dict[str, Vendor] = {}
        """The vendors of removed providers, which may still have requests in progress."""
        self._own_prices = _own(prices)
        self._logged: set[str] = set()

    def change(self, prices: Mapping[str, OwnPrice], vendors: dict[str, Vendor]) -> None:
        """Use the prices and vendors of another configuration from now on."""
        self._former_vendors |= self.vendors
        self.vendors = vendors
        self._own_prices = _own(prices)

    def cost_of(self, provider: str, model: str, usage: Usage) -> float | None:
        """Return the cost of ``usage`` in US dollars; ``None`` if the price is unknown, which is logged."""
        from llm_protocol.prices import cost_of  # imported here: the table is large

        if self._own_prices is not None and (own := self._own_prices.find(provider, model)) is not None:
            return own.cost(usage)
        vendor = self.vendors.get(provider) or self._former_vendors[provider]
        if vendor.free:
            return 0.0
        cost = cost_of(vendor.facts_key, model, usage)
        if cost is None:
            self._log_unpriced(f"{provider}/{model}")
        return cost

    def _log_unpriced(self, model: str) -> None:
        if model not in self._logged and len(self._logged) < MAX_UNPRICED_LOGGED:
            self._logged.add(model)
            log.info("the price of %s is unknown: its responses have no cost", model)


def _own(prices: Mapping[str, OwnPrice]) -> OwnPrices | None:
    return OwnPrices(prices) if prices else None
