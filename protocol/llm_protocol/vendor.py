"""What is known of a vendor: one record, read by configuration, catalog, prices, ``check``, the fake and the docs.

The records themselves are in `llm_protocol.vendors`. Nothing else branches on vendors: what differs between two of them
is a column here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias, final, get_args

import msgspec

from llm_protocol.codec.wording import suggestion
from llm_protocol.dialect import ClientDialect, ServerDialect
from llm_protocol.model_rules import ModelRules, rules_of
from llm_protocol.parameters import LACKABLE, RequestTarget
from llm_protocol.requests import RequestType
from llm_protocol.vendor_profile import COMPATIBLE, VendorProfile
from llm_protocol.wires import OPENAI_CHAT, RESPONSES, WireFormat

KIND: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What ``kind`` may be: it names discovered providers and is a part of the fake's paths."""

DEFAULT_CONCURRENCY: Final = 256
"""Requests that one provider works on at once unless its limits or its vendor say otherwise."""

ErrorShape: TypeAlias = Literal["openai", "anthropic", "google", "cohere", "flat"]
"""How the body of a vendor's error looks. ``flat``: OpenAI's fields without the ``error`` around them."""


class Purpose(StrEnum):
    """What a vendor's path is for."""

    ASK = "ask"
    MODELS = "models"
    MODEL = "model"
    WARM_UP = "warm_up"


class VendorRoute(NamedTuple):
    """One path of a vendor's API: a pattern for the whole of it. With `Purpose.MODEL` its group ``model`` is a name.

    ``wire`` is what is spoken there, if it is not the vendor's usual wire.
    """

    method: str
    pattern: str
    purpose: Purpose = Purpose.ASK
    wire: WireFormat | None = None


LIST_ROUTES: Final = (
    VendorRoute("GET", r"/v1/models", Purpose.MODELS),
    VendorRoute("GET", r"/v1/models/(?P<model>.+)", Purpose.MODEL),
)
"""The paths of model lists, where they are as OpenAI's."""

OPENAI_ROUTES: Final = (
    VendorRoute("POST", r"/v1/(chat/)?completions"),
    VendorRoute("POST", r"/v1/(embeddings|images/(generations|edits))"),
    VendorRoute("POST", r"/v1/responses", wire=RESPONSES),
    *LIST_ROUTES,
)
"""The paths of a server that is compatible with OpenAI's."""


class KeyRefusal(NamedTuple):
    """How a vendor refuses a key: the status, and the message and code where they are not that status' usual ones."""

    status: int = 401
    message: str | None = None
    code: str | None = None


class AccountHeader(NamedTuple):
    """A header that names a part of an account, and the environment variable its SDK reads it from."""

    name: str
    variable: str | None = None


class FakeTraits(NamedTuple):
    """What the fake needs, in addition to the wire, to imitate this vendor and to recognise its clients."""

    request_id_header: str = "x-request-id"
    required_header: str | None = None
    """A header without which every request is a 400."""
    key_missing: KeyRefusal = KeyRefusal()
    key_wrong: KeyRefusal = KeyRefusal()
    says_retry_after: bool = True
    """Whether a waiting time is sent in ``retry-after``; otherwise only in the body."""
    client_headers: frozenset[str] = frozenset()
    """Headers that only its clients send, with any value."""
    client_values: tuple[tuple[str, str], ...] = ()
    """Headers with what only its clients say, or begin with."""
    client_paths: tuple[str, ...] = ()
    """How paths begin that only it has."""
    client_query: frozenset[str] = frozenset()
    """Parameters of a query that only its clients use."""


