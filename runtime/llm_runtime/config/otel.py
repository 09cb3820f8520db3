"""``[otel]``: where traces and metrics are sent, over OpenTelemetry's protocol."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from llm_protocol.secret import Secret
from llm_runtime.config.conversion import Line, Section, convert
from llm_runtime.config.errors import ConfigError, under
from llm_runtime.config.keys import FORMS, KeyReader

REQUIREMENTS = ("opentelemetry-sdk>=1.40,<2", "opentelemetry-exporter-otlp-proto-http>=1.40,<2")
"""The optional dependencies in pyproject.toml."""


class OtelConfig(Section, frozen=True, kw_only=True):
    """``[otel]``: where traces and metrics are sent. Without this section they are not sent. The SDK's environment
    variables (`OTEL_…`) apply to the omitted options.
    """

    endpoint: Annotated[str, Meta(max_length=1024)] = ""
    """The address of the collector (OTLP over HTTP), without `/v1/traces`; omitted: `OTEL_EXPORTER_OTLP_ENDPOINT`, or
    `http://localhost:4318`.
    """
    headers: dict[Line, Secret] = msgspec.field(default_factory=dict)
    """Header fields for the collector. Write keys as `env:NAME` or `file:PATH`, and other values directly."""
    service_name: Annotated[str, Meta(max_length=1024)] = ""
    """The name of this program in traces and metrics; omitted: `OTEL_SERVICE_NAME`, or `llm-runtime`."""
    traces: bool = True
    """Whether traces are sent: a span for each request, each member of a strategy and each attempt."""
    metrics: bool = True
    """Whether metrics are sent: the durations and tokens of attempts."""
    content: bool = False
    """Whether traces contain the texts of requests and responses."""


def otel_section(table: object, keys: KeyReader) -> OtelConfig:
    """Return the validated section. Raises `ConfigError` if the section is invalid, or if the packages that it needs
    are not installed.
    """
    if isinstance(table, dict) and isinstance(headers := table.get("headers"), dict):
        for name, value in headers.items():
            if _is_written(value) and any(word in str(name).lower() for word in _OF_KEYS):
                with under("headers", str(name)):
                    raise ConfigError(f"a key must not be written here: {FORMS}")
    found = convert(table, OtelConfig, lambda value: Secret(str(value)) if _is_written(value) else keys.read(value))
    with under("endpoint"):
        _check(found.endpoint)
    if not _is_installed():
        words = " ".join(f"'{each}'" for each in REQUIREMENTS)
        raise ConfigError(f"needs packages that are not installed: {sys.executable} -m pip install {words}")
    return found


_OF_KEYS = ("auth", "key", "token", "secret", "cookie")
"""Words in the names of header fields that contain keys."""


def _is_written(value: object) -> bool:
    return isinstance(value, str) and not value.startswith(("env:", "file:"))


def _check(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        has_secret = bool(parts.username or parts.password or parts.query)
    except ValueError:
        is_address, has_secret = None, False
    if not is_address:
        raise ConfigError('not an address: expected "http://HOST:PORT" or "https://HOST/PATH"')
    if has_secret:
        raise ConfigError('a key must not be written here: use headers = {NAME = "env:NAME"}')


def _is_installed() -> bool:
    try:
        return all(find_spec(each) for each in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False
