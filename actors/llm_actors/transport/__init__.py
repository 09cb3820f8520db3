"""Outgoing HTTP/1.1 and HTTP/2 on Trio sockets, with TLS, connection reuse and typed errors.

docs/decisions/0002-http-client-on-h11.md explains why this is not a general HTTP client.
"""

from llm_actors.transport.dial import Dial, ResolvedAddress, Resolver, TcpDial
from llm_actors.transport.errors import (
    BodyTooLarge,
    Broken,
    ConnectFailed,
    ConnectTimeout,
    OutOfResources,
    ProtocolViolation,
    ProxyRefused,
    RequestRefused,
    TlsFailed,
    TransportError,
    UnsupportedEncoding,
)
from llm_actors.transport.http1 import HttpRequest, Origin, StreamedBody, parse_url
from llm_actors.transport.proxy import SOCKS_LOGIN, Proxy, is_socks_login, is_user_and_password, parse_proxy
from llm_actors.transport.response import Headers, HttpResponse
from llm_actors.transport.transport import Transport, TransportStatistics
from llm_actors.transport.trust import TlsTrust

__all__ = [
    "SOCKS_LOGIN",
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
    "Proxy",
    "ProxyRefused",
    "RequestRefused",
    "ResolvedAddress",
    "Resolver",
    "StreamedBody",
    "TcpDial",
    "TlsFailed",
    "TlsTrust",
    "Transport",
    "TransportError",
    "TransportStatistics",
    "UnsupportedEncoding",
    "is_socks_login",
    "is_user_and_password",
    "parse_proxy",
    "parse_url",
]
