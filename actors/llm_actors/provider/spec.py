"""The specification of a provider: the immutable data that its actor needs to reach a vendor, and the provider's wires.

A provider may have two wires: OpenAI's chat API and the Responses API. `ProviderWires.of` decides which one an attempt
takes. If the first response shows that a server has no Responses API, the attempt continues over the chat API, and the
Responses API is not tried again for `CHAT_SECONDS`. In the same way the runtime learns that a model exists only in the
Responses API, if the table of models does not say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, final

import msgspec

from llm_actors.provider.renewal import KeyRenewer
from llm_actors.transport import HttpRequest, Origin, Proxy, TlsTrust, parse_url
from llm_protocol.codec.chat_adapter import spoken
from llm_protocol.dialect import ClientDialect, WireRequest
from llm_protocol.events import Failed, Finished
from llm_protocol.model_rules import (
    ModelRules,
    WireSetting,
    lacks_responses,
    needs_responses,
    prefers_responses,
    wants_responses,
)
from llm_protocol.parameters import RequestTarget
from llm_protocol.policy import AnswerLimits, Timeouts
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.secret import Secret
from llm_protocol.vendor import DEFAULT_CONCURRENCY, Vendor

CHAT_SECONDS: Final = 3600.0
"""Seconds until the Responses API is tried again at a server that had none: by then it may have been upgraded."""

MAX_MODELS: Final = 256
"""The most models of one provider that are remembered to need the Responses API. With more, all are forgotten."""


@final
class ProviderWires:
    """The wires of one provider. ``responses`` is the dialect for its Responses API; ``None`` if it has no such API.
    ``target`` is what that API supports. ``clock`` is monotonic, in seconds.

    `of` may be called from any thread, `learn` only by tasks of the provider's actor.
    """

    __slots__ = ("_chat_until", "_clock", "_needing", "_responses", "_setting", "_target", "usual")

    def __init__(
        self,
        usual: ClientDialect,
        responses: ClientDialect | None = None,
        target: RequestTarget | None = None,
        setting: WireSetting = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.usual = usual
        """The wire of everything but chats."""
        self._responses = None if setting == "chat" else responses
        self._target = target
        self._setting = setting
        self._clock = clock
        self._chat_until = -1.0
        self._needing: frozenset[str] = frozenset()

    @property
    def has_responses(self) -> bool:
        """Whether requests may use the Responses API, as far as is known."""
        return self._responses is not None and (self._setting == "responses" or self._clock() >= self._chat_until)

    def of(self, request: AnyRequest) -> ClientDialect:
        """Return the wire that an attempt at ``request`` takes."""
        responses = self._responses
        if responses is None or self._target is None:
            return self.usual
        types = self.usual.request_types
        adapted = request if request.request_type in types else spoken(request, types)
        if not isinstance(adapted, ChatRequest):
            return self.usual
        if self._setting == "responses":
            return responses
        if self._clock() < self._chat_until:
            return self.usual
        rule = self.usual.rules.of(request.model)
        is_taken = (
            request.model in self._needing
            or needs_responses(adapted, rule, self._target)
            or prefers_responses(adapted, rule)
        )
        return responses if is_taken else self.usual

    def counting(self, request: AnyRequest) -> ClientDialect:
        """Return the wire over which the tokens of ``request`` are counted. Only OpenAI's own Responses API is known to
        count tokens, so at other servers this is the usual wire.
        """
        is_openais = self._target is not None and self._target.has_hosted_tools
        return self.of(request) if is_openais else self.usual

    def instead_of(self, tried: ClientDialect, end: Finished | Failed) -> ClientDialect | None:
        """Return the other wire if ``end``, the end of an attempt over ``tried``, shows that ``tried`` is the wrong
        wire; else ``None``.
        """
        if self._responses is None or self._setting != "auto" or not isinstance(end, Failed):
            return None
        if tried is self._responses:
            return self.usual if lacks_responses(end.failure) else None
        return self._responses if wants_responses(end.failure) and self.has_responses else None

    def learn(self, worked: ClientDialect, model: str) -> None:
        """Remember that the wire ``worked``, which `instead_of` returned, had a response: for `CHAT_SECONDS` that the
        server has no Responses API, or that ``model`` needs the Responses API.
        """
        if worked is self.usual:
            self._chat_until = self._clock() + CHAT_SECONDS
        else:
            known = self._needing if len(self._needing) < MAX_MODELS else frozenset()
            self._needing = known | {model}

    def in_words(self, model: str) -> str:
        """Describe the wire for chat requests to ``model``, such as "uses the Responses API"; empty if it is the usual
        wire of the provider.
        """
        if self._responses is None:
            return "uses the chat API only" if self._setting == "chat" else ""
        if self._setting == "responses":
            return "uses the Responses API"
        if self._clock() < self._chat_until:
            return "uses the chat API, because its server has no Responses API"
        rule = "responses" if model in self._needing else self.usual.rules.of(model).wire
        return _IN_WORDS.get(rule, "")


_IN_WORDS: Final = {
    "responses": "uses the Responses API",
    "responses_if_tools": "uses the Responses API if the request has tools",
    "responses_if_tools_and_reasoning": "uses the Responses API if the request has tools and the model reasons",
}
"""Descriptions by `ModelRule.wire`."""


def wires_of(
    vendor: Vendor, rules: ModelRules, setting: WireSetting = "auto", api_version: str | None = None
) -> ProviderWires:
    """Return the wires of a provider of ``vendor``. Sets ``rules.has_responses`` to whether the provider has a
    Responses API.
    """
    usual, responses = vendor.client(rules, api_version), vendor.responses_client(rules)
    wires = ProviderWires(usual, responses, vendor.responses_target, setting)
    rules.has_responses = wires.has_responses
    return wires


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
