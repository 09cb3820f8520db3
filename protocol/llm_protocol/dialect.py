"""The interface of a dialect: the code that translates one wire to and from the canonical model, in both directions.

The **client side** talks to a vendor. The **server side** talks to a vendor's clients; fake providers use it. Both are
pure: bytes and structs in, bytes and structs out. A client-side function raises `UnsupportedError` or
`BadRequestError`, which names the field, if the wire cannot express a request. Decoders of a peer's bytes never raise:
malformed input becomes a ``Failed`` event or a ``Failure`` of kind ``protocol``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import Capabilities
from llm_protocol.model_rules import ModelRules
from llm_protocol.parameters import Adapted
from llm_protocol.requests import AnyRequest, RequestType
from llm_protocol.response import LLMResponse

Headers = Sequence[tuple[str, str]]
"""Header fields in order, names in lower case."""


class WireRequest(NamedTuple):
    """One HTTP request, without origin and credentials. ``path`` is the part after the base URL."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class WireResponse(NamedTuple):
    """One whole HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first field called ``name`` (lower case); ``None`` if there is none."""
        return next((value for key, value in self.headers if key == name), None)


_JSON = ("content-type", "application/json")


def post(path: str, body: JsonObject, *headers: tuple[str, str]) -> WireRequest:
    """A request with a JSON body."""
    return WireRequest("POST", path, (_JSON, *headers), encode_json(body))


def refusal(failure: Failure, body: JsonObject, *headers: tuple[str, str]) -> WireResponse:
    """Return an error response with a JSON body. It has a Retry-After, in whole seconds, if the failure has a waiting
    time.
    """
    seconds = failure.told_retry_after
    wait = () if seconds is None else (("retry-after", str(max(0, math.ceil(seconds)))),)
    return WireResponse(failure.rule.status, (_JSON, *headers, *wait), encode_json(body))


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits that a vendor's headers report. Resets are seconds from now.

    ``per_model``: whether the limits are those of the model that responded. Otherwise all models of the vendor share
    them.
    """

    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset_s: float | None = None
    per_model: bool = False


Lifecycle: TypeAlias = Literal["active", "deprecated", "retired"]
"""The state of a model: deprecated ones still work, retired ones do not."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of a vendor's list. ``created`` is seconds since the epoch; 0 if the vendor does not list it.

    ``deprecated_on`` and ``shutdown_date`` are days in UTC, as the vendor announced them. ``request_types`` is ``None``
    if the list does not say which requests the model supports. ``capabilities`` contains the list's other facts about
    the model.
    """

    id: str
    created: int = 0
    owned_by: str = ""
    context_window: int | None = None
    max_output_tokens: int | None = None
    lifecycle: Lifecycle = "active"
    deprecated_on: date | None = None
    shutdown_date: date | None = None
    request_types: frozenset[RequestType] | None = None
    capabilities: Capabilities | None = None

    def facts(self) -> Capabilities:
        """Return the list's facts about what the model accepts."""
        known = self.capabilities or Capabilities()
        window, output = self.context_window or None, self.max_output_tokens or None
        return msgspec.structs.replace(
            known,
            context_window=known.context_window or window,
            max_output_tokens=known.max_output_tokens or output,
        )


class ModelPage(NamedTuple):
    """One page of a model list. ``next`` is the argument of `ClientDialect.models_request` for the next page."""

    models: tuple[ModelInfo, ...]
    next: str | None = None


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed response into events. The events are the same however the bytes are split."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole body is buffered, so that its size has to be limited."""
        ...

    @property
    def ignored(self) -> set[str]:
        """The names of fields that were left out because they had an unexpected type."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes. After ``Finished`` or ``Failed`` there are no more."""
        ...

    def end(self) -> list[Event]:
        """End the response because the body has ended. Without the vendor's end marker before, returns ``Failed`` with
        the kind ``truncated``.
        """
        ...


