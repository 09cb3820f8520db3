"""The facts about a vendor: one record, read by configuration, catalog, prices, ``check``, the fake and the docs.

The records themselves are in `llm_protocol.vendors`. No other code branches on vendors: each difference between two
vendors is a column of `Vendor`.
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
"""The form of a vendor's ``kind``, which is the name of a discovered provider and a part of the fake's paths."""

DEFAULT_CONCURRENCY: Final = 256
"""The requests that one provider works on at the same time, unless its limits or its vendor say otherwise."""

ErrorShape: TypeAlias = Literal["openai", "anthropic", "google", "cohere", "flat"]
"""The form of the body of a vendor's error. ``flat``: OpenAI's fields without the ``error`` object around them."""


class Purpose(StrEnum):
    """The purpose of a vendor's path."""

    ASK = "ask"
    MODELS = "models"
    MODEL = "model"
    WARM_UP = "warm_up"


class VendorRoute(NamedTuple):
    """One path of a vendor's API: a pattern for the whole path. With `Purpose.MODEL` its group ``model`` is the name
    of a model.

    ``wire`` is the wire at this path, if it is not the vendor's usual wire.
    """

    method: str
    pattern: str
    purpose: Purpose = Purpose.ASK
    wire: WireFormat | None = None


LIST_ROUTES: Final = (
    VendorRoute("GET", r"/v1/models", Purpose.MODELS),
    VendorRoute("GET", r"/v1/models/(?P<model>.+)", Purpose.MODEL),
)
"""The paths of model lists, if they are the same as OpenAI's."""

OPENAI_ROUTES: Final = (
    VendorRoute("POST", r"/v1/(chat/)?completions"),
    VendorRoute("POST", r"/v1/(embeddings|images/(generations|edits))"),
    VendorRoute("POST", r"/v1/responses", wire=RESPONSES),
    *LIST_ROUTES,
)
"""The paths of a server that is compatible with OpenAI's."""


class KeyRefusal(NamedTuple):
    """How a vendor refuses a key: the status, and the message and code if they differ from the usual ones of the
    status.
    """

    status: int = 401
    message: str | None = None
    code: str | None = None


class AccountHeader(NamedTuple):
    """A header that names a part of an account, and the environment variable from which the vendor's SDK reads it."""

    name: str
    variable: str | None = None


class FakeTraits(NamedTuple):
    """The data that the fake needs, in addition to the wire, to imitate this vendor and to recognize its clients."""

    request_id_header: str = "x-request-id"
    required_header: str | None = None
    """A header without which the vendor responds to every request with the status 400."""
    key_missing: KeyRefusal = KeyRefusal()
    key_wrong: KeyRefusal = KeyRefusal()
    says_retry_after: bool = True
    """Whether a waiting time is sent in ``retry-after``; otherwise only in the body."""
    client_headers: frozenset[str] = frozenset()
    """Headers that only this vendor's clients send, with any value."""
    client_values: tuple[tuple[str, str], ...] = ()
    """Headers with values, or beginnings of values, that only this vendor's clients send."""
    client_paths: tuple[str, ...] = ()
    """Beginnings of paths that only this vendor has."""
    client_query: frozenset[str] = frozenset()
    """Query parameters that only this vendor's clients use."""