class Vendor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One vendor. With a ``kind``, a ``title``, a ``base_url`` and ``key_variables`` it is an OpenAI-compatible one.

    Raises `ValueError` for a ``kind``, an error shape or a pattern that cannot be one.
    """

    kind: str
    """Its name in the configuration (``kind = …``). A provider that is discovered bears it too."""
    title: str
    """Its name for people."""
    wire: WireFormat = OPENAI_CHAT
    profile: VendorProfile | None = None
    """Parameters, limits and fields on the wire `openai_chat`; ``None``: what any compatible server takes."""
    responses: bool = True
    """Whether it may have the Responses API, in addition to the wire `openai_chat`. The first response shows whether
    it has."""
    base_url: str | None = None
    """The address of its API; ``None``: each provider of this kind must set it."""
    key_variables: tuple[str, ...] = ()
    """The environment variables its users put their key in, the usual one first. Empty: it needs no key."""
    url_variables: tuple[str, ...] = ()
    """The environment variables in which its users put another address, as its SDK reads them."""
    url_suffix: str = ""
    """What such an address lacks of a base URL."""
    auth_header: str | None = None
    """How the key is sent where that is not the wire's way: a header's name, or ``"name: Scheme"``."""
    account_headers: Mapping[str, AccountHeader] = msgspec.field(default_factory=dict)
    """The headers that name an account's parts: ``organization`` and ``project``, where it has them."""
    compatible_api_version: str | None = None
    """The version that servers of other people know which speak its wire; ``None``: the wire has no version header."""
    max_concurrency: int = DEFAULT_CONCURRENCY
    """Requests one provider of it works on at once."""
    default_models: Mapping[RequestType, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """What ``auto`` means, by request type: patterns for whole names, the first that fits a listed model wins.
    Completions and code go by chat's."""
    models_key: str | None = None
    """Under which kind the prices, capabilities and shutdown dates of its models are kept; ``None``: its own."""
    telemetry_name: str | None = None
    """What OpenTelemetry's conventions call it; ``None``: its kind."""
    generic: bool = False
    """It represents any server with its wire. Each provider has its own models, prices and lists, or none."""
    local: bool = False
    """The model on this machine, whose process the runtime starts."""
    free: bool = False
    """Answers cost nothing."""
    found_on_loopback: bool = False
    """Without a configuration and without any key, it is used where it answers at `base_url`, on this machine."""
    routes: tuple[VendorRoute, ...] = OPENAI_ROUTES
    """The paths of its API. They begin with ``/v1`` also where `base_url` ends otherwise."""
    error_shape: ErrorShape = "openai"
    fake: FakeTraits = FakeTraits()

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise ValueError(f"kind {self.kind!r}: must be 1 to 64 of a-z, 0-9, _ and -, and not begin with _ or -")
        if self.error_shape not in get_args(ErrorShape):
            raise ValueError(f"error_shape {self.error_shape!r}: not one of {', '.join(get_args(ErrorShape))}")
        lacks = self.profile.target.lacks if self.profile is not None else frozenset[str]()
        if unknown := sorted(lacks - LACKABLE):
            raise ValueError(f"target.lacks: no parameter {unknown[0]!r}{suggestion(unknown[0], LACKABLE)}")
        for route in self.routes:
            try:
                re.compile(route.pattern)
            except re.error as exc:
                raise ValueError(f"route {route.pattern!r}: {exc}") from None

    @property
    def facts_key(self) -> str:
        """The kind under which facts about its models are kept."""
        return self.models_key or self.kind

    @property
    def key_variable(self) -> str | None:
        """The variable to name when a key is missing; ``None``: it needs no key."""
        return self.key_variables[0] if self.key_variables else None

    def client(self, rules: ModelRules | None = None, api_version: str | None = None) -> ClientDialect:
        """What it is spoken to with. ``rules``: what the models of one provider take, where more is known;
        ``api_version``: what to say in the wire's version header, where it has one.
        """
        profile = self._profile()
        if api_version is not None:
            profile = msgspec.structs.replace(profile, api_version=api_version)
        return self.wire.client(profile, rules or rules_of(self.facts_key))

    @property
    def has_two_wires(self) -> bool:
        """Whether it may be spoken to over the Responses API as well."""
        return self.responses and self.wire is OPENAI_CHAT

    @property
    def responses_target(self) -> RequestTarget:
        """The limits of its Responses API."""
        return self._profile().responses_target

    def responses_client(self, rules: ModelRules | None = None) -> ClientDialect | None:
        """Return the dialect for its Responses API; ``None`` if it has none in addition to its usual wire."""
        if not self.has_two_wires:
            return None
        return RESPONSES.client(self._profile(), rules or rules_of(self.facts_key))

    def server(self, wire: WireFormat | None = None) -> ServerDialect:
        """How it answers, on its usual wire or on another one that it also speaks."""
        return (wire or self.wire).server(self._profile())

    def _profile(self) -> VendorProfile:
        """The profile. One that says what any compatible server takes gets this vendor's names."""
        profile = self.profile or COMPATIBLE
        if self.profile is COMPATIBLE:
            return profile
        if profile.vendor == COMPATIBLE.vendor:
            profile = msgspec.structs.replace(profile, vendor=self.title, kind=self.facts_key)
        if profile.target.who == COMPATIBLE.target.who:
            target = msgspec.structs.replace(profile.target, who=profile.vendor)
            profile = msgspec.structs.replace(profile, target=target)
        return profile


class UnknownVendorError(KeyError):
    """The vendor does not exist. The message lists those that do."""

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        names = list(known)
        super().__init__(kind)
        self.text = f'there is no kind "{kind[:64]}", only {", ".join(names)}{suggestion(kind, names)}'

    def __str__(self) -> str:
        return self.text


@final
class VendorTable(Mapping[str, Vendor]):
    """Vendors by kind, in order. It never changes; `plus` makes another one."""

    __slots__ = ("_rows",)

    def __init__(self, vendors: Iterable[Vendor] = ()) -> None:
        self._rows: dict[str, Vendor] = {}
        for vendor in vendors:
            if self._rows.setdefault(vendor.kind, vendor) is not vendor:
                raise ValueError(f'there are two vendors of kind "{vendor.kind}"')

    def __getitem__(self, kind: str) -> Vendor:
        """Raises `UnknownVendorError`."""
        try:
            return self._rows[kind]
        except KeyError:
            raise UnknownVendorError(kind, self._rows) from None

    def __contains__(self, kind: object) -> bool:
        return kind in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def plus(self, vendors: Iterable[Vendor]) -> VendorTable:
        """These and ``vendors``. Raises `ValueError` where a kind exists already."""
        return VendorTable((*self._rows.values(), *vendors))
