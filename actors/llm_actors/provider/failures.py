"""The one place where what goes wrong below becomes a `Failure`."""

from __future__ import annotations

from llm_actors.kernel import (
    ActorCrashed,
    CallExpired,
    KernelError,
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
    RequestRefused,
    TlsFailed,
    TransportError,
    UnsupportedEncoding,
)
from llm_protocol.failures import Failure, FailureKind

# The first row whose class matches decides; subclasses stand before their bases.
_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (ConnectTimeout, FailureKind.TIMEOUT_CONNECT),
    (ConnectFailed, FailureKind.NETWORK),
    (OutOfResources, FailureKind.OUT_OF_RESOURCES),
    # A certificate that is not trusted now will not be trusted in a second: never retried here.
    (TlsFailed, FailureKind.TLS),
    (Broken, FailureKind.NETWORK),
    (RequestRefused, FailureKind.BAD_REQUEST),
    (ProtocolViolation, FailureKind.PROTOCOL),
    (UnsupportedEncoding, FailureKind.PROTOCOL),
    (BodyTooLarge, FailureKind.ANSWER_TOO_LARGE),
    (TransportError, FailureKind.NETWORK),
    (LogLimitExceeded, FailureKind.LOG_LIMIT),
    (Parked, FailureKind.PARKED),
    (SupervisorFailed, FailureKind.CRASHED),
    (NotRunning, FailureKind.SHUTTING_DOWN),
    (MailboxFull, FailureKind.QUEUE_FULL),
    (CallExpired, FailureKind.DEADLINE),
    (PoisonRefused, FailureKind.BAD_REQUEST),
    (ActorCrashed, FailureKind.CRASHED),
    (KernelError, FailureKind.INTERNAL),
)

UNSENT = (ConnectFailed, ConnectTimeout, OutOfResources, TlsFailed)
"""After these nothing of the request had left."""

_WORDS: dict[FailureKind, str] = {
    FailureKind.LOG_LIMIT: "the answer is larger than the run log may be",
    FailureKind.PARKED: "out of service after repeated crashes; it will be tried again",
    FailureKind.SHUTTING_DOWN: "shutting down",
    FailureKind.QUEUE_FULL: "its waiting line is full",
    FailureKind.DEADLINE: "no answer before the deadline",
    FailureKind.CRASHED: "crashed while it worked on this request; try again",
    FailureKind.INTERNAL: "could not do it because of a bug in the runtime",
}


def failure_of(exc: Exception, who: str) -> Failure:
    """What ``exc``, raised on behalf of the provider or actor ``who``, means. Its text never holds a key, a prompt or
    an upstream's address: callers are told it.
    """
    kind = next((kind for cls, kind in _KINDS if isinstance(exc, cls)), FailureKind.INTERNAL)
    words = exc.reason if isinstance(exc, TransportError) else _WORDS.get(kind, str(exc))
    if isinstance(exc, PoisonRefused):
        words = "this request has crashed it before and is refused"
    if isinstance(exc, BodyTooLarge):
        words = f"{words} (the provider's max_answer_mb)"
    return Failure(kind=kind, message=f"{who}: {words}", provider=who)
