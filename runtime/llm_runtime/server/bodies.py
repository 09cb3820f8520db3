"""Request and response bodies: limit the bytes in memory, decode a body to a client's request, and encode a response.
A large body does not block other requests. A body that is passed on piece by piece is never in memory as a whole.
"""

from __future__ import annotations

import hmac
from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping
from typing import TypeVar, final

import msgspec
import trio

from llm_actors.threads import run_large
from llm_protocol.client_headers import IDEMPOTENCY, SENT_ON, forwarded, meaning_of
from llm_protocol.codec.body import checked_body
from llm_protocol.codec.fields import bad_request, typed_policy
from llm_protocol.codec.json import CheckedJson, JsonLimits
from llm_protocol.content import Image
from llm_protocol.dialect import ClientRequest, ServerDialect
from llm_protocol.policy import Policy
from llm_protocol.response import LLMResponse
from llm_runtime.server.http1 import CONTINUE, RequestParser
from llm_runtime.server.http_error import SERVER_ERROR, HttpError
from llm_runtime.server.limits import BODY_SECONDS, MIN_RATE, PASSTHROUGH_BYTES, WRITE_STALL_SECONDS
from llm_runtime.server.receiver import Receiver, Take
from llm_runtime.server.socket import Socket
from llm_runtime.server.subscription import WakeupEvent


@final
class BodyBudget:
    """Counts the bytes of all bodies. A body counts from its arrival until its response is complete, as long as its
    bytes or the values decoded from them are in memory. ``limit`` is in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes. Raises `HttpError` and counts nothing if the limit would be exceeded."""
        if self.held + size > self._limit:
            message = "The requests in progress use all the memory reserved for bodies; try again soon."
            headers = (("retry-after", "1"),)
            raise HttpError(
                503, "body_memory_full", message, kind=SERVER_ERROR, headers=headers, close=True, is_limit=True
            )
        self.held += size

    def release(self, size: int) -> None:
        """Release ``size`` bytes."""
        self.held -= size


@final
class HeldBodies:
    """The bytes of one connection's bodies that count towards `BodyBudget`."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        """See `BodyBudget.hold`."""
        self._budget.hold(size)
        self.size += size

    def release(self, size: int) -> None:
        """Release ``size`` bytes; does nothing after `release_all`."""
        size = min(size, self.size)
        self._budget.release(size)
        self.size -= size

    def release_all(self) -> None:
        """Release all bytes that the connection holds."""
        if self.size:
            self.release(self.size)


T = TypeVar("T")

_POLICY = msgspec.json.Decoder(Policy)

_SLICE_BYTES = 64 * 1024

_NUMBER_BYTES = 20
"""About the length of one vector component as JSON."""


def byte_count(text: str) -> int:
    """The number of bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


async def decode_body(limits: JsonLimits, body: bytes | str, decode: Callable[[CheckedJson], T]) -> T:
    """Check a client's JSON against ``limits`` and decode it with ``decode``. A large body is decoded in a thread.
    Raises `BadRequestError` and the exceptions of ``decode``.
    """
    return await run_large(len(body), _decoded, body, limits, decode)


def _decoded(body: bytes | str, limits: JsonLimits, decode: Callable[[CheckedJson], T]) -> T:
    if isinstance(body, bytes) and not is_utf8(body):  # the JSON decoder validates only the strings that it decodes
        raise bad_request(None, "the body is not UTF-8")
    return decode(checked_body(body, limits))


