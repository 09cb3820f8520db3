"""The client side of Gemini's wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final
from urllib.parse import quote

import msgspec

from llm_protocol.codec.decoding import BodyDecoder, read_whole
from llm_protocol.codec.fields import bad_request, only_result, refuse_transport, set_parameters, unsupported
from llm_protocol.codec.schemas import with_plain_refs
from llm_protocol.codec.sse import MAX_EVENT_BYTES
from llm_protocol.codec.whole import WholeBody, decoded_count
from llm_protocol.content import JsonObject, Message, Text, ToolCall, ToolResult
from llm_protocol.dialect import Headers, ModelPage, RateLimits, StreamDecoder, WireRequest, WireResponse, post
from llm_protocol.events import Event
from llm_protocol.failures import Failure
from llm_protocol.model_facts import ModelRule
from llm_protocol.model_rules import ModelRules, rules_of
from llm_protocol.parameters import TARGETS, Adapted, adapt
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    EmbeddingRequest,
    ImageRequest,
    LLMProvider,
    Parameters,
    RequestType,
)
from llm_protocol.wires.gemini import models
from llm_protocol.wires.gemini.content import encode_part, encode_result, encode_tools
from llm_protocol.wires.gemini.embeddings import decode_embeddings, embedding_body
from llm_protocol.wires.gemini.errors import decode_error
from llm_protocol.wires.gemini.media import encode_image
from llm_protocol.wires.gemini.shapes import ASPECTS, NAME, NO_SIGNATURE, SCALES, VERSION
from llm_protocol.wires.gemini.stream import GeminiDecoder, GeminiPieceSplitter

MAX_PICTURE_EVENT_BYTES = 32 * 1024 * 1024
"""The most bytes of one event if images were requested: each image arrives in one event, in base64."""


@final
class Gemini:
    """Speaks to Gemini; see `ClientDialect`. Base URLs do not include the API version, which is part of the paths."""

    name = NAME
    version = 2
    request_types = frozenset((RequestType.CHAT, RequestType.EMBEDDING, RequestType.IMAGE_GENERATION))

    def __init__(self, rules: ModelRules | None = None) -> None:
        self.rules = rules or rules_of(LLMProvider.GEMINI)

    def auth_headers(self, key: str) -> tuple[tuple[str, str], ...]:
        """The header that carries the API key."""
        return (("x-goog-api-key", key),)

    def adapt(self, request: AnyRequest) -> Adapted:
        """The request, adapted to what Gemini accepts."""
        return adapt(request, TARGETS[NAME], self.rules.of(request.model))

    def encode_request(self, request: AnyRequest, *, stream: bool) -> WireRequest:
        """Return the HTTP request. Embeddings are never streamed."""
        match request:
            case ChatRequest():
                body = chat_body(request, self.rules.of(request.model))
            case ImageRequest():
                body = image_body(request, self.rules.of(request.model))
            case EmbeddingRequest():
                return _post(request.model, "batchEmbedContents", embedding_body(request))
            case _:
                raise unsupported("request_type", f"Gemini has no endpoint for {request.request_type} requests")
        add_extra_deep(body, request.parameters)
        return _post(request.model, "streamGenerateContent?alt=sse" if stream else "generateContent", body)

    def count_request(self, request: AnyRequest) -> WireRequest:
        """See `TokenCounter`."""
        wire = self.encode_request(request, stream=False)
        counted = {"model": f"models/{request.model}", **msgspec.json.decode(wire.body, type=dict[str, msgspec.Raw])}
        return _post(request.model, "countTokens", {"generateContentRequest": counted})

    def decode_count(self, body: bytes) -> int:
        """See `TokenCounter`."""
        return decoded_count(body, "totalTokens")

    def stream_decoder(self, request: AnyRequest) -> StreamDecoder:
        """A decoder for the streamed response to ``request``, or for embeddings, which are not streamed."""
        if isinstance(request, EmbeddingRequest):
            return WholeBody(self, request)
        limit = MAX_PICTURE_EVENT_BYTES if _wants_pictures(request) else MAX_EVENT_BYTES
        return BodyDecoder(GeminiDecoder(), GeminiPieceSplitter(limit))

    def decode_response(
        self, request: AnyRequest, response: WireResponse, ignored: set[str] | None = None
    ) -> list[Event]:
        """The events of a whole 2xx response; the last one is ``Finished`` or ``Failed``."""
        if isinstance(request, EmbeddingRequest):
            return decode_embeddings(request, response.body)
        return read_whole(GeminiDecoder(), response.body, ignored)

    def decode_error(self, response: WireResponse) -> Failure:
        """The failure for a response with an error status."""
        return decode_error(response)

    def rate_limits(self, headers: Headers) -> RateLimits | None:  # noqa: ARG002
        """Return ``None``: Gemini's headers do not report limits."""
        return None

    def models_request(self, page: str | None) -> WireRequest:
        """The request for a page of the model list."""
        return models.models_request(page)

    def decode_models(self, body: bytes) -> ModelPage:
        """Decode a page of the model list. Raises `ProtocolError` if it is malformed."""
        return models.decode_models(body)


