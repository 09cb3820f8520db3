"""The configured providers: each entry as a `ProviderSpec`, and each under its own small supervisor.

A provider that keeps crashing is parked: it is not routed to, and started again later. Other providers are not
affected.
"""

from __future__ import annotations

from typing import NamedTuple, Never
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from llm_actors.kernel import ChildSpec, Intensity, MailboxSpec, Overflow, Strategy, Supervisor
from llm_actors.provider import (
    AuthHeader,
    Endpoint,
    ProviderActor,
    ProviderMessage,
    ProviderRef,
    ProviderSpec,
    wires_of,
)
from llm_actors.transport import Dial, TlsTrust
from llm_protocol.model_rules import ModelRules
from llm_protocol.vendor import UnknownVendorError, Vendor, VendorTable
from llm_protocol.vendors import VENDORS
from llm_protocol.version import VERSION
from llm_runtime.config import Config, ConfigError, Provider
from llm_runtime.config.proxies import proxy_of
from llm_runtime.key_sources import renewer

WAITING_REQUESTS = 1_000
"""The most requests that may wait for a slot of one provider. Further requests are refused."""

USER_AGENT = f"llm-runtime/{VERSION}"

INTENSITY = Intensity(5, 30.0)
"""More crashes than this within this time, in seconds, park a provider."""

NOWHERE = "http://127.0.0.1:9"
"""The address of the local model before its process has reported its own. Nothing listens there: it is the port of the
discard protocol (9).
"""


class Supervised(NamedTuple):
    """A provider with its supervisor and the ref of its provider actor."""

    spec: ProviderSpec
    supervisor: Supervisor
    ref: ProviderRef


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the providers that a reload added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def provider_spec(name: str, provider: Provider, vendors: VendorTable = VENDORS) -> ProviderSpec:
    """Return the resolved configuration entry ``name``. Raises `ConfigError` for an unknown kind."""
    try:
        vendor = vendors[provider.kind]
    except UnknownVendorError as exc:
        raise ConfigError(str(exc), "providers", name, "kind") from None
    rules = ModelRules(vendor.facts_key, provider.capabilities)
    return ProviderSpec(
        name=name,
        vendor=vendor,
        wires=wires_of(vendor, rules, provider.wire, _api_version(provider, vendor)),
        endpoint=Endpoint(provider.base_url or vendor.base_url or NOWHERE),
        key=provider.api_key if provider.api_key is not None and provider.api_key.source is None else None,
        renewer=renewer(name, provider.api_key, provider.api_key_age_s),
        auth_header=AuthHeader.parse(header) if (header := provider.auth_header or vendor.auth_header) else None,
        headers=tuple(_headers(provider, vendor).items()),
        query=urlencode(provider.query, quote_via=quote),
        models=provider.models,
        trust=TlsTrust(ca_file=provider.ca_file),
        proxy=proxy_of(provider),
        http2=provider.http2,
        timeouts=provider.timeouts,
        max_answer=provider.max_answer_mb,
        max_concurrency=provider.limits.max_concurrency or vendor.max_concurrency,
    )


def _api_version(provider: Provider, vendor: Vendor) -> str | None:
    """Return the configured version. If there is none: for the vendor's own address the newest, for other addresses
    the most widely supported one.
    """
    if provider.api_version is not None or provider.base_url is None or vendor.base_url is None:
        return provider.api_version
    is_own = urlsplit(provider.base_url).hostname == urlsplit(vendor.base_url).hostname
    return None if is_own else vendor.compatible_api_version


def _headers(provider: Provider, vendor: Vendor) -> dict[str, str]:
    headers = {"user-agent": USER_AGENT}
    for part, header in vendor.account_headers.items():
        if (value := getattr(provider, part)) is not None:
            headers[header.name] = value
    return headers | {name.lower(): value for name, value in provider.headers.items()}


def supervised(spec: ProviderSpec, *, dial: Dial | None = None, name: str | None = None) -> Supervised:
    """Return the provider under its own supervisor. The local model's process is started before the actor that calls
    it.

    ``dial``: a replacement for network connections, for tests. ``name``: its name in the tree, if not the provider's.
    """
    engine: list[ChildSpec[Never]] = []
    if spec.vendor.local:
        from llm_runtime.local_model import engine_spec

        engine = [engine_spec(spec.endpoint)]
    provider: ChildSpec[ProviderMessage] = ChildSpec(
        "provider",
        lambda _: ProviderActor(spec, dial=dial),
        mailbox=MailboxSpec(WAITING_REQUESTS, Overflow.REFUSE),
    )
    supervisor = Supervisor(
        [*engine, provider],
        name=name or spec.name,
        strategy=Strategy.REST_FOR_ONE,
        intensity=INTENSITY,
        park=True,
    )
    return Supervised(spec, supervisor, supervisor.ref(provider))


def is_same(name: str, old: Config, new: Config) -> bool:
    """Return whether the provider is the same in both configurations, including the sources of its keys."""
    was, now = old.providers[name], new.providers[name]
    sources = [[key.source for key in (each.api_key, each.proxy_auth) if key is not None] for each in (was, now)]
    return was == now and sources[0] == sources[1] and old.vendors[was.kind] is new.vendors[now.kind]
