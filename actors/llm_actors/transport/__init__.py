"""Outgoing HTTP/1.1: h11 on Trio sockets, with TLS, kept connections and typed errors.

Why not a general HTTP client: docs/decisions/0002-http-client-on-h11.md.
"""

from .dial import Dial, TcpDial
from .errors import (
    BodyTooLarge,
    Broken,
    ConnectFailed,
    ConnectTimeout,
    OutOfResources,
    ProtocolViolation,
    RequestRefused,
    TlsFailed,
    TransportError,
    UnsupportedEncoding,
)
from .request import HttpRequest, Origin, parse_url
from .resolve import ResolvedAddress, Resolver
from .response import Headers, HttpResponse
from .transport import Transport, TransportStatistics
from .trust import TlsTrust

__all__ = [
    "BodyTooLarge",
    "Broken",
    "ConnectFailed",
    "ConnectTimeout",
    "Dial",
    "Headers",
    "HttpRequest",
    "HttpResponse",
    "Origin",
    "OutOfResources",
    "ProtocolViolation",
    "RequestRefused",
    "ResolvedAddress",
    "Resolver",
    "TcpDial",
    "TlsFailed",
    "TlsTrust",
    "Transport",
    "TransportError",
    "TransportStatistics",
    "UnsupportedEncoding",
    "parse_url",
]
