"""The server side of the chat wire.

Unknown fields, and known fields with an unknown value, are kept in ``extra``. No vendor has an endpoint for code
requests, so ``POST /v1/code/generations`` exists only in llm-runtime. Its response is a chat completion with the code,
without fences, as the message's content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from llm_protocol.codec import old_functions
from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.response_encoding import is_wanted, runtime_fields
from llm_protocol.content import HostedTool, JsonObject, ResponseFormat, Tool, ToolChoice
from llm_protocol.dialect import ClientRequest, ModelInfo, ResponseEncoder, WireResponse
from llm_protocol.failures import Failure
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    Parameters,
)
from llm_protocol.response import LLMResponse
from llm_protocol.vendor_profile import OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.choices import MOST_CHOICES, ChoicesEncoder, encode_choices, with_choices
from llm_protocol.wires.openai_chat.content import decode_message, join_tool_results, with_extra
from llm_protocol.wires.openai_chat.embeddings import embedding_request, encode_embeddings, wanted_form
from llm_protocol.wires.openai_chat.errors import encode_error
from llm_protocol.wires.openai_chat.images import edit_request, encode_images, image_request
from llm_protocol.wires.openai_chat.models import encode_models
from llm_protocol.wires.openai_chat.server_stream import OpenAIChatEncoder

_OLD_NAMES = re.compile(rb'"function(?:_call|s)"')
"""A request that contains one of these may use the deprecated form of tool calls: see `codec.old_functions`."""


@final
class OpenAIChatServer:
    """Speaks to clients of this wire; see `ServerDialect`. Only a fake of one particular vendor sets ``profile``."""

    def __init__(self, profile: VendorProfile = OPENAI) -> None:
        self.profile = profile
        self.name = profile.name
        """The dialect's name."""

    def decode_request(self, path: str, body: bytes) -> ClientRequest:
        """Decode a client's request. The end of the path determines its type. Raises `BadRequestError` and
        `UnsupportedError`.
        """
        reader = _reader_of(path.partition("?")[0].rstrip("/"))
        fields = Body.parse(body)
        form = ""
        if reader is chat_request and _OLD_NAMES.search(body):
            form = old_functions.form_of(fields.raw)
            fields = Body(old_functions.modernised(fields.raw))
        stream, usage = streaming(fields)
        choices = _choices(reader, fields)
        request = reader(fields, self.name)
        if stream and isinstance(request, EmbeddingRequest | ImageRequest):
            raise unsupported("stream", "embeddings and images are never streamed; omit stream")
        if isinstance(request, EmbeddingRequest):
            form = wanted_form(fields)
        inbound = ClientRequest(request, stream=stream, include_usage=usage, policy=fields.policy(), form=form)
        return inbound if choices == [None] else with_choices(inbound, choices)

    def response_encoder(self, inbound: ClientRequest, response_id: str) -> ResponseEncoder:
        """An encoder for one streamed response."""
        if isinstance(inbound.request, ChatRequest) and inbound.request.n > 1:
            each = [self._encoder(inbound._replace(choice=at), response_id) for at in range(inbound.request.n)]
            return ChoicesEncoder(inbound, each, self.profile)
        return self._encoder(inbound, response_id)

    def _encoder(self, inbound: ClientRequest, response_id: str) -> ResponseEncoder:
        encoder = OpenAIChatEncoder(inbound, response_id, self.profile)
        return old_functions.OldFormEncoder(encoder) if inbound.form == old_functions.FUNCTIONS else encoder

    def encode_response(self, inbound: ClientRequest, response: LLMResponse) -> bytes:
        """The body of a whole response."""
        match inbound.request:
            case EmbeddingRequest():
                body = encode_embeddings(response, inbound.form)
            case ImageRequest():
                body = encode_images(response)
            case _:
                body = encode_choices(inbound, response, self.profile)
                if inbound.form == old_functions.FUNCTIONS:
                    body = old_functions.old_body(body)
        return runtime_fields(body, response, wanted=True) if is_wanted(inbound) else body

    def encode_error(self, failure: Failure) -> WireResponse:
        """Return status, headers and body that the SDK turns into its exceptions."""
        return encode_error(failure)

    def encode_models(self, models: Sequence[ModelInfo]) -> bytes:
        """The body of the model list."""
        return encode_models(models)


def chat_request(body: Body, name: str) -> ChatRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    messages = join_tool_results([decode_message(message, name) for message in body.objects("messages")])
    if not messages:
        raise body.wrong("messages", "a list of at least one message")
    odd: JsonObject = {}
    return ChatRequest(
        model=body.model(),
        messages=messages,
        tools=tuple([_decode_tool(tool, name) for tool in body.objects("tools")]),
        tool_choice=_decode_tool_choice(body, odd),
        response_format=_decode_response_format(body, odd),
        parameters=common_parameters(body, name, odd),
    )


def _choices(reader: Callable[[Body, str], AnyRequest], body: Body) -> list[str | None]:
    """The prompt of each requested choice; ``None`` if the request has messages instead."""
    if reader is chat_request:
        prompts: Sequence[str | None] = (None,)
    elif reader is completion_request:
        prompts = body.strings("prompt") or (None,)
    else:
        return [None]
    count = body.integer("n")
    if count is not None and count < 1:
        raise body.wrong("n", "a whole number of at least 1")
    if (count or 1) * len(prompts) > MOST_CHOICES:
        raise body.wrong("n", f"smaller: a response has at most {MOST_CHOICES} choices, n for each prompt")
    return [prompt for prompt in prompts for _ in range(count or 1)]


