"""The sections of the configuration, one frozen struct each.

A new section is a struct in this module and a field of `Config`; `loading` and `checking` list the sections by name.
The constructors do not validate. Files are validated when they are loaded; a `Config` that was created in Python is
validated by `checked_config` when a runtime is opened with it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from llm_actors.redis import RedisServer
from llm_protocol.budgets import Budget
from llm_protocol.model_facts import Capabilities
from llm_protocol.model_rules import WireSetting
from llm_protocol.passthrough import PassthroughRule
from llm_protocol.policy import AnswerLimits, Attempts, CachePolicy, CacheSeconds, Limits, Policy, Timeouts
from llm_protocol.prices import OwnPrice
from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_protocol.vendors import VENDORS
from llm_runtime.config.conversion import Line, Section
from llm_runtime.config.otel import OtelConfig
from llm_runtime.config.request_log import RequestLogConfig
from llm_runtime.config.server import Server
from llm_runtime.config.store import StoreConfig

KeySeconds = Annotated[float, Meta(gt=0, le=86_400)]
Weight = Annotated[float, Meta(ge=0, le=1_000)]


class Selection(Section, frozen=True, kw_only=True):
    """``[selection]``: the weights of a candidate's score. Only their proportions matter."""

    performance_weight: Weight = 0.5
    """The weight of latency in the score of a candidate. Only the proportions of the three weights matter."""
    cost_weight: Weight = 0.3
    """The weight of the price."""
    availability_weight: Weight = 0.2
    """The weight of recent failures."""

    def __post_init__(self) -> None:
        if not self.performance_weight + self.cost_weight + self.availability_weight:
            raise ValueError(
                "at least one of performance_weight, cost_weight and availability_weight must be greater than 0"
            )


class CrossModel(Section, frozen=True, kw_only=True):
    """``[cross_model]``: defaults for requests to several models."""

    synthesize_responses: bool = True
    """Whether the answers of several models are combined by a synthesiser, if neither the request nor its route names
    one. With `false`, the best single answer is used.
    """


class Key(Section, frozen=True, kw_only=True):
    """``[keys.NAME]``: a caller of the daemon."""

    secret: Secret
    """The key that the caller sends."""
    limits: Limits = Limits()
    """The rate limits of this caller, across all providers."""
    models: Annotated[tuple[Line, ...], Meta(min_length=1)] | None = None
    """The models that the caller may use: each entry is ``provider/model``, ``provider/*``, a model's name without
    provider, or a route. ``None``: all.
    """
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    """When the key expires, by the system's clock. An expired key is refused like an unknown key."""
    admin: bool = False
    """Whether the caller may see the cost and statistics of all callers, read `/metrics`, and reload the
    configuration.
    """
    metrics_only: bool = False
    """Whether the caller may read `/metrics`, and nothing else. For Prometheus."""
    strict: bool = False
    """Whether a request of this caller is refused if one of its parameters would be left out or changed; otherwise the
    change is reported.
    """
    team: Line = ""
    """The team of the caller, for budgets and the ledger."""
    vendor_ids: tuple[Line, ...] = ()
    """Patterns of vendor ids (of files, containers and vector stores), such as ``file_shared_*``, that the caller may
    use in addition to the ids that it has received itself.
    """
    passthrough: tuple[Line, ...] = ()
    """The requests that the caller may send to a provider unchanged: ``"METHOD PROVIDER/PATH"``. In the path, ``*``
    matches any text without a slash, and ``**`` any text. The method ``*`` is any method. Empty: none.
    """

    def __post_init__(self) -> None:
        if self.admin and self.metrics_only:
            raise ValueError("admin and metrics_only cannot both be set")
        for entry in self.passthrough:
            PassthroughRule.parse(entry)


class ProviderCache(Section, frozen=True, kw_only=True):
    """``[providers.NAME.cache]``: overrides ``[cache]`` for the responses of this provider."""

    enabled: bool | None = None
    """Whether the responses of this provider are cached; omitted: as in `[cache]`."""
    ttl_s: CacheSeconds | None = None
    """The most seconds for which a cached response is used; omitted: as in `[cache]`."""