class ClientDialect(Protocol):
    """Talks to a vendor."""

    @property
    def name(self) -> str:
        """The dialect's name; also the key of its fields in ``Parameters.extra``."""
        ...

    @property
    def version(self) -> int:
        """A number that changes when the meaning of the encoded requests changes. It is part of every cache key."""
        ...

    @property
    def request_types(self) -> frozenset[RequestType]:
        """The request types that this vendor supports."""
        ...

    @property
    def rules(self) -> ModelRules:
        """The facts about what the provider's models accept."""
        ...

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the key."""
        ...

    def adapt(self, request: AnyRequest) -> Adapted:
        """Return ``request`` in a form that this vendor and its model accept, with the adjustments made for that. Its
        ``model`` is the vendor's own name of the model. Raises `UnsupportedError` or `BadRequestError` for a
        parameter that cannot be kept.
        """
        ...

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """Encode ``request``, which must be the result of `adapt`, as an HTTP request. Parameters that the vendor lacks
        are left out. Raises `UnsupportedError` for a type of request or a part that the wire does not have.
        """
        ...

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed response to ``request``."""
        ...

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole 2xx response; the last one is ``Finished`` or ``Failed``. Names of
        fields that were left out because of their type are added to ``ignored``.
        """
        ...

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status."""
        ...

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """The limits that a response's headers report; ``None`` if they report none."""
        ...

    def models_request(self, page: str | None) -> WireRequest:
        """Return the request for a page of the model list; ``None`` is the first page."""
        ...

    def decode_models(self, body: bytes) -> ModelPage:
        """Decode a page of the model list. Raises `ProtocolError` if it is malformed."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """A `ClientDialect` whose vendor has an endpoint that counts the tokens of a request."""

    def count_request(self, request: AnyRequest) -> WireRequest:
        """Return the HTTP request that counts the tokens of ``request``. Raises as `ClientDialect.encode_request`
        does.
        """
        ...

    def decode_count(self, body: bytes) -> int:
        """Return the number of tokens of the prompt. Raises `ProtocolError` if ``body`` does not contain it."""
        ...


class ClientRequest(NamedTuple):
    """A client's request, decoded. ``policy`` is its ``llm_runtime`` object, which is not decoded yet.

    ``json_array``: the frames of a streamed response are the members of one JSON array, instead of SSE. ``form`` is a
    note of the server dialect to itself about the form in which the client wants its response.

    If a client wants several choices in one response, there is one request per choice: the requests after the first are
    in ``choices``. ``choice`` is the number of the choice that is encoded.
    """

    request: AnyRequest
    stream: bool = False
    include_usage: bool = True
    policy: msgspec.Raw | None = None
    json_array: bool = False
    form: str = ""
    choices: tuple[AnyRequest, ...] = ()
    choice: int = 0


class Frame(NamedTuple):
    """One event of a streamed response: the name in SSE's ``event`` field, if the dialect uses one, and one line of
    data.
    """

    event: str | None
    data: bytes


class ResponseEncoder(Protocol):
    """Turns the events of one run into a client's frames. ``Finished`` and ``Failed`` must have their ``response``."""

    def start(self) -> list[Frame]:
        """Frames to send before the vendor has sent anything."""
        ...

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return the frames for the next events. Adjacent deltas of one item may be joined into one frame."""
        ...


class ServerDialect(Protocol):
    """Talks to a vendor's clients."""

    @property
    def name(self) -> str:
        """The dialect's name."""
        ...

    def decode_request(self, path: str, body: bytes) -> ClientRequest:
        """Decode a client's request. Raises `BadRequestError` or `UnsupportedError` naming the field at fault."""
        ...

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> ResponseEncoder:
        """An encoder for one streamed response."""
        ...

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:
        """The body of a whole response."""
        ...

    def encode_error(self, failure: Failure) -> WireResponse:
        """Return the error response: status, headers and body as the vendor's own SDK understands them."""
        ...

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The body of the model list (one page)."""
        ...
