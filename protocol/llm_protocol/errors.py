"""The exceptions of the public API: one class per failure kind, all derived from `LLMClientError`.

Each exception has its `Failure`. `error_for` makes the exception for a failure.
"""

from __future__ import annotations

from typing import ClassVar, Final

from llm_protocol.failures import Failure, FailureKind
from llm_protocol.response import LLMResponse


class LLMClientError(Exception):
    """The base class. ``failure`` describes what went wrong; ``partial`` is the part of the response that arrived, if
    any.
    """

    kind: ClassVar[FailureKind] = FailureKind.INTERNAL

    def __init__(self, failure: Failure | str, partial: LLMResponse | None = None) -> None:
        if isinstance(failure, str):
            failure = Failure(kind=self.kind, message=failure)
        super().__init__(failure.message)
        self.failure = failure
        self.partial = partial


class AuthenticationError(LLMClientError):
    """The vendor refused the configured key, or none is configured."""

    kind = FailureKind.AUTH


class RateLimitError(LLMClientError):
    """Too many requests or tokens at present; ``failure.retry_after`` is the time to wait in seconds, if known."""

    kind = FailureKind.RATE_LIMITED


class QuotaError(LLMClientError):
    """The provider's account has used up its quota or credit at the vendor."""

    kind = FailureKind.QUOTA


class OverloadedError(LLMClientError):
    """The vendor reports that it is overloaded."""

    kind = FailureKind.OVERLOADED


class ServerError(LLMClientError):
    """The vendor reported an internal error."""

    kind = FailureKind.SERVER_ERROR


class LLMTimeoutError(LLMClientError):
    """The base class of the timeout errors."""

    kind = FailureKind.TIMEOUT_TOTAL


class ConnectTimeoutError(LLMTimeoutError):
    """The connection to the provider was not made in time."""

    kind = FailureKind.TIMEOUT_CONNECT


class FirstTokenTimeoutError(LLMTimeoutError):
    """The first content of the response did not arrive in time."""

    kind = FailureKind.TIMEOUT_FIRST_TOKEN


class IdleTimeoutError(LLMTimeoutError):
    """The silence between two pieces of a stream exceeded the idle timeout."""

    kind = FailureKind.TIMEOUT_IDLE


class TotalTimeoutError(LLMTimeoutError):
    """The attempt took longer than its total timeout."""

    kind = FailureKind.TIMEOUT_TOTAL


class DeadlineError(LLMTimeoutError):
    """The request's own deadline passed."""

    kind = FailureKind.DEADLINE


class NetworkError(LLMClientError):
    """The connection failed or broke."""

    kind = FailureKind.NETWORK


class TlsError(LLMClientError):
    """The vendor's certificate is not trusted, or TLS failed otherwise."""

    kind = FailureKind.TLS


class ProtocolError(LLMClientError):
    """The vendor's response is malformed."""

    kind = FailureKind.PROTOCOL


class TruncatedError(LLMClientError):
    """The response ended without the vendor's end marker."""

    kind = FailureKind.TRUNCATED


class InvalidToolCallError(LLMClientError):
    """The model wrote a tool call without a name, or with arguments that are not one JSON value."""

    kind = FailureKind.INVALID_TOOL_CALL


class AnswerTooLargeError(LLMClientError):
    """The vendor's response is larger than a limit allows; it was generated and is billed."""

    kind = FailureKind.ANSWER_TOO_LARGE


class BadRequestError(LLMClientError):
    """The request is wrong; ``failure.param`` may name the field."""

    kind = FailureKind.BAD_REQUEST


class ModelNotFoundError(LLMClientError):
    """The model does not exist."""

    kind = FailureKind.MODEL_NOT_FOUND


class ContextLengthError(LLMClientError):
    """The prompt is too long for the model."""

    kind = FailureKind.CONTEXT_LENGTH


class ContentFilterError(LLMClientError):
    """The vendor's safety filter stopped the request."""

    kind = FailureKind.CONTENT_FILTER


class UnsupportedError(LLMClientError):
    """The vendor or model does not support the request; ``failure.param`` may name the field."""

    kind = FailureKind.UNSUPPORTED


class RequestCancelledError(LLMClientError):
    """The request was cancelled, for example by another follower or through the daemon."""

    kind = FailureKind.CANCELLED


NOT_OPEN: Final = "the runtime is not open: it has not started, or has been closed"
"""The message of a `ShuttingDownError` for a request that is made before or after the ``with`` block of a runtime."""


class ShuttingDownError(LLMClientError):
    """The runtime is shutting down."""

    kind = FailureKind.SHUTTING_DOWN


class QueueFullError(LLMClientError):
    """Too many requests are waiting in the runtime."""

    kind = FailureKind.QUEUE_FULL


class OutOfResourcesError(LLMClientError):
    """There is no file descriptor, port or memory for another connection to a provider."""

    kind = FailureKind.OUT_OF_RESOURCES


class LogLimitError(LLMClientError):
    """The response is larger than the run log may be."""

    kind = FailureKind.LOG_LIMIT


class BudgetError(LLMClientError):
    """The budget of the request, or of its caller, is used up."""

    kind = FailureKind.BUDGET


class ParkedError(LLMClientError):
    """The provider is parked after repeated crashes."""

    kind = FailureKind.PARKED


class CrashedError(LLMClientError):
    """The actor doing the work crashed."""

    kind = FailureKind.CRASHED


class InternalError(LLMClientError):
    """A bug in the runtime."""

    kind = FailureKind.INTERNAL


class InterruptedResponseError(LLMClientError):
    """The runtime ended while it produced a stored response."""

    kind = FailureKind.INTERRUPTED


def _leaves(cls: type[LLMClientError]) -> dict[FailureKind, type[LLMClientError]]:
    found: dict[FailureKind, type[LLMClientError]] = {}
    for sub in cls.__subclasses__():
        found.update({sub.kind: sub} if not sub.__subclasses__() else _leaves(sub))
    return found


_CLASSES = _leaves(LLMClientError)


def error_for(failure: Failure, partial: LLMResponse | None = None) -> LLMClientError:
    """The exception for ``failure``. ``partial``: the part of the response that was received, if any."""
    return _CLASSES[failure.kind](failure, partial)
