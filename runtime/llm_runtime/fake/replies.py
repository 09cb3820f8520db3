"""Turns a request into the plan of its response: finds the wire, checks the key, decodes, and chooses a rule. No
I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final
from urllib.parse import parse_qs

from llm_protocol.codec.body import is_form
from llm_protocol.codec.fields import bad_request
from llm_protocol.codec.json import decode_object, encode_json
from llm_protocol.codec.sse import encode_sse
from llm_protocol.dialect import ClientRequest, Frame, ModelInfo, ResponseEncoder, WireResponse
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Failed, Finished
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import unfold
from llm_protocol.response import LLMResponse
from llm_protocol.secret import Secret
from llm_protocol.vendor import Purpose, Vendor, VendorTable
from llm_protocol.wires.openai_chat.choices import in_one_call
from llm_protocol.wires.openai_chat.images import form_as_json
from llm_protocol.wires.responses import OpenAIResponsesServer
from llm_runtime.fake import errors
from llm_runtime.fake.answers import TOKEN_CHARACTERS, answer
from llm_runtime.fake.delivery import DEFAULT_EVENTS, DeliveryPlan, Step, deliver
from llm_runtime.fake.journal import Seen
from llm_runtime.fake.script import FAULT_HEADER, USUAL, Fault, Script, ScriptRule
from llm_runtime.fake.vendors import Place, locate
from llm_runtime.server.http1 import Request

JSON = ("content-type", "application/json")
SSE = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))


@final
class Replies:
    """Decides the responses. ``script`` may be replaced at any time."""

    def __init__(
        self,
        script: Script,
        vendors: VendorTable,
        only: Vendor | None,
        key: Secret | None,
        models: Sequence[ModelInfo],
    ) -> None:
        self.script = script
        self.only = only
        self._vendors = vendors
        self._key = key
        self._models = models

    def place(self, request: Request) -> Place | Vendor:
        """Return the endpoint that a request is addressed to; see `locate`."""
        return locate(request.method, request.target, request.headers, self._vendors, self.only)

    def plan(self, request: Request, place: Place | Vendor, seen: Seen) -> Iterator[Step]:
        """Return the plan of the response, and record its status in ``seen``."""
        chosen, rule = self._chosen(request, place, seen)
        seen.status = chosen.status
        vendor = place.vendor if isinstance(place, Place) else place
        named = (vendor.fake.request_id_header, f"{errors.REQUEST_ID}_{seen.number}")
        chosen = chosen._replace(headers=(*chosen.headers, named))
        return deliver(chosen, rule, chunked=request.version != "1.0")

    def _chosen(self, request: Request, place: Place | Vendor, seen: Seen) -> tuple[DeliveryPlan, ScriptRule]:
        if not isinstance(place, Place):
            return _whole(errors.nothing_here(place, request.path)), USUAL
        if refusal := self._refused(request, place.vendor):
            return _whole(refusal), USUAL
        match place.purpose:
            case Purpose.MODELS:
                return _body(place.dialect.encode_models(self._models)), USUAL
            case Purpose.MODEL:
                return self._model(place), USUAL
            case Purpose.WARM_UP:
                return _body(b"{}"), USUAL
            case Purpose.ASK:
                return self._answer(request, place, seen)

    def _refused(self, request: Request, vendor: Vendor) -> WireResponse | None:
        """Return the error for a wrong key or a missing version header, if there is one."""
        required = vendor.fake.required_header
        if required is not None and required not in request.headers:
            return errors.error(vendor, 400, f"{required}: header is required")
        if self._key is None:
            return None
        given = presented_key(request)
        return None if self._key.matches(given) else errors.key_refused(vendor, given=bool(given))

    def _model(self, place: Place) -> DeliveryPlan:
        found = [model for model in self._models if model.id == place.model]
        if not found:
            return _whole(errors.error(place.vendor, 404, f"model: {place.model[:200]}"))
        listed = decode_object(place.dialect.encode_models(found))
        return _body(encode_json((listed.get("data") or listed["models"])[0]))

    def _answer(self, request: Request, place: Place, seen: Seen) -> tuple[DeliveryPlan, ScriptRule]:
        try:
            inbound = _decoded(place, request.body)
            seen.decoded(inbound, len(request.body))
            rule = self.script.choose(place.vendor.kind, inbound, request.headers.get(FAULT_HEADER))
        except LLMClientError as exc:
            failure = exc.failure
            return _whole(errors.error(place.vendor, 400, failure.message, param=failure.param)), USUAL
        if (refusal := errors.wrong_api(place.vendor, place.dialect.name, inbound.request)) is not None:
            return _whole(refusal), USUAL
        if rule.status is not None:
            error = errors.error(place.vendor, rule.status, rule.message, code=rule.code, retry_after=rule.retry_after)
            return _whole(error if rule.body is None else error._replace(body=rule.body.encode())), rule
        inbound = in_one_call(inbound) or inbound
        response = answer(inbound.request, rule, seen.number, place.dialect.name)
        return _said(place, inbound, response, rule), rule


def _decoded(place: Place, body: bytes) -> ClientRequest:
    """Return the decoded request. Raises `LLMClientError` if the request is invalid, or continues an earlier response:
    none is stored here.
    """
    if is_form(body):
        body = form_as_json(body)
    if not isinstance(place.dialect, OpenAIResponsesServer):
        return place.dialect.decode_request(place.path, body)
    create = place.dialect.decode_create(body)
    before = create.options.previous_response_id
    if before is not None:
        raise bad_request("previous_response_id", f"Previous response with id '{before[:100]}' not found.")
    return create.inbound


def presented_key(request: Request) -> str:
    """Return the key of a request, in whichever of the vendors' headers it is."""
    for name in ("x-api-key", "x-goog-api-key"):
        if value := request.headers.get(name):
            return value
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else parse_qs(request.query).get("key", [""])[0]


