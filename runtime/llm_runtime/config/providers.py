"""Checks of a provider's entry beyond its types: its address, key and files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llm_actors.transport import parse_url
from llm_protocol.http1 import FRAMING_HEADERS
from llm_protocol.vendor import UnknownVendorError, Vendor, VendorTable
from llm_protocol.vendors import LOCAL_MODEL, VENDORS
from llm_runtime.config.errors import ConfigError, under
from llm_runtime.config.exposure import is_loopback
from llm_runtime.config.model import Provider
from llm_runtime.config.proxies import check_proxy

ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings", "/models", "/chat")
"""Paths of endpoints. An address that ends with one of them was copied with too much of the path."""

REMOTE = (
    "base_url", "api_key", "auth_header", "headers", "query", "organization", "project", "ca_file", "proxy",
    "proxy_auth", "http2",
)  # fmt: skip
"""The fields that the local model does not have, because it is not called over a network."""

HTTP2_REQUIREMENT = "h2>=4.3,<5"
"""The optional dependency in pyproject.toml."""

MOST_HEADERS = 32
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
AUTH_HEADER = re.compile(rf"{TOKEN.pattern}(:\s*{TOKEN.pattern})?")
SECRET_HEADER = re.compile(r"authorization|cookie|(api|access|secret)[-_]?key|token|secret", re.I)

SHARED = frozenset(("memory_mb", "path", "file_mb"))
"""The fields of ``[cache]`` that apply to all providers together."""


def completed(provider: Provider, folder: Path, vendors: VendorTable = VENDORS) -> Provider:
    """Return the provider with its vendor's address if it has none, and with absolute paths. Raises `ConfigError` for
    the first mistake.
    """
    with under("kind"):
        vendor = check_kind(provider.kind, vendors)
    if vendor.local:
        return _local(provider)
    base_url = provider.base_url or vendor.base_url
    if base_url is None:
        raise ConfigError(f'kind "{provider.kind}" needs a base_url')
    if vendor.key_variable and provider.api_key is None and provider.enabled:
        raise ConfigError(f'kind "{provider.kind}" needs api_key, for example "env:{vendor.key_variable}"')
    ca_file = _existing(folder, provider.ca_file) if provider.ca_file and provider.enabled else provider.ca_file
    base_url = _understood(checked_url(base_url), vendor)
    _check_headers(provider, vendor)
    check_proxy(provider)
    if provider.http2 and provider.enabled and find_spec("h2") is None:
        words = f"needs a package that is not installed: {sys.executable} -m pip install '{HTTP2_REQUIREMENT}'"
        raise ConfigError(words, "http2")
    return msgspec.structs.replace(provider, base_url=base_url, ca_file=ca_file)


def check_kind(kind: str, vendors: VendorTable) -> Vendor:
    """Return the vendor of this kind. Raises `ConfigError` if there is none."""
    try:
        return vendors[kind]
    except UnknownVendorError as exc:
        raise ConfigError(str(exc)) from None


def check_cache(entry: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the ``cache`` table of a provider sets the memory or the file of the cache: all providers
    share them.
    """
    cache = entry.get("cache")
    for key in SHARED & cache.keys() if isinstance(cache, dict) else ():
        raise ConfigError("all providers share one cache: set it in [cache]", "cache", key)


def _understood(base_url: str, vendor: Vendor) -> str:
    """Return the address with the path that the vendor's API needs, if ``base_url`` has no path. Raises `ConfigError`
    if ``base_url`` already contains part of the path of a request.
    """
    parts = urlsplit(base_url)
    for path in (*ENDPOINTS, *(("/v1", "/v1beta", "/v2") if vendor.wire.versioned_paths else ())):
        if parts.path.endswith(path):
            right = base_url.removesuffix(path)
            words = f'leave off "{path}": the paths of kind "{vendor.kind}" begin with it; write "{right}"'
            raise ConfigError(words, "base_url")
    usual = urlsplit(vendor.base_url or "")
    if usual.netloc == parts.netloc and not parts.path:
        return vendor.base_url or base_url  # https://api.openai.com is short for https://api.openai.com/v1
    if vendor.url_suffix and not parts.path:
        return base_url + vendor.url_suffix
    return base_url


def _check_headers(provider: Provider, vendor: Vendor) -> None:
    if len(provider.headers) > MOST_HEADERS:
        raise ConfigError(f"at most {MOST_HEADERS} headers are possible, not {len(provider.headers)}", "headers")
    for name, value in provider.headers.items():
        if not TOKEN.fullmatch(name):
            raise ConfigError("not a valid header name", "headers", name)
        if name.lower() in FRAMING_HEADERS:
            raise ConfigError("the runtime sets this header itself; omit it", "headers", name)
        if SECRET_HEADER.search(name):
            raise ConfigError("a key must not be written here: use api_key and auth_header", "headers", name)
        if not value.isascii() or not value.isprintable():
            raise ConfigError("a header's value must be printable ASCII", "headers", name)
    if provider.auth_header is not None and not AUTH_HEADER.fullmatch(provider.auth_header):
        forms = '"api-key", or with a scheme "authorization: Bearer"'
        raise ConfigError(f"not a valid header name: write it as {forms}", "auth_header")
    if provider.api_version is not None and vendor.compatible_api_version is None:
        words = f'kind "{vendor.kind}" has no api_version; if it is part of the address, set it in query'
        raise ConfigError(words, "api_version")
    if provider.wire == "responses" and not vendor.has_two_wires:
        raise ConfigError(f'kind "{provider.kind}" has no Responses API; omit wire', "wire")
    for field in ("organization", "project"):
        if getattr(provider, field) is not None and field not in vendor.account_headers:
            raise ConfigError(
                f'kind "{vendor.kind}" has no {field}; if your server needs one, set it in headers', field
            )


def _local(provider: Provider) -> Provider:
    for field in REMOTE:
        if getattr(provider, field):
            raise ConfigError('kind "local" does not have this setting', field)
    if any(model != LOCAL_MODEL for model in provider.models):
        raise ConfigError(f'kind "local" has one model: omit models, or write ["{LOCAL_MODEL}"]', "models")
    return msgspec.structs.replace(provider, models=(LOCAL_MODEL,))


def checked_url(url: str) -> str:
    """Return ``url`` without a trailing slash. Raises `ConfigError` unless it is an http or https address without user,
    password, query and fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or port == 0 or not url.isascii() or not url.isprintable():
        raise ConfigError("not an address like https://host/v1", "base_url")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("an address must not contain a user or password; use api_key", "base_url")
    if "?" in url or "#" in url or " " in url:
        raise ConfigError(
            'an address must not contain a query, fragment or space; write a query as query = {NAME = "VALUE"}',
            "base_url",
        )
    try:
        parse_url(url)
    except ValueError as exc:
        raise ConfigError(str(exc), "base_url") from None
    return url.rstrip("/")


def sends_key_in_clear(provider: Provider) -> bool:
    """Return whether the key of the provider would cross a network without TLS."""
    if provider.api_key is None or provider.base_url is None:
        return False
    parts = urlsplit(provider.base_url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _existing(folder: Path, name: str) -> str:
    try:
        path = folder / os.path.expanduser(name)  # leaves ``~USER`` unchanged if there is no such user
        with path.open("rb"):
            return str(path)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a path"
        raise ConfigError(f"cannot read {name!r}: {reason}", "ca_file") from None