def is_utf8(data: bytes) -> bool:
    """Whether ``data`` is UTF-8. The data is checked in slices, so that no second copy of the whole is made."""
    if data.isascii():
        return True
    decoder = getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _SLICE_BYTES):
            decoder.decode(data[start : start + _SLICE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def with_headers(
    inbound: ClientRequest, headers: Mapping[str, str], caller: str, secret: bytes | None
) -> ClientRequest:
    """Return the request with the header fields that are forwarded to a provider of the client's wire.

    ``secret`` is the caller's secret, if keys are configured. All callers share one account at the vendor, so two
    callers with the same idempotency key must not receive each other's responses.
    """
    if SENT_ON.isdisjoint(headers):
        return inbound
    parameters = inbound.request.parameters
    own, more = meaning_of(headers, parameters.wire), forwarded(headers)
    if secret is not None and IDEMPOTENCY in more:
        more[IDEMPOTENCY] = own_key(more[IDEMPOTENCY], caller, secret)
    if not own and not more:
        return inbound
    parameters = msgspec.structs.replace(parameters, headers=own)
    request = msgspec.structs.replace(inbound.request, parameters=parameters, forwarded=more)
    return inbound._replace(request=request)


def own_key(given: str, caller: str, secret: bytes) -> str:
    """Return the idempotency key to send to the vendor in place of ``given``, the caller's key, which another caller
    may use, too.
    """
    key = f"{caller}\0{given}".encode("utf-8", "surrogateescape")
    return hmac.new(secret, key, "sha256").hexdigest()


def admitted(caller: str, inbound: ClientRequest) -> ClientRequest:
    """Return the request with the caller's name and with the policy from its ``llm_runtime`` object. Raises
    `BadRequestError` if that object is invalid, for example if it has an unknown field.
    """
    policy = None if inbound.policy is None else _policy(inbound.policy)
    if not caller and policy is None:
        return inbound
    return inbound._replace(request=msgspec.structs.replace(inbound.request, caller=caller, policy=policy))


def _policy(raw: msgspec.Raw) -> Policy:
    try:
        said = _POLICY.decode(raw)
    except msgspec.MsgspecError:
        said = msgspec.json.decode(raw)  # decoded again for a better error message
    return typed_policy(said, "llm_runtime")


async def encode_body(dialect: ServerDialect, inbound: ClientRequest, response: LLMResponse) -> bytes:
    """Return the body of a complete response. A large body is encoded in a thread."""
    return await run_large(_size_of(response), dialect.encode_response, inbound, response)


def _size_of(response: LLMResponse) -> int:
    """The approximate size of a response in bytes."""
    numbers = sum(map(len, response.embeddings))
    pictures = sum(len(part.data or b"") for part in response.output if isinstance(part, Image))
    return len(response.content) + _NUMBER_BYTES * numbers + pictures


@final
class StreamedRequestBody:
    """The body of one request. While too many of its bytes are in memory, no more are received."""

    __slots__ = ("_begun", "_is_paused", "_parser", "_receiver", "_socket", "_take", "_taken", "_waited", "_wakeup")

    def __init__(
        self, parser: RequestParser, socket: Socket, receiver: Receiver, wakeup: WakeupEvent, take: Take
    ) -> None:
        self._parser = parser
        self._socket = socket
        self._receiver = receiver
        self._wakeup = wakeup
        self._take = take
        self._begun = False
        self._is_paused = False
        self._taken = 0
        self._waited = 0.0

    @property
    def is_read(self) -> bool:
        """Whether the end of the body was read."""
        return not self._parser.in_body

    def note_arrival(self) -> None:
        """Record that bytes have arrived."""
        if self._parser.unread > PASSTHROUGH_BYTES // 2 and not self._is_paused:
            self._is_paused = True
            self._receiver.remove(self._socket)

    def is_hung_up(self) -> bool:
        """Whether the client has disconnected while nothing is received from it."""
        return self._is_paused and not self._socket.closed and self._socket.is_hung_up()

    async def next_piece(self) -> bytes:
        """Return the next piece of the body; ``b""`` at the end. Waits for the client, which has `BODY_SECONDS` plus
        the time that the body takes at `MIN_RATE`, but at most `WRITE_STALL_SECONDS` for each piece. Raises
        `HttpError`, and `trio.BrokenResourceError` if the connection is broken.
        """
        if not self._begun and self._parser.awaits_continue:
            await self._socket.send(CONTINUE)
        self._begun = True
        while (piece := self._parser.next_piece()) == b"":
            self._resume()
            await self._wait()
        self._resume()
        self._taken += len(piece or b"")
        return piece or b""

    async def _wait(self) -> None:
        began = trio.current_time()
        allowed = BODY_SECONDS + self._taken / MIN_RATE - self._waited
        with trio.move_on_after(max(0.0, min(allowed, WRITE_STALL_SECONDS))) as scope:
            await self._wakeup.wait()
        self._waited += trio.current_time() - began
        if scope.cancelled_caught:
            raise HttpError(408, "request_timeout", "The request took too long to arrive.", close=True)

    def _resume(self) -> None:
        if self._is_paused and self._parser.unread <= PASSTHROUGH_BYTES // 4:
            self.receive_again()

    def receive_again(self) -> None:
        """Receive from the client, if that was stopped."""
        if self._is_paused and not self._socket.closed:
            self._is_paused = False
            self._receiver.add(self._socket, self._take)