def _whole(response: WireResponse) -> DeliveryPlan:
    return DeliveryPlan(response.status, response.headers, (response.body,))


def _body(body: bytes) -> DeliveryPlan:
    return DeliveryPlan(200, (JSON,), (body,))


def _said(place: Place, inbound: ClientRequest, response: LLMResponse, rule: ScriptRule) -> DeliveryPlan:
    """Return a response, encoded for its wire."""
    dialect = place.dialect
    if rule.body is not None:
        return _body(rule.body.encode())
    if not inbound.stream:
        if rule.fault is Fault.ERROR:
            return _body(errors.error(place.vendor, 500, rule.message, code=rule.code).body)
        return _body(dialect.encode_response(inbound, response))
    frames, markers = _frames(dialect.response_encoder(inbound, response.response_id), response, rule)
    if inbound.json_array:
        return _array(frames, markers)
    sent = tuple(encode_sse([frame]) for frame in frames)
    return DeliveryPlan(200, SSE, sent, streamed=True, markers=markers, event=b"data: %b\n\n")


def _frames(encoder: ResponseEncoder, response: LLMResponse, rule: ScriptRule) -> tuple[list[Frame], int]:
    """Return the frames of a streamed response, one token each, and how many of the last ones mark its end. With
    `Fault.ERROR`, the end is the vendor's error.
    """
    room = DEFAULT_EVENTS if rule.after_events is None else rule.after_events
    frames = encoder.start()
    last: list[Frame] = []
    for event in unfold(response, piece=TOKEN_CHARACTERS):
        if rule.fault is Fault.ERROR and (len(frames) >= room or isinstance(event, Finished)):
            failure = Failure(kind=FailureKind.SERVER_ERROR, message=rule.message or "The server had an error.")
            event = Failed(failure=failure, response=response)
        last = encoder.encode([event])
        frames += last
        if isinstance(event, Failed):
            break
    return frames, len(last)


def _array(frames: list[Frame], markers: int) -> DeliveryPlan:
    """Return a streamed response as one JSON array, which is what Gemini sends without ``alt=sse``."""
    opened = [(b"[" if at == 0 else b",\r\n") + frame.data for at, frame in enumerate(frames)]
    return DeliveryPlan(200, (JSON,), (*opened, b"]"), streamed=True, markers=markers + 1, event=b",\r\n%b")
