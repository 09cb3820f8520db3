"""The one place that turns exceptions of lower layers into a `Failure`."""

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
    """Messages for exceptions whose own text is not meant for callers."""


_CRASHED = "crashed while it worked on this request; try again"

# The first row whose class matches applies, so subclasses precede their bases.
_ROWS = (
    _Row(ConnectTimeout, FailureKind.TIMEOUT_CONNECT),
    _Row(ConnectFailed, FailureKind.NETWORK),
    _Row(OutOfResources, FailureKind.OUT_OF_RESOURCES),
    # An untrusted certificate will not be trusted a second later, so this is never retried.
    _Row(TlsFailed, FailureKind.TLS),
    _Row(Broken, FailureKind.NETWORK),
    _Row(RequestRefused, FailureKind.BAD_REQUEST),
    _Row(ProtocolViolation, FailureKind.PROTOCOL),
    _Row(UnsupportedEncoding, FailureKind.PROTOCOL),
    _Row(BodyTooLarge, FailureKind.ANSWER_TOO_LARGE),
    _Row(TransportError, FailureKind.NETWORK),
    _Row(LogLimitExceeded, FailureKind.LOG_LIMIT, "the answer is larger than the run log may be"),
    _Row(Parked, FailureKind.PARKED, "parked after repeated crashes; it will be started again"),
    _Row(SupervisorFailed, FailureKind.CRASHED, _CRASHED),
    _Row(NotRunning, FailureKind.SHUTTING_DOWN, "shutting down"),
    _Row(MailboxFull, FailureKind.QUEUE_FULL, "its queue is full"),
    _Row(CallExpired, FailureKind.DEADLINE, "no answer before the deadline"),
    _Row(PoisonRefused, FailureKind.BAD_REQUEST, "refused: this request has crashed it before"),
    _Row(ActorCrashed, FailureKind.CRASHED, _CRASHED),
    _Row(Exception, FailureKind.INTERNAL, "failed because of a bug in the runtime"),
)

UNSENT = (ConnectFailed, ConnectTimeout, OutOfResources, TlsFailed)
"""With these, nothing of the request was sent."""


def failure_of(exc: Exception, who: str) -> Failure:
    """The failure that ``exc``, raised by the provider or actor ``who``, means. Its text is shown to callers, so it
    never contains a key, a prompt or an upstream's address.
    """
    row = next(row for row in _ROWS if isinstance(exc, row.cls))
    words = exc.reason if isinstance(exc, TransportError) else row.words or str(exc)
    if isinstance(exc, BodyTooLarge):
        words = f"{words} (the provider's max_answer_mb)"
    again = False if isinstance(exc, ProxyRefused) else None
    return Failure(kind=row.kind, message=f"{who}: {words}", provider=who, should_retry=again)
