"""Anthropic's Messages API, as its client."""

from __future__ import annotations

from urllib.parse import quote

from llm_protocol.answer import AnswerStream, read_whole
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers, ModelInfo, ModelPage, RateLimits, WireRequest, WireResponse
from llm_protocol.dialects.anthropic import errors
from llm_protocol.dialects.anthropic.blocks import NAME
from llm_protocol.dialects.anthropic.request import VERSION, encode_chat
from llm_protocol.dialects.anthropic.stream import AnthropicAnswer
from llm_protocol.errors import ProtocolError
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.fields import unsupported
from llm_protocol.requests import AnyRequest, ChatRequest, RequestType
from llm_protocol.times import rfc3339
from llm_protocol.wire import WireError, decode_object

PAGE_SIZE = 1_000
"""Models asked for at once: the vendor's greatest."""


class Anthropic:
    """Speaks to Anthropic, or to a server that speaks its Messages API."""

    name = NAME
    version = 1
    request_types = frozenset({RequestType.CHAT})

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header fields that carry the key."""
        return (("x-api-key", key),)

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """The HTTP request for a chat."""
        if not isinstance(request, ChatRequest):
            raise unsupported("request_type", f"Anthropic has no {request.request_type} endpoint")
        return encode_chat(request, stream=stream)

    def stream_decoder(self, request: AnyRequest) -> AnswerStream:  # noqa: ARG002
        """A decoder for a streamed answer."""
        return AnswerStream(AnthropicAnswer())

    def decode_response(self, request: AnyRequest, response: WireResponse) -> list[Event]:  # noqa: ARG002
        """The events of a whole answer."""
        return read_whole(AnthropicAnswer(), response.body)

    def decode_error(self, response: WireResponse) -> Failure:
        """What a non-2xx answer means."""
        return errors.decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:
        """What the headers say is left."""
        return errors.rate_limits(headers)

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        after = f"&after_id={quote(page, safe='')}" if page is not None else ""
        return WireRequest("GET", f"/v1/models?limit={PAGE_SIZE}{after}", (("anthropic-version", VERSION),))

    def decode_models(self, body: bytes) -> ModelPage:
        """A page of the model list. Raises `ProtocolError`."""
        try:
            return _decode_models(decode_object(body))
        except WireError as exc:
            raise ProtocolError(f"the model list could not be understood: {exc}") from None


def _decode_models(body: JsonObject) -> ModelPage:
    entries = body.get("data")
    if not isinstance(entries, list):
        raise WireError("data: expected a list")
    found = tuple(_model(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str))
    last = body.get("last_id")
    return ModelPage(found, last if body.get("has_more") is True and isinstance(last, str) else None)


def _model(entry: JsonObject) -> ModelInfo:
    created = entry.get("created_at")
    return ModelInfo(
        id=entry["id"],
        created=int(rfc3339(created) or 0) if isinstance(created, str) else 0,
        owned_by=NAME,
        context_window=_positive(entry.get("max_input_tokens")),
        max_output_tokens=_positive(entry.get("max_tokens")),
    )


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