def refuse_many(body: Body, field: str) -> None:
    """Raise `UnsupportedError` if the field ``field`` asks for more than one response."""
    if (body.integer(field) or 1) != 1:
        raise body.cannot(field, f"{field} must be 1: send several requests for several responses")


_PARAMETERS: Final[tuple[tuple[str, str, Callable[[Body, str], Any]], ...]] = (
    ("max_tokens", "max_output_tokens", Body.integer),
    ("max_completion_tokens", "max_output_tokens", Body.integer),
    ("user", "user", Body.string),
    ("safety_identifier", "user", Body.string),
    ("temperature", "temperature", Body.number),
    ("top_p", "top_p", Body.number),
    ("top_k", "top_k", Body.integer),
    ("stop", "stop", Body.strings),
    ("frequency_penalty", "frequency_penalty", Body.number),
    ("presence_penalty", "presence_penalty", Body.number),
    ("seed", "seed", Body.integer),
    ("reasoning_effort", "reasoning_effort", Body.string),
    ("parallel_tool_calls", "parallel_tool_calls", Body.boolean),
)
"""The fields of a body that are parameters: the wire's name, the field of `Parameters`, and the reader. If a body has
two fields for one parameter, the later one here is used.
"""


def streaming(body: Body) -> tuple[bool, bool]:
    """Return whether to stream, and whether the stream includes usage."""
    options = body.object("stream_options")
    return bool(body.boolean("stream")), bool(options and options.boolean("include_usage"))


def common_parameters(body: Body, dialect: str, odd: JsonObject | None = None) -> Parameters:
    """The parameters. Call this last: fields that no reader has read become ``extra``. For ``odd`` see `with_extra`."""
    fields = body.raw
    given = {ours: read(body, name) for name, ours, read in _PARAMETERS if fields.get(name) is not None}
    return with_extra(given, body, dialect, odd)


# ---------------------------------------------------------------- tools and formats


def _decode_tool(tool: Body, name: str) -> Tool | HostedTool:
    if tool.required_string("type") != "function":
        return HostedTool(dialect=name, value=tool.raw)
    function = tool.object("function")
    if function is None:
        raise tool.wrong("function", "an object with name, description and parameters")
    parameters = function.object("parameters")
    return Tool(
        name=function.required_string("name"),
        description=function.string("description"),
        parameters=parameters.raw if parameters else {},
        strict=function.boolean("strict"),
        extra=function.rest_for(name),
    )


def _decode_tool_choice(body: Body, odd: JsonObject) -> ToolChoice | None:
    match body.take("tool_choice"):
        case None:
            return None
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode)
        case {"type": "function", "function": {"name": str(tool)}}:
            return ToolChoice("named", tool)
        case {"type": str()} as other:
            odd["tool_choice"] = other
            return None
        case _:
            raise body.wrong(
                "tool_choice", '"auto", "none", "required" or {"type": "function", "function": {"name": …}}'
            )


def _decode_response_format(body: Body, odd: JsonObject) -> ResponseFormat | None:
    format_ = body.object("response_format")
    if format_ is None:
        return None
    match format_.required_string("type"):
        case "text":
            return ResponseFormat(type="text")
        case "json_object":
            return ResponseFormat(type="json")
        case "json_schema":
            return _decode_json_schema(format_)
        case _:
            odd["response_format"] = format_.raw
            return None


def _decode_json_schema(format_: Body) -> ResponseFormat:
    schema = format_.object("json_schema")
    if schema is None:
        raise format_.wrong("json_schema", "an object with name and schema")
    return ResponseFormat(
        type="json_schema",
        name=schema.required_string("name"),
        schema=schema.required_object("schema").raw,
        strict=schema.boolean("strict"),
        description=schema.string("description"),
    )


def completion_request(body: Body, name: str) -> CompletionRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    prompts = body.strings("prompt")
    if not prompts:
        raise body.wrong("prompt", "a string, or a list of at least one string")
    refuse_many(body, "best_of")
    if body.raw.get("logprobs"):
        raise body.cannot("logprobs", "log probabilities are not supported for completions; omit logprobs")
    if body.boolean("echo"):
        raise body.cannot("echo", "echo is not supported: the response never repeats the prompt")
    return CompletionRequest(
        model=body.model(),
        prompt=prompts[0],
        suffix=body.string("suffix"),
        parameters=common_parameters(body, name),
    )


def code_request(body: Body, name: str) -> CodeRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    instruction = body.string("instruction")
    if not instruction:
        raise body.wrong("instruction", "a string that describes the code to write")
    refuse_many(body, "n")
    return CodeRequest(
        model=body.model(),
        instruction=instruction,
        language=body.string("language"),
        prefix=body.string("prefix"),
        suffix=body.string("suffix"),
        files=tuple(_file(file) for file in body.objects("files")),
        parameters=common_parameters(body, name),
    )


def _reader_of(place: str) -> Callable[[Body, str], AnyRequest]:
    for end, reader in _READERS.items():
        if place.endswith(end):
            return reader
    raise bad_request(None, f"there is no endpoint {place[:200]}; the endpoints are {', '.join(_READERS)}")


def _file(file: Body) -> CodeFile:
    path, content = file.string("path"), file.string("content")
    if not path:
        raise file.wrong("path", "a string that is not empty")
    if content is None:
        raise file.wrong("content", "a string")
    return CodeFile(path, content)


_READERS: dict[str, Callable[[Body, str], AnyRequest]] = {
    "/chat/completions": chat_request,  # must precede the path that is a suffix of it
    "/completions": completion_request,
    "/embeddings": embedding_request,
    "/images/generations": image_request,
    "/images/edits": edit_request,
    "/code/generations": code_request,
}