def _post(model: str, method: str, body: JsonObject) -> WireRequest:
    name = model.removeprefix("models/")
    folder, slash, rest = name.partition("/")
    path = (
        f"/tunedModels/{quote(rest, safe='')}"
        if slash and folder == "tunedModels"
        else f"/models/{quote(name, safe='')}"
    )
    return post(f"/{VERSION}{path}:{method}", body)


def _wants_pictures(request: AnyRequest) -> bool:
    if isinstance(request, ImageRequest):
        return True
    config = request.parameters.extra.get(NAME, {}).get("generationConfig")
    return isinstance(config, dict) and "IMAGE" in str(config.get("responseModalities"))


_SAMPLING = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_output_tokens": "maxOutputTokens",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "seed": "seed",
    "stop": "stopSequences",
}
_ASPECT_TOLERANCE = 0.04  # relative distance of a size to the nearest aspect ratio


def add_extra_deep(body: JsonObject, parameters: Parameters) -> None:
    """Add ``parameters.extra["gemini"]`` to ``body``, object by object, because most of Gemini's fields are inside
    ``generationConfig``. A field that ``body`` already has is not replaced. Raises `BadRequestError` for a transport
    field.
    """
    extra = parameters.extra.get(NAME)
    if extra:
        refuse_transport(extra)
        _merge(body, extra)


def _merge(into: JsonObject, more: JsonObject) -> None:
    for name, value in more.items():
        here = into.setdefault(name, value)
        if here is not value and isinstance(here, dict) and isinstance(value, dict):
            into[name] = dict(here)
            _merge(into[name], value)


# ---------------------------------------------------------------- chat


def chat_body(request: ChatRequest, rule: ModelRule) -> JsonObject:
    """The body of a chat. Raises `UnsupportedError` naming what Gemini does not support."""
    body: JsonObject = {"contents": list(_contents(request.messages, rule))}
    system = [part for message in request.messages if _is_system(message) for part in _system_parts(message)]
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = encode_tools(request.tools)
    calling = _calling(request)
    if calling:
        body["toolConfig"] = {"functionCallingConfig": calling}
    config = _generation_config(request, rule)
    config.update(_format(request))
    if config:
        body["generationConfig"] = config
    return body


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


def _system_parts(message: Message) -> Iterator[JsonObject]:
    for part in message.content:
        if not isinstance(part, Text):
            raise unsupported("messages", "Gemini accepts only text in a system message")
        yield encode_part(part, "messages")


def _contents(messages: tuple[Message, ...], rule: ModelRule) -> Iterator[JsonObject]:
    """The turns. Consecutive tool messages become one turn, because Gemini expects all results of a turn together.
    Consecutive turns of the model become one, because Gemini expects calls right behind a user's turn.
    """
    calls: list[ToolCall] = []
    results: list[tuple[ToolResult, str]] = []
    before: JsonObject | None = None  # the turn before, if it is the model's
    for at, message in enumerate(messages):
        if _is_system(message):
            continue
        where = f"messages[{at}].content"
        if message.role == "tool":
            results += [(only_result(part, f"{where}[{k}]"), f"{where}[{k}]") for k, part in enumerate(message.content)]
            continue
        before = None if results or message.role == "user" else before
        yield from _results(results, calls)
        results = []
        if message.role == "user":
            yield {"role": "user", "parts": [encode_part(p, f"{where}[{k}]") for k, p in enumerate(message.content)]}
        else:
            calls += [part for part in message.content if isinstance(part, ToolCall)]
            parts = _model_parts(message, where, rule)
            if before is not None:
                before["parts"] += parts
            elif parts:
                before = {"role": "model", "parts": parts}
                yield before
    yield from _results(results, calls)


