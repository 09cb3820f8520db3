"""The server side of Gemini's wire."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.response_encoding import is_wanted, runtime_fields
from llm_protocol.content import HostedTool, JsonObject, Message, ResponseFormat, Text, Tool, ToolChoice
from llm_protocol.dialect import ClientRequest, ModelInfo, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, ImageRequest, Parameters
from llm_protocol.response import LLMResponse
from llm_protocol.wires.gemini import errors
from llm_protocol.wires.gemini.content import Conversation, json_schema, read_system
from llm_protocol.wires.gemini.embeddings import encode_embeddings
from llm_protocol.wires.gemini.models import encode_models
from llm_protocol.wires.gemini.server_stream import GeminiEncoder, encode_whole
from llm_protocol.wires.gemini.shapes import ASPECTS, INPUT_TYPES, METHODS, NAME, SCALES, GeminiBody, needed


@final
class GeminiServer:
    """Speaks to Gemini's clients; see `ServerDialect`."""

    name = NAME

    def decode_request(self, path: str, body: bytes) -> ClientRequest:
        """Decode a client's request. Raises `BadRequestError` or `UnsupportedError`, naming the field at fault."""
        return decode_request(path, body)

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> GeminiEncoder:
        """Return an encoder for one streamed response."""
        return GeminiEncoder(inbound, response_id)

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:
        """The body of a whole response."""
        if isinstance(inbound.request, EmbeddingRequest):
            body = encode_embeddings(response, single=inbound.form == "embedContent")
        else:
            body = encode_whole(response)
        return runtime_fields(body, response, wanted=is_wanted(inbound))

    def encode_error(self, failure: Failure) -> WireResponse:
        """Return the error as a response that Google's SDK understands."""
        return errors.encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The body of the model list (one page)."""
        return encode_models(models)


_PATH = re.compile(r"/?(?:v\d\w*/)?(models|tunedModels)/(.+):(\w+)", re.ASCII)


def decode_request(path: str, body: bytes) -> ClientRequest:
    """Decode a client's request. Raises `BadRequestError` or `UnsupportedError`, naming the field at fault."""
    url = urlsplit(path)
    found = _PATH.fullmatch(url.path)
    if found is None:
        raise bad_request(None, f"the path {url.path[:200]} is not of the form /v1beta/models/MODEL:METHOD")
    folder, name, method = found.groups()
    model = unquote(name) if folder == "models" else f"tunedModels/{unquote(name)}"
    fields = GeminiBody.parse(body)
    fields.string("model")  # some clients repeat the model in the body; the path wins
    request: AnyRequest
    match method:
        case "generateContent" | "streamGenerateContent":
            request = _generate(fields, model)
        case "countTokens":
            whole = fields.object("generateContentRequest")
            if whole is not None:
                whole.string("model")
            request = _generate(fields if whole is None else whole, model)
        case "batchEmbedContents":
            request = _embed(fields.objects("requests"), model)
        case "embedContent":
            request = _embed([fields], model)
        case _:
            raise unsupported("path", f"there is no method {method}; the methods are {', '.join(METHODS)}")
    return ClientRequest(
        request=request,
        stream=method == "streamGenerateContent",
        policy=fields.policy(),
        json_array=method == "streamGenerateContent" and parse_qs(url.query).get("alt") != ["sse"],
        form=method,
    )


def _generate(fields: GeminiBody, model: str) -> ChatRequest | ImageRequest:
    system = fields.object("systemInstruction")
    messages = [] if system is None else [Message("system", read_system(system))]
    contents = fields.objects("contents")
    if not contents:
        raise bad_request("contents", "contents is missing or empty: it must be the list of the conversation's turns")
    messages += Conversation().read(contents)
    tools = _tools(fields)
    choice, strict = _tool_choice(fields)
    if strict:
        tools = [msgspec.structs.replace(tool, strict=True) if isinstance(tool, Tool) else tool for tool in tools]
    config = fields.object("generationConfig") or GeminiBody({}, "generationConfig")
    values = _parameters(config)
    picture = _picture(config, messages, bool(tools))
    response_format = None if picture else _response_format(config)
    fields.put_back("generationConfig", config.rest())
    parameters = Parameters(**values, wire=NAME, extra=fields.rest_for(NAME) or {})
    if picture:
        return ImageRequest(model=model, prompt=messages[0].text, size=picture.get("size"), parameters=parameters)
    return ChatRequest(
        model=model,
        messages=tuple(messages),
        tools=tuple(tools),
        tool_choice=choice,
        response_format=response_format,
        parameters=parameters,
    )


# ---------------------------------------------------------------- tools


def _tools(fields: GeminiBody) -> list[Tool | HostedTool]:
    found: list[Tool | HostedTool] = []
    for entry in fields.objects("tools"):
        found += [_tool(declared) for declared in entry.objects("functionDeclarations")]
        found += [HostedTool(dialect=NAME, value={name: value}) for name, value in entry.rest().items()]
    return found


def _tool(declared: GeminiBody) -> Tool:
    openapi, schema = declared.json_object("parameters"), declared.json_object("parametersJsonSchema")
    return Tool(
        name=needed(declared, "name"),
        description=declared.string("description"),
        parameters=schema if schema is not None else json_schema(openapi or {}),
        extra=declared.rest_for(NAME),
    )


