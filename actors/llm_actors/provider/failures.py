"""Turns exceptions of the transport and of actors into a `Failure`. This is the only place that does so."""

from __future__ import annotations

from typing import NamedTuple

from llm_actors.kernel import (
    ActorCrashed,
    CallExpired,
    MailboxFull,
    NotRunning,
    Parked,
    PoisonRefused,
    SupervisorFailed,
)
from llm_actors.run.log import LogLimitExceeded
from llm_actors.transport import (
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
from llm_protocol.failures import Failure, FailureKind


class _Row(NamedTuple):
    cls: type[Exception]
    kind: FailureKind
    words: str | None = None
    """The message, for exceptions whose own text is not meant for callers."""


_CRASHED = "crashed while it handled this request; try again"

# The first row whose class matches applies, so subclasses precede their bases.
_ROWS = (
    _Row(ConnectTimeout, FailureKind.TIMEOUT_CONNECT),
    _Row(ConnectFailed, FailureKind.NETWORK),
    _Row(OutOfResources, FailureKind.OUT_OF_RESOURCES),
    # Never retried: a certificate that is not trusted now will not be trusted a second later.
    _Row(TlsFailed, FailureKind.TLS),
    _Row(Broken, FailureKind.NETWORK),
    _Row(RequestRefused, FailureKind.BAD_REQUEST),
    _Row(ProtocolViolation, FailureKind.PROTOCOL),
    _Row(UnsupportedEncoding, FailureKind.PROTOCOL),
    _Row(BodyTooLarge, FailureKind.ANSWER_TOO_LARGE),
    _Row(TransportError, FailureKind.NETWORK),
    _Row(LogLimitExceeded, FailureKind.LOG_LIMIT, "the response exceeds the run log's limit ([server] log_limit_mb)"),
    _Row(Parked, FailureKind.PARKED, "parked after repeated crashes, until it is restarted; try again later"),
    _Row(SupervisorFailed, FailureKind.CRASHED, _CRASHED),
    _Row(NotRunning, FailureKind.SHUTTING_DOWN, "shutting down"),
    _Row(MailboxFull, FailureKind.QUEUE_FULL, "too many requests wait for it (its mailbox is full); try again later"),
    _Row(CallExpired, FailureKind.DEADLINE, "no reply before the deadline"),
    _Row(PoisonRefused, FailureKind.BAD_REQUEST, "refused, because this request has crashed its actor repeatedly"),
    _Row(ActorCrashed, FailureKind.CRASHED, _CRASHED),
    _Row(Exception, FailureKind.INTERNAL, "failed because of a bug in the runtime"),
)

UNSENT = (ConnectFailed, ConnectTimeout, OutOfResources, TlsFailed)
"""The exceptions after which nothing of the request was sent."""


def failure_of(exc: Exception, who: str) -> Failure:
    """Return the failure for ``exc``, which the provider or actor ``who`` has raised. Its text is shown to callers, so
    it never contains a key, a prompt or the address of a vendor.
    """
    row = next(row for row in _ROWS if isinstance(exc, row.cls))
    words = exc.reason if isinstance(exc, TransportError) else row.words or str(exc)
    if isinstance(exc, BodyTooLarge):
        words = f"{words} ([providers.{who}.max_answer_mb])"
    again = False if isinstance(exc, ProxyRefused) else None
    return Failure(kind=row.kind, message=f"{who}: {words}", provider=who, should_retry=again)
