"""The errors between the runtime and a server: one small closed set, distinguished by how a caller can react.

The texts for foreign exceptions (OSError, ssl, Trio) are made in this module only. A message contains the origin and
the reason, and never a header's value, a body or other text from the peer: a peer may repeat our key.
"""

# ruff: noqa: N818  (the names say what happened, as trio.TooSlowError does)
from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

import trio

# What plain and TLS wires raise when the peer or the network fails (ssl.SSLError is an OSError).
WIRE_ERRORS: Final = (OSError, trio.BrokenResourceError)

_OUT_OF: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class TransportError(Exception):
    """Base of everything that :class:`~llm_actors.transport.Transport` raises about a request or its response."""

    def __init__(self, where: object, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.reason = reason


class RequestRefused(TransportError):
    """The request cannot be written as HTTP without changing its meaning. Nothing was sent."""


class ConnectFailed(TransportError):
    """No connection: the name does not resolve, or none of its addresses accepts."""


class ProxyRefused(ConnectFailed):
    """The proxy refuses to make this connection, because of its credentials or rules. Retrying is useless, and
    repeating a wrong password may lock an account.
    """


class OutOfResources(TransportError):
    """No connection, because this process or machine has no file descriptor, port or memory left. The server is not
    the cause.
    """


class ConnectTimeout(TransportError):
    """No connection within ``connect_timeout``; the reason names the stage that was reached."""


class TlsFailed(TransportError):
    """The TLS handshake failed, most often because the certificate is not trusted. Retrying is useless."""


class Broken(TransportError):
    """The connection was cut before the response was complete.

    ``answered`` tells whether any byte of the response had arrived.
    """

    def __init__(self, where: object, reason: str, *, answered: bool) -> None:
        super().__init__(where, reason)
        self.answered = answered


class ProtocolViolation(TransportError):
    """The response is invalid or ambiguous HTTP, or it exceeds a limit."""


class UnsupportedEncoding(TransportError):
    """The body is compressed though only ``identity`` was accepted. ``status`` is the status of the response."""

    def __init__(self, where: object, reason: str, *, status: int) -> None:
        super().__init__(where, reason)
        self.status = status


class BodyTooLarge(TransportError):
    """The body exceeds the limit given to ``read``."""


def is_out_of_resources(exc: OSError) -> bool:
    """Whether ``exc`` means that the process or machine has no resources left for a connection."""
    if isinstance(exc, socket.gaierror):
        return not _can_open_socket()  # the resolver says "try again" or "unknown" if it cannot open a socket
    return exc.errno in _OUT_OF


def _can_open_socket() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def wire_reason(exc: BaseException) -> str:
    """Return one short line for an error of the operating system or TLS; never empty."""
    cause = exc.__cause__ if isinstance(exc, trio.BrokenResourceError) and exc.__cause__ else exc
    match cause:
        case ssl.SSLCertVerificationError():
            return f"certificate refused: {cause.verify_message}"
        case ssl.SSLEOFError() | ssl.SSLError(reason="UNEXPECTED_EOF_WHILE_READING"):  # which one depends on the build
            return "closed without the TLS close notice"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "PACKET_LENGTH_TOO_LONG" | "RECORD_LAYER_FAILURE"):
            return "the port does not speak TLS: if the server has no TLS, write http:// in its address"
        case ssl.SSLError():
            return f"TLS: {(cause.reason or type(cause).__name__).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"the name does not resolve ({cause.strerror})"
        case OSError() if cause.errno:
            return os.strerror(cause.errno)
        case _:
            return "connection lost"