def _tool_choice(fields: GeminiBody) -> tuple[ToolChoice | None, bool]:
    """The tool choice, and whether calls must match their schemas."""
    config = fields.object("toolConfig")
    calling = config.object("functionCallingConfig") if config else None
    if config is None or calling is None:
        fields.put_back("toolConfig", config.rest() if config else None)
        return None, False
    mode = (calling.string("mode") or "AUTO").upper()
    names = calling.strings("allowedFunctionNames")
    if len(names) != 1 or mode != "ANY":
        calling.put_back("allowedFunctionNames", list(names))
    config.put_back("functionCallingConfig", calling.rest())
    fields.put_back("toolConfig", config.rest())
    match mode:
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return ToolChoice("auto"), mode == "VALIDATED"
        case "NONE":
            return ToolChoice("none"), False
        case "ANY":
            return (ToolChoice("named", names[0]) if len(names) == 1 else ToolChoice("required")), False
    raise calling.wrong("mode", "AUTO, ANY, NONE or VALIDATED")


# ---------------------------------------------------------------- generationConfig


def _parameters(config: GeminiBody) -> dict[str, Any]:
    if (config.integer("candidateCount") or 1) != 1:
        raise config.cannot("candidateCount", "candidateCount must be 1: send several requests for several responses")
    thinking = config.object("thinkingConfig") or GeminiBody({}, config.path("thinkingConfig"))
    level = thinking.string("thinkingLevel")
    summary = thinking.boolean("includeThoughts")
    budget = thinking.integer("thinkingBudget")
    if budget is not None and budget < 0:  # "unspecified", which no other vendor has
        thinking.put_back("thinkingBudget", budget)
        budget = None
    config.put_back("thinkingConfig", thinking.rest())
    return {
        "temperature": config.number("temperature"),
        "top_p": config.number("topP"),
        "top_k": config.integer("topK"),
        "max_output_tokens": config.integer("maxOutputTokens"),
        "stop": config.strings("stopSequences"),
        "frequency_penalty": config.number("frequencyPenalty"),
        "presence_penalty": config.number("presencePenalty"),
        "seed": config.integer("seed"),
        "reasoning_effort": None if level in (None, "THINKING_LEVEL_UNSPECIFIED") else str(level).lower(),
        "reasoning_budget": budget,
        "reasoning_summary": "auto" if summary else None,
    }


def _response_format(config: GeminiBody) -> ResponseFormat | None:
    if config.raw.get("responseMimeType") == "text/plain":
        config.string("responseMimeType")
    if config.raw.get("responseMimeType") != "application/json":
        return None  # other types, such as text/x.enum, are forwarded unchanged
    config.string("responseMimeType")
    openapi, schema = config.json_object("responseSchema"), config.json_object("responseJsonSchema")
    if schema is None and openapi is None:
        return ResponseFormat(type="json")
    return ResponseFormat(type="json_schema", schema=schema if schema is not None else json_schema(openapi))


def _picture(config: GeminiBody, messages: list[Message], tools: bool) -> dict[str, str] | None:
    """The image options, if the request is for nothing but one image from one text."""
    modalities = config.raw.get("responseModalities")
    wanted = isinstance(modalities, list) and "IMAGE" in {str(item).upper() for item in modalities}
    alone = len(messages) == 1 and messages[0].role == "user" and all(type(p) is Text for p in messages[0].content)
    if not wanted or not alone or tools or not messages[0].text:
        return None
    config.take("responseModalities")
    image = config.object("imageConfig")
    if image is None:
        return {"": ""}
    ratio, scale = image.string("aspectRatio"), image.string("imageSize")
    config.put_back("imageConfig", image.rest())
    if ratio is None and scale is None:
        return {"": ""}
    if (ratio or "1:1") not in ASPECTS or (scale or "1K") not in SCALES:
        message = (
            f"imageConfig: aspectRatio must be one of {', '.join(ASPECTS)}, and imageSize one of {', '.join(SCALES)}"
        )
        wrong = "imageSize" if (ratio or "1:1") in ASPECTS else "aspectRatio"
        raise bad_request(image.path(wrong), message)
    width, height = ASPECTS[ratio or "1:1"]
    times = SCALES[scale or "1K"]
    return {"size": f"{width * times}x{height * times}"}


# ---------------------------------------------------------------- embeddings


def _embed(items: list[GeminiBody], model: str) -> EmbeddingRequest:
    if not items:
        raise bad_request("requests", "requests is missing or empty: it must be the list of the texts to embed")
    texts: list[str] = []
    requests: list[JsonObject] = []
    for item in items:
        item.string("model")
        content = item.object("content")
        if content is None:
            raise bad_request(item.path("content"), f"{item.path('content')} is missing")
        if not (text := "".join(_needed_text(part) for part in content.objects("parts"))):
            raise bad_request(content.path("parts"), f"{content.path('parts')} is empty: the text to embed is missing")
        texts.append(text)
        requests.append(item.rest())
    if any(other != requests[0] for other in requests):
        raise unsupported("requests", "all requests of one batch must have the same taskType and outputDimensionality")
    common = GeminiBody(requests[0], items[0].where)
    dimensions, task = common.integer("outputDimensionality"), common.string("taskType")
    return EmbeddingRequest(
        model=model,
        inputs=tuple(texts),
        dimensions=dimensions,
        input_type=None if task in (None, "TASK_TYPE_UNSPECIFIED") else INPUT_TYPES.get(str(task), task),
        parameters=Parameters(wire=NAME, extra=common.rest_for(NAME) or {}),
    )


def _needed_text(part: GeminiBody) -> str:
    text = part.string("text")
    if text is None:
        raise unsupported(part.path("text"), f"{part.path('text')} is missing: only texts can be embedded")
    return text
