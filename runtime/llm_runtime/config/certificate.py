"""Checks the server's certificate: whether its files can be used, and when it expires."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from llm_runtime.config.errors import ConfigError
from llm_runtime.config.server import ServerTls

SOON: Final = timedelta(days=14)
"""A certificate that expires within this time causes a warning."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_BOOLEAN, _DNS_NAME, _IP_ADDRESS = 0x01, 0x82, 0x87
_SUBJECT_ALT_NAME = b"\x06\x03\x55\x1d\x11"
"""The identifier of the extension, as DER."""


def server_context(config: ServerTls) -> ssl.SSLContext:
    """Return a TLS context with the configured files. Blocks. Raises `ConfigError` with a path relative to
    ``server.tls``.
    """
    until = valid_until(config)
    if until <= datetime.now(UTC):
        raise ConfigError(f"{config.certificate} expired at {until:%Y-%m-%d %H:%M} UTC", "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    where = "key" if config.key else "certificate"
    _read(config.key or config.certificate, where)
    try:
        context.load_cert_chain(config.certificate, config.key, password=_refuse_to_ask)
    except _EncryptedKeyError:
        raise ConfigError("the private key is encrypted: use one without a password", where) from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"the key does not belong to the certificate {config.certificate}", where) from None
        raise ConfigError(f"there is no private key (PEM) in {config.key or config.certificate}", where) from None
    if config.client_ca is not None:
        _read(config.client_ca, "client_ca")
        try:
            context.load_verify_locations(config.client_ca)
        except ssl.SSLError:
            raise ConfigError(f"there is no certificate (PEM) in {config.client_ca}", "client_ca") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def valid_until(config: ServerTls) -> datetime:
    """Return when the certificate expires. Blocks. Raises `ConfigError`."""
    try:
        return _not_after(_first_certificate(config))
    except (ValueError, IndexError):
        raise ConfigError(f"there is no certificate (PEM) in {config.certificate}", "certificate") from None


def certificate_names(config: ServerTls) -> list[str]:
    """Return the host names and IP addresses of the certificate. Blocks. Raises `ConfigError`."""
    der = _first_certificate(config)
    try:
        at = der.index(_SUBJECT_ALT_NAME) + len(_SUBJECT_ALT_NAME)
        start, end, kind = _element(der, at)
        if kind == _BOOLEAN:  # it is critical
            start, end, kind = _element(der, end)
        at, end, _ = _element(der, start, _SEQUENCE)
        names = []
        while at < end:
            start, at, kind = _element(der, at)
            if kind == _DNS_NAME:
                names.append(der[start:at].decode("ascii"))
            elif kind == _IP_ADDRESS:
                names.append(str(ip_address(der[start:at])))
    except (ValueError, IndexError):
        return []
    return names


def _first_certificate(config: ServerTls) -> bytes:
    found = _PEM.search(_read(config.certificate, "certificate"))
    try:
        assert found is not None
        return ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))
    except (AssertionError, ValueError):
        raise ConfigError(f"there is no certificate (PEM) in {config.certificate}", "certificate") from None


class _EncryptedKeyError(Exception):
    pass


def _refuse_to_ask() -> str:
    raise _EncryptedKeyError


def _read(path: str, field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}", field) from None


def _not_after(der: bytes) -> datetime:
    """Return the end of the validity of an X.509 certificate. `ssl` shows it only for the certificate of a peer."""
    certificate, _, _ = _element(der, 0, _SEQUENCE)
    at, _, _ = _element(der, certificate, _SEQUENCE)
    if der[at] == _VERSION:
        at = _element(der, at)[1]
    for _ in range(3):  # serial number, signature algorithm, issuer
        at = _element(der, at)[1]
    start, _, _ = _element(der, at, _SEQUENCE)
    start, end, kind = _element(der, _element(der, start)[1])
    text = der[start:end].decode("ascii")
    if kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("not a time")
    if kind == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int, kind: int | None = None) -> tuple[int, int, int]:
    """Return where the content of the DER element at ``at`` begins and ends, and its kind."""
    found, size, at = der[at], der[at + 1], at + 2
    if kind is not None and found != kind:
        raise ValueError("not a certificate")
    if size >= 0x80:
        digits = size & 0x7F
        size, at = int.from_bytes(der[at : at + digits], "big"), at + digits
    if at + size > len(der):
        raise ValueError("the data is truncated")
    return at, at + size, found
