"""The specification of a provider: the immutable data that its actor needs to reach a vendor."""

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
    """The address of a provider. It can change: each start of the local model's process uses a new port."""

    __slots__ = ("base", "origin", "url")

    def __init__(self, base_url: str) -> None:
        self.origin: Origin
        self.base: str
        self.url: str
        self.move(base_url)

    def move(self, base_url: str) -> None:
        """Change the address. Raises `ValueError` if ``base_url`` is not a valid base URL."""
        self.origin, self.base = parse_url(base_url)
        self.url = f"{self.origin}{self.base}"


class AuthHeader(NamedTuple):
    """How a key is sent: the name of the header, and the text before the key."""

    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> AuthHeader:
        """Parse ``"api-key"`` or ``"authorization: Bearer"``."""
        name, _, scheme = text.partition(":")
        return cls(name.strip().lower(), f"{scheme.strip()} " if scheme.strip() else "")


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One provider of the configuration. If ``models`` is empty, the vendor's list is used."""

    name: str
    vendor: Vendor
    wires: ProviderWires
    endpoint: Endpoint
    key: Secret | None = None
    renewer: KeyRenewer | None = None
    """Holds the key if it changes at run time. ``key`` is ``None`` then."""
    auth_header: AuthHeader | None = None
    """How the key is sent, if not as the wire sends it by default."""
    headers: tuple[tuple[str, str], ...] = ()
    """Additional headers, with names in lower case. Headers of the wire itself take precedence."""
    query: str = ""
    """Additional query parameters of every URL, already encoded."""
    models: tuple[str, ...] = ()
    trust: TlsTrust | None = None
    proxy: Proxy | None = None
    """The proxy to connect through; ``None``: connect directly."""
    http2: bool = False
    """Whether to use HTTP/2 if the server supports it."""
    timeouts: Timeouts = Timeouts()
    max_answer: AnswerLimits = AnswerLimits()
    max_concurrency: int = DEFAULT_CONCURRENCY

    @property
    def dialect(self) -> ClientDialect:
        """The provider's usual wire, which is used for model lists, for keys, and for everything but chats."""
        return self.wires.usual

    @property
    def secret(self) -> Secret | None:
        """The current key; ``None`` if the provider needs none or it has not been fetched yet."""
        return self.key if self.renewer is None else self.renewer.current

    def url_of(self, path: str) -> str:
        """Return the URL of a wire's ``path``, without its query, which may contain secrets."""
        return f"{self.endpoint.url}{path}".partition("?")[0]

    def http_request(self, wire: WireRequest) -> HttpRequest:
        """Return the HTTP request for ``wire``, with origin and credentials. This is the only place that reveals a
        key.
        """
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