class Provider(Section, frozen=True, kw_only=True):
    """``[providers.NAME]``: a configured upstream, addressed as ``NAME/model``.

    After loading, ``base_url`` is set and has no trailing slash. It is ``None`` only for the local model, whose address
    is known once its process runs. If ``models`` is empty, the vendor's list is used.
    """

    kind: Line
    """The vendor: one of the table above, or one that an installed package or the program adds."""
    enabled: bool = True
    """Whether the provider is used. The key of a disabled provider need not exist."""
    base_url: Line | None = None
    """The address of the API; omitted: the vendor's address."""
    api_key: Secret | None = None
    """Your key from the vendor."""
    api_key_age_s: KeySeconds = 3000.0
    """Seconds after which a key from a command, or from a function of a program, is fetched again."""
    auth_header: Line | None = None
    """The header for the key, if not the vendor's usual one: a name (``"api-key"``), or a name and a scheme
    (``"authorization: Bearer"``).
    """
    headers: dict[Line, Line] = field(default_factory=dict)
    """Additional headers of every request. Keys are not allowed here."""
    query: dict[Line, Line] = field(default_factory=dict)
    """Additional query parameters of every URL."""
    api_version: Line | None = None
    """The API version that is sent over Anthropic's wire. Omitted: for Anthropic, the newest one that the request
    allows; for other servers, 2023-06-01.
    """
    organization: Line | None = None
    """The organization that is billed. Only for OpenAI."""
    project: Line | None = None
    """The project. Only for OpenAI and Gemini."""
    wire: WireSetting = "auto"
    """For kinds that use OpenAI's APIs: the API for chats. ``"responses"``: the Responses API; ``"chat"``: Chat
    Completions; ``"auto"``: the Responses API if the request came over it or the model needs it, else Chat
    Completions. If the first response shows that a server has no Responses API, Chat Completions is used.
    """
    models: tuple[Line, ...] = ()
    """The models to offer. `auto` uses the first one that suits the request. Omitted: the models in the vendor's list.
    """
    ca_file: Line | None = None
    """A file with certificates (PEM) to trust for this provider, and for an ``https`` proxy, instead of the system's.
    """
    proxy: Line | None = None
    """The proxy to use: ``http://host:port``, ``https://…`` or ``socks5://…``; ``"none"``: connect directly. Omitted:
    the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` apply.
    """
    proxy_auth: Secret | None = None
    """User and password for the proxy, as ``user:password``."""
    http2: bool = False
    """Whether to use HTTP/2: at an ``https`` address if the server supports it, at an ``http`` address always, except
    through an ``http`` or ``https`` proxy. Needs the extra ``http2`` (``llm-runtime[http2]``). Each request in progress
    uses a separate connection, as with HTTP/1.1.
    """
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    cache: ProviderCache = ProviderCache()
    capabilities: dict[Line, Capabilities] = field(default_factory=dict)
    """``[providers.NAME.capabilities."pattern"]``: capabilities of models, where the shipped table and the vendor's
    list are wrong or incomplete. The pattern is a glob for the model's name. If several match, the first that sets a
    field applies.
    """
    max_answer_mb: AnswerLimits = AnswerLimits()
    """The size limit of a response that is not streamed, by request type."""

    def __post_init__(self) -> None:
        if isinstance(self.api_key, str):  # a likely mistake in Python code; its repr would show the key
            raise TypeError("api_key must be a Secret: write api_key=Secret(...)")


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration, validated.

    ``reasons``: the reason why each provider was found, by its name. ``notes``: lines for the user about ignored
    settings, and about allowed but unsafe ones.
    """

    server: Server = Server()
    timeouts: Timeouts = Timeouts()
    attempts: Attempts = Attempts()
    selection: Selection = Selection()
    cross_model: CrossModel = CrossModel()
    cache: CachePolicy = CachePolicy()
    redis: RedisServer | None = None
    """``[redis]``: the server through which processes share limits; ``None``: limits are not shared."""
    store: StoreConfig | None = None
    """``[store]``: the file in which responses survive a restart; ``None``: responses are kept in memory only."""
    request_log: RequestLogConfig | None = None
    """``[request_log]``: which requests are recorded in files; ``None``: none."""
    otel: OtelConfig | None = None
    """``[otel]``: where traces and metrics are sent; ``None``: nowhere."""
    keys: dict[str, Key] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    routes: dict[str, Policy] = field(default_factory=dict)
    """``[routes.NAME]``: names that clients use in place of a model, and how requests to them are handled."""
    budgets: dict[str, Budget] = field(default_factory=dict)
    """``[budgets.NAME]``: the limit for the total cost of some requests in a calendar window."""
    prices: dict[str, OwnPrice] = field(default_factory=dict)
    """``[prices."PROVIDER/MODEL"]``: prices of models, overriding the shipped table."""
    vendors: VendorTable = VENDORS
    """The vendors that ``kind`` may name. They come from the table, installed packages and the program, not the
    file."""
    reasons: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def enabled(self) -> dict[str, Provider]:
        """The enabled providers, by name."""
        return {name: provider for name, provider in self.providers.items() if provider.enabled}

    @property
    def cached(self) -> frozenset[str]:
        """The providers whose responses are cached unless the request or its route says otherwise."""
        enabled = {name: provider.cache.enabled for name, provider in self.enabled.items()}
        return frozenset(name for name, own in enabled.items() if (self.cache.enabled if own is None else own))
