"""The proxies of providers: their own ``proxy``, or else that of the environment variables, as curl reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from llm_actors.transport import SOCKS_LOGIN, Proxy, is_socks_login, is_user_and_password, parse_proxy
from llm_runtime.config.errors import ConfigError
from llm_runtime.config.exposure import is_loopback
from llm_runtime.config.keys import FORMS
from llm_runtime.config.model import Config, Provider

NONE: Final = "none"
"""``proxy = "none"``: connect directly, whatever the environment says."""

_PORTS: Final = {"http": 80, "https": 443}


def check_proxy(provider: Provider) -> None:
    """Raise `ConfigError` for an invalid address, or one with a password in it."""
    secret = provider.proxy_auth
    if secret is not None and (provider.proxy or NONE) == NONE:
        raise ConfigError("needs a proxy: set proxy", "proxy_auth")
    if secret is not None and secret.source is not None and str(secret.source).startswith("cmd:"):
        raise ConfigError(f'"cmd:COMMAND" is not supported here: {FORMS}', "proxy_auth")
    if secret is not None and not is_user_and_password(secret):
        raise ConfigError("the value is not of the form user:password", "proxy_auth")
    if (provider.proxy or NONE) == NONE:
        return
    try:
        found = parse_proxy(provider.proxy or "")
    except ValueError as exc:
        raise ConfigError(str(exc), "proxy") from None
    if found.is_socks and secret is not None and not is_socks_login(secret):
        raise ConfigError(SOCKS_LOGIN, "proxy_auth")
    if found.credentials is not None:
        words = 'a password must not be written here: put user:password into a variable and set proxy_auth = "env:NAME"'
        raise ConfigError(words, "proxy")


def proxy_of(provider: Provider) -> Proxy | None:
    """Return the proxy of a provider whose configuration was checked; ``None`` if it uses none."""
    if (provider.proxy or NONE) == NONE:
        return None
    found = parse_proxy(provider.proxy or "")
    return found._replace(credentials=provider.proxy_auth or found.credentials)


def with_proxies(config: Config, environ: Mapping[str, str]) -> Config:
    """Return ``config`` in which providers without ``proxy`` use that of the environment: ``HTTPS_PROXY``,
    ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in lower or upper case. Loopback addresses never have one.
    ``reasons`` mentions the proxy.
    """
    providers, reasons, notes = dict(config.providers), dict(config.reasons), dict.fromkeys(config.notes)
    for name, provider in config.enabled.items():
        if provider.base_url is None:
            continue
        if provider.proxy is not None:
            if (own := proxy_of(provider)) is not None:
                reasons[name] = f"{reasons.get(name, '')}, through the proxy {own.url}".removeprefix(", ")
            continue
        variable = _variable(provider.base_url, environ)
        if variable is None:
            continue
        try:
            found = parse_proxy(environ[variable].strip())
        except ValueError as exc:
            notes[f"{variable}: {exc}: ignored"] = None
            continue
        providers[name] = msgspec.structs.replace(provider, proxy=found.url, proxy_auth=found.credentials)
        reasons[name] = f"{reasons.get(name, '')}, through the proxy {found.url} ({variable})".removeprefix(", ")
    return msgspec.structs.replace(config, providers=providers, reasons=reasons, notes=tuple(notes))


def _variable(base_url: str, environ: Mapping[str, str]) -> str | None:
    """Return the name of the environment variable with the proxy for ``base_url``; ``None`` if it needs no proxy."""
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if is_loopback(host) or _is_exempt(host, port, _first(environ, "no_proxy")):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            if environ.get(spelling, "").strip():
                return spelling
    return None


def _first(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip() or environ.get(name.upper(), "").strip()


def _is_exempt(host: str, port: int, exempt: str) -> bool:
    """Return whether a list such as ``localhost, .example.com, host:8080, 10.0.0.0/8`` or ``*`` contains the host."""
    return any(_covers(entry.lower(), host.lower(), port) for entry in exempt.replace(",", " ").split())


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))
