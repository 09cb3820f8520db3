"""The sections of the configuration, one frozen struct each.

A section that is added is a struct here and a field of `Config`; the loader needs no change unless entries have names
of their own, like ``[providers.NAME]``. The constructors do not validate (msgspec validates what it converts): a
`Config` made by hand is trusted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from llm_actors.redis import RedisServer
from llm_protocol.model_facts import Capabilities
from llm_protocol.own_prices import OwnPrice
from llm_protocol.policy import AnswerLimits, Attempts, CachePolicy, CacheSeconds, Limits, Policy, Timeouts
from llm_protocol.secret import Secret
from llm_protocol.vendor import VendorTable
from llm_protocol.vendors import VENDORS
from llm_protocol.wire_choice import WireSetting
from llm_runtime.config.section import Line, Section
from llm_runtime.config.server import Server

KeySeconds = Annotated[float, Meta(gt=0, le=86_400)]
Weight = Annotated[float, Meta(ge=0, le=1_000)]


class Selection(Section, frozen=True, kw_only=True):
    """``[selection]``: what a candidate's score is made of. Only the proportions matter."""

    performance_weight: Weight = 0.5
    """How much latency counts."""
    cost_weight: Weight = 0.3
    """How much the price counts."""
    availability_weight: Weight = 0.2
    """How much recent failures count."""

    def __post_init__(self) -> None:
        if not self.performance_weight + self.cost_weight + self.availability_weight:
            raise ValueError("one of the weights must be more than 0")


class CrossModel(Section, frozen=True, kw_only=True):
    """``[cross_model]``: what holds wherever several models are asked and nothing else is said."""

    synthesize_responses: bool = True
    """Make one answer of several."""


class Key(Section, frozen=True, kw_only=True):
    """``[keys.NAME]``: a caller of the daemon."""

    secret: Secret
    """What the caller sends as its key."""
    limits: Limits = Limits()
    """What this caller may ask for, whoever answers."""
    models: Annotated[tuple[Line, ...], Meta(min_length=1)] | None = None
    """What it may use: ``provider/model``, ``provider/*``, a model's bare name, a route's name. ``None``: all."""
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    """From when on, by the wall clock, the key is like one that was never known."""
    strict: bool = False
    """Refuse this caller's requests where a parameter would be left out or changed, instead of telling so."""
    vendor_ids: tuple[Line, ...] = ()
    """Patterns of vendors' ids (files, containers, vector stores) it may use besides those that it was given itself."""


class ProviderCache(Section, frozen=True, kw_only=True):
    """``[providers.NAME.cache]``: what differs from ``[cache]`` for this provider's answers; ``None``: nothing."""

    enabled: bool | None = None
    """Whether this provider's responses are kept; omitted: as in `[cache]`."""
    ttl_s: CacheSeconds | None = None
    """How old they may be; omitted: as in `[cache]`."""


class Provider(Section, frozen=True, kw_only=True):
    """``[providers.NAME]``: a configured upstream, addressed as ``NAME/model``.

    After loading ``base_url`` is filled in and has no trailing slash; ``None`` only for the local model, whose address
    is known when its process runs. ``models`` empty: the vendor is asked.
    """

    kind: Line
    """The vendor: one of the table above, or one that an installed package or the program adds."""
    enabled: bool = True
    """Whether it is started. The key of a provider that is not need not exist."""
    base_url: Line | None = None
    """The address of the API; omitted: the vendor's own."""
    api_key: Secret | None = None
    """The key the vendor gave you."""
    api_key_age_s: KeySeconds = 3000.0
    """Seconds that a key which a command or a function gave is used; then it is asked for again."""
    auth_header: Line | None = None
    """How the key is sent, if not the usual way: ``"api-key"``, or ``"authorization: Bearer"``."""
    headers: dict[Line, Line] = field(default_factory=dict)
    """What is sent with every request besides."""
    query: dict[Line, Line] = field(default_factory=dict)
    """Parameters of every address."""
    api_version: Line | None = None
    """What Anthropic's wire says as its version; omitted: the newest to Anthropic, 2023-06-01 to servers of others."""
    organization: Line | None = None
    """The organization that is billed, where the vendor has such: OpenAI."""
    project: Line | None = None
    """The project, where the vendor has such: OpenAI and Gemini."""
    wire: WireSetting = "auto"
    """The API that chats go over, for kinds with OpenAI's: ``"responses"`` or ``"chat"``. ``"auto"``: the Responses
    API where the request came over it or the model needs it; a server without it is learned from its first answer.
    """
    models: tuple[Line, ...] = ()
    """All models to offer; the first is its default. Omitted: the vendor is asked for its list."""
    ca_file: Line | None = None
    """Certificates to trust for this provider instead of the system's; for an ``https`` proxy, too."""
    proxy: Line | None = None
    """Through whom it is reached: ``http://host:port``, ``https://…`` or ``socks5://…``; ``"none"``: directly.
    Omitted: as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    """
    proxy_auth: Secret | None = None
    """User and password for the proxy, as ``user:password``."""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    cache: ProviderCache = ProviderCache()
    capabilities: dict[Line, Capabilities] = field(default_factory=dict)
    """``[providers.NAME.capabilities."pattern"]``: what its models take, where the shipped table and the vendor's list
    are wrong or silent. The pattern is a glob for the model's name; of several that fit, the first that says a field
    counts.
    """
    max_answer_mb: AnswerLimits = AnswerLimits()
    """How large one answer may be that comes in one piece, by request type."""

    def __post_init__(self) -> None:
        if isinstance(self.api_key, str):  # by hand, the likely mistake; and this way a repr would print the key
            raise TypeError("api_key is a Secret: write api_key=Secret(...)")


class Config(Section, frozen=True, kw_only=True):
    """Everything, checked.

    ``reasons`` says for each provider, by name, why it is there; ``notes`` are lines for the person who started us:
    what was passed over, and what is allowed but unwise.
    """

    server: Server = Server()
    timeouts: Timeouts = Timeouts()
    attempts: Attempts = Attempts()
    selection: Selection = Selection()
    cross_model: CrossModel = CrossModel()
    cache: CachePolicy = CachePolicy()
    redis: RedisServer | None = None
    """``[redis]``: where limits are shared with other processes; ``None``: they are not."""
    keys: dict[str, Key] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    routes: dict[str, Policy] = field(default_factory=dict)
    """``[routes.NAME]``: a name to be used as a model's, and how requests to it are answered."""
    prices: dict[str, OwnPrice] = field(default_factory=dict)
    """``[prices."PROVIDER/MODEL"]``: what a model costs, laid over the table that is shipped."""
    vendors: VendorTable = VENDORS
    """What a provider's ``kind`` can be. Not from the file: from the table, installed packages and the program."""
    reasons: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def enabled(self) -> dict[str, Provider]:
        """The providers to start, by name."""
        return {name: provider for name, provider in self.providers.items() if provider.enabled}

    @property
    def cached(self) -> frozenset[str]:
        """The providers whose answers are kept where neither request nor route says whether."""
        said = {name: provider.cache.enabled for name, provider in self.enabled.items()}
        return frozenset(name for name, own in said.items() if (self.cache.enabled if own is None else own))