class Vendor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One vendor. A record with only ``kind``, ``title``, ``base_url`` and ``key_variables`` describes an
    OpenAI-compatible vendor.

    Raises `ValueError` for an invalid ``kind``, error shape or pattern.
    """

    kind: str
    """The vendor's name in the configuration (``kind = …``). A discovered provider has the same name."""
    title: str
    """The vendor's name as it is displayed."""
    wire: WireFormat = OPENAI_CHAT
    profile: VendorProfile | None = None
    """Parameters, limits and fields on the wire `openai_chat`; ``None``: those of any compatible server."""
    responses: bool = True
    """Whether to try the Responses API, in addition to the wire `openai_chat`. The first response shows whether the
    server has it.
    """
    base_url: str | None = None
    """The address of the vendor's API; ``None``: each provider of this kind must set it."""
    key_variables: tuple[str, ...] = ()
    """The environment variables that may contain the key, the most common first. Empty: the vendor needs no key.
    """
    url_variables: tuple[str, ...] = ()
    """The environment variables from which the vendor's SDK reads a different base URL."""
    url_suffix: str = ""
    """The text to append to an address that has no path, from ``url_variables`` or the configuration."""
    auth_header: str | None = None
    """How the key is sent, if not as the wire sends it by default: a header's name, or ``"name: Scheme"``."""
    account_headers: Mapping[str, AccountHeader] = msgspec.field(default_factory=dict)
    """The headers that name parts of an account: ``organization`` and ``project``, if the vendor has them."""
    compatible_api_version: str | None = None
    """The version in the version header that other servers with this wire accept; ``None``: the wire has no version
    header.
    """
    max_concurrency: int = DEFAULT_CONCURRENCY
    """The requests that one provider of this kind works on at the same time."""
    default_models: Mapping[RequestType, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """The models that ``auto`` means, by request type: patterns for whole names, the first that matches a listed
    model wins. Completions and code use those of chat.
    """
    models_key: str | None = None
    """The kind under which the prices, capabilities and shutdown dates of the vendor's models are kept; ``None``: its
    own.
    """
    telemetry_name: str | None = None
    """The vendor's name in OpenTelemetry's conventions; ``None``: its kind."""
    generic: bool = False
    """Whether the record represents any server with its wire. Each such provider has its own models, prices and
    lists, or none.
    """
    local: bool = False
    """Whether this is the model on this machine, whose process the runtime starts."""
    free: bool = False
    """Whether responses cost nothing."""
    found_on_loopback: bool = False
    """Whether the provider is used without a configuration and without any key, if a server responds at `base_url` on
    this machine.
    """
    routes: tuple[VendorRoute, ...] = OPENAI_ROUTES
    """The paths of the vendor's API. They begin with ``/v1`` even if `base_url` ends otherwise."""
    error_shape: ErrorShape = "openai"
    fake: FakeTraits = FakeTraits()

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise ValueError(
                f"kind {self.kind!r}: must be 1 to 64 characters of a-z, 0-9, _ and -, and must not begin with _ or -"
            )
        if self.error_shape not in get_args(ErrorShape):
            raise ValueError(f"error_shape {self.error_shape!r}: not one of {', '.join(get_args(ErrorShape))}")
        lacks = self.profile.target.lacks if self.profile is not None else frozenset[str]()
        if unknown := sorted(lacks - LACKABLE):
            raise ValueError(f"target.lacks: {unknown[0]!r} is not allowed here{suggestion(unknown[0], LACKABLE)}")
        for name in self.profile.limit_headers if self.profile is not None else ():
            if name != name.lower():
                raise ValueError(f"limit_headers: {name!r} must be in lower case")
        for route in self.routes:
            try:
                re.compile(route.pattern)
            except re.error as exc:
                raise ValueError(f"route {route.pattern!r}: {exc}") from None

    @property
    def facts_key(self) -> str:
        """The kind under which the facts about the vendor's models are kept."""
        return self.models_key or self.kind

    @property
    def key_variable(self) -> str | None:
        """The environment variable to name in the error for a missing key; ``None``: the vendor needs no key."""
        return self.key_variables[0] if self.key_variables else None

    def client(self, rules: ModelRules | None = None, api_version: str | None = None) -> ClientDialect:
        """Return the client dialect. ``rules``: the facts about the models of one provider; by default those of the
        table. ``api_version``: the value of the wire's version header, if the wire has one.
        """
        profile = self._profile()
        if api_version is not None:
            profile = msgspec.structs.replace(profile, api_version=api_version)
        return self.wire.client(profile, rules or rules_of(self.facts_key))

    @property
    def has_two_wires(self) -> bool:
        """Whether the Responses API may be used in addition to the vendor's usual wire."""
        return self.responses and self.wire is OPENAI_CHAT

    @property
    def responses_target(self) -> RequestTarget:
        """The parameters and limits of the vendor's Responses API."""
        return self._profile().responses_target

    def responses_client(self, rules: ModelRules | None = None) -> ClientDialect | None:
        """Return the dialect for the vendor's Responses API; ``None`` unless it `has_two_wires`."""
        if not self.has_two_wires:
            return None
        return RESPONSES.client(self._profile(), rules or rules_of(self.facts_key))

    def server(self, wire: WireFormat | None = None) -> ServerDialect:
        """Return the server dialect, of the vendor's usual wire or of another wire that it has."""
        return (wire or self.wire).server(self._profile())

    def _profile(self) -> VendorProfile:
        """Return the profile. A profile for any compatible server gets this vendor's names."""
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
    """The vendor does not exist. The message lists the known vendors."""

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        names = list(known)
        super().__init__(kind)
        self.text = f'there is no kind "{kind[:64]}", only {", ".join(names)}{suggestion(kind, names)}'

    def __str__(self) -> str:
        return self.text


@final
class VendorTable(Mapping[str, Vendor]):
    """Vendors by kind, in order. The table never changes; `plus` returns another one."""

    __slots__ = ("_rows",)

    def __init__(self, vendors: Iterable[Vendor] = ()) -> None:
        self._rows: dict[str, Vendor] = {}
        for vendor in vendors:
            if self._rows.setdefault(vendor.kind, vendor) is not vendor:
                raise ValueError(f'there are two vendors of kind "{vendor.kind}"')

    def __getitem__(self, kind: str) -> Vendor:
        """Return the vendor. Raises `UnknownVendorError`."""
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
        """Return a table with ``vendors`` added. Raises `ValueError` if a kind exists already."""
        return VendorTable((*self._rows.values(), *vendors))
