"""A provider: one configured way to reach one vendor. Everything a provider actor needs to know, without state."""

from __future__ import annotations

from typing import NamedTuple, final

import msgspec

from llm_actors.provider.renewal import KeyRenewer
from llm_actors.provider.wires import ProviderWires
from llm_actors.transport import HttpRequest, Origin, Proxy, TlsTrust, parse_url
from llm_protocol.dialect import ClientDialect, WireRequest
from llm_protocol.policy import AnswerLimits, Timeouts
from llm_protocol.secret import Secret
from llm_protocol.vendor import DEFAULT_CONCURRENCY, Vendor


@final
class Endpoint:
    """The address of a provider. It can change: the local model gets a new port with each start of its process."""

    __slots__ = ("base", "origin")

    def __init__(self, base_url: str) -> None:
        self.origin: Origin
        self.base: str
        self.move(base_url)

    def move(self, base_url: str) -> None:
        """Change the address. Raises ValueError for what is not a base URL."""
        self.origin, self.base = parse_url(base_url)


class AuthHeader(NamedTuple):
    """How a key is sent: the header, and the prefix before the key."""

    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> AuthHeader:
        """Parse ``"api-key"`` or ``"authorization: Bearer"``."""
        name, _, scheme = text.partition(":")
        return cls(name.strip().lower(), f"{scheme.strip()} " if scheme.strip() else "")


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the configuration, resolved. If ``models`` is empty, the vendor is asked for its list."""

    name: str
    vendor: Vendor
    wires: ProviderWires
    endpoint: Endpoint
    key: Secret | None = None
    renewer: KeyRenewer | None = None
    """Holds the key if it changes; ``key`` is ``None`` then."""
    auth_header: AuthHeader | None = None
    """How the key is sent, if not in the wire's usual way."""
    headers: tuple[tuple[str, str], ...] = ()
    """Additional headers, names in lower case. Headers of the wire itself take precedence."""
    query: str = ""
    """Additional query parameters of every URL, encoded."""
    models: tuple[str, ...] = ()
    trust: TlsTrust | None = None
    proxy: Proxy | None = None
    """The proxy; ``None``: connect directly."""
    http2: bool = False
    """Whether HTTP/2 is spoken where the server has it."""
    timeouts: Timeouts = Timeouts()
    max_answer: AnswerLimits = AnswerLimits()
    max_concurrency: int = DEFAULT_CONCURRENCY

    @property
    def dialect(self) -> ClientDialect:
        """Its usual wire: for lists of models, keys, and all that is no chat."""
        return self.wires.usual

    @property
    def secret(self) -> Secret | None:
        """The current key."""
        return self.key if self.renewer is None else self.renewer.current

    def url_of(self, wire: WireRequest) -> str:
        """Where ``wire`` is sent, without the query, which may hold what is nobody's business."""
        return f"{self.endpoint.origin}{self.endpoint.base}{wire.path}".partition("?")[0]

    def http_request(self, wire: WireRequest) -> HttpRequest:
        """``wire`` with origin and credentials. The only place where a key is revealed."""
        headers = dict(self.headers) | dict(wire.headers)
        key = self.secret
        if key is not None and self.auth_header is not None:
            headers[self.auth_header.name] = self.auth_header.prefix + key.reveal()
        elif key is not None:
            headers.update(self.dialect.auth_headers(key.reveal()))
        path = self.endpoint.base + wire.path
        if self.query:
            path += ("&" if "?" in path else "?") + self.query
        return HttpRequest(wire.method, self.endpoint.origin, path, headers, wire.body)