def _model_parts(message: Message, where: str, rule: ModelRule) -> list[JsonObject]:
    parts = [encode_part(part, f"{where}[{at}]") for at, part in enumerate(message.content)]
    parts = [part for part in parts if part != _NOTHING]
    if rule.signed_calls:
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None:
            first.setdefault("thoughtSignature", NO_SIGNATURE)
    return parts


_NOTHING = {"text": "", "thought": True}
"""The remainder of another vendor's thought, which Gemini cannot read."""


def _results(results: list[tuple[ToolResult, str]], calls: list[ToolCall]) -> Iterator[JsonObject]:
    """Return all results in one content, in the order of their calls: without ids, Gemini matches results to calls by
    their order.
    """
    if not results:
        return
    order = {call.id: at for at, call in enumerate(calls)}
    names = {call.id: call.name for call in calls}
    parts = []
    for result, where in sorted(results, key=lambda pair: order.get(pair[0].call_id, len(order))):
        name = names.get(result.call_id) or result.name
        if name is None:
            raise bad_request(where, f"{where}: no earlier tool call has the id {result.call_id!r}")
        parts.append(encode_result(result, name, where))
    yield {"role": "user", "parts": parts}


def _calling(request: ChatRequest) -> JsonObject | None:
    choice = request.tool_choice
    if choice is None or choice.mode == "auto":
        # VALIDATED is AUTO with calls that must match their schemas, which is what ``strict`` requests.
        if any(getattr(tool, "strict", None) for tool in request.tools):
            return {"mode": "VALIDATED"}
        return None if choice is None else {"mode": "AUTO"}
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": "ANY" if choice.mode == "required" else "NONE"}


def _generation_config(request: ChatRequest | ImageRequest, rule: ModelRule) -> JsonObject:
    parameters = request.parameters
    config = set_parameters(parameters, _SAMPLING)
    thinking_config = _thinking_config(parameters, rule)
    if thinking_config:
        config["thinkingConfig"] = thinking_config
    return config


def _thinking_config(parameters: Parameters, rule: ModelRule) -> JsonObject:
    config: JsonObject = {}
    effort, budget = parameters.reasoning_effort, parameters.reasoning_budget
    if budget is not None:
        config["thinkingBudget"] = budget
    elif effort in rule.efforts:
        config["thinkingLevel"] = str(effort).upper()
    if parameters.reasoning_summary is not None:
        config["includeThoughts"] = True
    return config


def _format(request: ChatRequest) -> JsonObject:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.schema is None:
        return {"responseMimeType": "application/json"}
    return {"responseMimeType": "application/json", "responseJsonSchema": with_plain_refs(wanted.schema)}


# ---------------------------------------------------------------- images


def image_body(request: ImageRequest, rule: ModelRule) -> JsonObject:
    """Return the body of a request to create or edit images.

    Image models are chat models whose responses contain images; there is no ``n``.
    """
    config = _generation_config(request, rule)
    config["responseModalities"] = ["TEXT", "IMAGE"]
    if request.size not in (None, "auto"):
        config["imageConfig"] = _image_config(str(request.size))
    shown = [encode_image(image, f"images[{at}]") for at, image in enumerate(request.images)]
    parts = [*shown, {"text": request.prompt}]
    return {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}


_SIZE_CHARACTERS = 20
"""The most digits of a size that are read: Python refuses to convert very long numbers."""


def _image_config(size: str) -> JsonObject:
    wide, times, high = size.partition("x")
    if not (
        len(size) <= _SIZE_CHARACTERS and times and wide.isdecimal() and high.isdecimal() and int(wide) and int(high)
    ):
        raise bad_request("size", f'size must be "WIDTHxHEIGHT" or "auto", not {size[:40]!r}')
    width, height = int(wide), int(high)
    name, (w, h) = min(ASPECTS.items(), key=lambda item: abs(width * item[1][1] / (height * item[1][0]) - 1))
    if abs(width * h / (height * w) - 1) > _ASPECT_TOLERANCE:
        ratios = ", ".join(ASPECTS)
        raise unsupported("size", f"Gemini makes no images of size {size}: the aspect ratio must be one of {ratios}")
    scale = next((scale for scale, times_1k in SCALES.items() if width <= 1.4 * times_1k * w), "4K")
    return {"aspectRatio": name} if scale == "1K" else {"aspectRatio": name, "imageSize": scale}
