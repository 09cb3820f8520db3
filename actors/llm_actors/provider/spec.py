"""A provider: one configured way to reach one vendor. Everything a provider actor must know, and no state."""

from __future__ import annotations

from typing import final

import msgspec

from llm_actors.transport import HttpRequest, Origin, TlsTrust, parse_url
from llm_protocol.dialect import ClientDialect, WireRequest
from llm_protocol.policy import AnswerLimits, Timeouts
from llm_protocol.secret import Secret
from llm_protocol.vendor import DEFAULT_CONCURRENCY, Vendor


@final
class Endpoint:
    """Where a provider is reached. It can move: the local model gets a new port with each start of its process."""

    __slots__ = ("base", "origin")

    def __init__(self, base_url: str) -> None:
        self.origin: Origin
        self.base: str
        self.move(base_url)

    def move(self, base_url: str) -> None:
        """From now on the provider is at ``base_url``. Raises ValueError for what is not a base URL."""
        self.origin, self.base = parse_url(base_url)


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the configuration, resolved. ``models`` empty: the vendor is asked for its list."""

    name: str
    vendor: Vendor
    dialect: ClientDialect
    endpoint: Endpoint
    key: Secret | None = None
    models: tuple[str, ...] = ()
    trust: TlsTrust | None = None
    timeouts: Timeouts = Timeouts()
    max_answer: AnswerLimits = AnswerLimits()
    max_concurrency: int = DEFAULT_CONCURRENCY

    def http_request(self, wire: WireRequest) -> HttpRequest:
        """``wire`` with origin and credentials. The only place where a key is revealed."""
        headers = dict(wire.headers)
        if self.key is not None:
            headers.update(self.dialect.auth_headers(self.key.reveal()))
        return HttpRequest(wire.method, self.endpoint.origin, self.endpoint.base + wire.path, headers, wire.body)
