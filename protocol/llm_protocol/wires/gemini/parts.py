"""Parts and tools as Gemini writes them, for both sides: of a request's turns and of an answer.

Dicts throughout: this is not the hot path. Fields of a part that we do not know travel in its ``extra["gemini"]``,
parts of a kind that we do not know as `Opaque`.
"""

from __future__ import annotations

from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import WireError, decode_object
from llm_protocol.codec.media import parse_data_uri, sniff_media_type
from llm_protocol.content import (
    HostedTool,
    Image,
    JsonObject,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_protocol.wires.gemini.stream import vendor_id
from llm_protocol.wires.gemini.tables import NAME

# ---------------------------------------------------------------- canonical -> wire


def encode_part(part: Part, where: str) -> JsonObject:
    """One part, except tool results, which need to know their calls. Raises for what Gemini cannot be told."""
    match part:
        case Text():
            return _signed({"text": part.text}, part.signature, part.extra)
        case Refusal():
            return {"text": part.text}
        case Image():
            return _signed(_image(part, where), part.signature, part.extra)
        case Reasoning():
            own = part.dialect in (NAME, None)
            return _signed({"text": part.text, "thought": True}, part.signature if own else None, None)
        case ToolCall():
            return _signed({"functionCall": _call(part, where)}, part.signature, part.extra)
        case Opaque():
            if part.dialect != NAME:
                raise unsupported(where, f"{where} is a block of {part.dialect}; Gemini cannot read it")
            return part.value
        case ToolResult():
            raise bad_request(where, f"{where}: a tool result stands in a message of role tool")


def _signed(wire: JsonObject, signature: str | None, extra: dict[str, JsonObject] | None) -> JsonObject:
    if signature is not None:
        wire["thoughtSignature"] = signature
    return {**extra[NAME], **wire} if extra and NAME in extra else wire


def _image(image: Image, where: str) -> JsonObject:
    if image.data is not None:
        return {"inlineData": {"mimeType": image.media_type or sniff_media_type(image.data), "data": image.data}}
    url = image.url or ""
    if url.startswith("data:"):
        try:
            media_type, data = parse_data_uri(url)
        except WireError as exc:
            raise bad_request(where, f"{where}: {exc}") from None
        return {"inlineData": {"mimeType": media_type, "data": data}}
    if not url:
        raise bad_request(where, f"{where}: an image needs data or a url")
    return {"fileData": {"mimeType": image.media_type, "fileUri": url} if image.media_type else {"fileUri": url}}


def _call(call: ToolCall, where: str) -> JsonObject:
    try:
        wire: JsonObject = {"name": call.name, "args": call.parsed()}
    except ValueError:
        raise bad_request(where, f"{where}: the arguments of tool call {call.name!r} are not a JSON object") from None
    call_id = vendor_id(call.id)
    return wire if call_id is None else {**wire, "id": call_id}


def encode_result(result: ToolResult, name: str, where: str) -> JsonObject:
    """A tool's answer to the call of the function ``name``."""
    wire: JsonObject = {"name": name, "response": _result_object(result)}
    call_id = vendor_id(result.call_id)
    if call_id is not None:
        wire["id"] = call_id
    images = [_image(part, where) for part in result.content if isinstance(part, Image)]
    if images:
        wire["parts"] = images
    return _signed({"functionResponse": wire}, None, result.extra)


_RESULT_KEYS = ({"output"}, {"error"})


def _result_object(result: ToolResult) -> JsonObject:
    """Gemini wants an object: the text itself if it is one, else ``{"output": text}`` or ``{"error": text}``."""
    if result.is_error:
        return {"error": result.text}
    if result.text.startswith("{"):
        try:
            value = decode_object(result.text)
        except WireError:
            return {"output": result.text}
        if set(value) not in _RESULT_KEYS:
            return value
    return {"output": result.text}


def encode_tools(tools: tuple[Tool | HostedTool, ...]) -> list[JsonObject]:
    """Neighbouring functions share one entry, each hosted tool has its own."""
    entries: list[JsonObject] = []
    for at, tool in enumerate(tools):
        if isinstance(tool, HostedTool):
            if tool.dialect != NAME:
                raise unsupported(f"tools[{at}]", f"tools[{at}] is a tool that runs at {tool.dialect}, not at Gemini")
            entries.append(tool.value)
        elif entries and "functionDeclarations" in entries[-1]:
            entries[-1]["functionDeclarations"].append(_declaration(tool))
        else:
            entries.append({"functionDeclarations": [_declaration(tool)]})
    return entries


def _declaration(tool: Tool) -> JsonObject:
    wire: JsonObject = {"name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    if tool.parameters:
        wire["parametersJsonSchema"] = tool.parameters
    return {**tool.extra[NAME], **wire} if tool.extra and NAME in tool.extra else wire
