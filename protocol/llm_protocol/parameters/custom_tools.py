"""Custom tools: tools whose input is free text, as OpenAI's two APIs have them.

For every other vendor such a tool becomes a function with one text argument, and its calls and results in the
conversation become those of a function. The model's calls become custom calls again: see
`llm_protocol.parameters.restore`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.content import HostedTool, JsonObject, Message, Opaque, Part, Text, Tool, ToolCall, ToolResult

CHAT: Final = "openai_chat"
RESPONSES: Final = "openai_responses"
WIRES: Final = (CHAT, RESPONSES)

INPUT: Final = "input"
"""The name of the function's one argument."""


class CustomTool(msgspec.Struct, frozen=True, kw_only=True):
    """A custom tool, from either of the two wires."""

    name: str
    description: str | None = None
    format: JsonObject | None = None


def read_tool(tool: Tool | HostedTool) -> CustomTool | None:
    """Decode ``tool``; ``None`` if it is not a custom tool."""
    if not isinstance(tool, HostedTool) or tool.dialect not in WIRES or tool.value.get("type") != "custom":
        return None
    fields = tool.value.get("custom") if tool.dialect == CHAT else tool.value
    name = fields.get("name") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or not isinstance(name, str):
        return None
    description, form = fields.get("description"), fields.get("format")
    if isinstance(form, dict) and isinstance(form.get("grammar"), dict):  # the chat wire has one more level
        form = {"type": "grammar", **form["grammar"]}
    return CustomTool(
        name=name,
        description=description if isinstance(description, str) else None,
        format=form if isinstance(form, dict) else None,
    )


def write_tool(tool: CustomTool, wire: str) -> HostedTool:
    """``tool`` in the form of one of the two wires."""
    form = tool.format
    if wire == CHAT and form is not None and form.get("type") == "grammar":
        form = {"type": "grammar", "grammar": {key: value for key, value in form.items() if key != "type"}}
    fields = {"name": tool.name, "description": tool.description, "format": form}
    given = {name: value for name, value in fields.items() if value is not None}
    return HostedTool(dialect=wire, value={"type": "custom", **({"custom": given} if wire == CHAT else given)})


def as_function(tool: CustomTool) -> Tool:
    """Return ``tool`` as a function with one text argument, whose description says what the text must be."""
    words = [tool.description] if tool.description else []
    definition = tool.format.get("definition") if tool.format is not None else None
    if tool.format is not None and isinstance(definition, str):
        words.append(f"The input must match this {tool.format.get('syntax', '')} grammar:\n{definition}")
    return Tool(
        name=tool.name,
        description="\n\n".join(words) or None,
        parameters={
            "type": "object",
            "properties": {INPUT: {"type": "string", "description": "The whole input of the tool, as free text."}},
            "required": [INPUT],
            "additionalProperties": False,
        },
    )


# ---------------------------------------------------------------- calls and results


def read_call(part: Part) -> tuple[str, str, str] | None:
    """Return the id, name and input of a custom call of an earlier turn; ``None`` for another part."""
    if not isinstance(part, Opaque):
        return None
    value = part.value
    if part.dialect == RESPONSES and value.get("type") == "custom_tool_call":
        fields = (value.get("call_id"), value.get("name"), value.get("input"))
    elif part.dialect == CHAT and value.get("type") == "custom" and isinstance(custom := value.get("custom"), dict):
        fields = (value.get("id"), custom.get("name"), custom.get("input"))
    else:
        return None
    id_, name, text = fields
    return (id_, name, text) if isinstance(id_, str) and isinstance(name, str) and isinstance(text, str) else None


def write_call(id_: str, name: str, text: str, wire: str) -> Opaque:
    """Return a call of a custom tool in the form of ``wire``: `CHAT`, or else `RESPONSES`."""
    if wire == CHAT:
        return Opaque(dialect=CHAT, value={"id": id_, "type": "custom", "custom": {"name": name, "input": text}})
    item = {"type": "custom_tool_call", "id": f"ctc_{id_}", "call_id": id_, "name": name, "input": text}
    return Opaque(dialect=RESPONSES, value={**item, "status": "completed"})


def _read_result(part: Part) -> ToolResult | None:
    """The result of a custom call. It is a separate item in the Responses API; on the chat wire it is a function's
    result.
    """
    if not isinstance(part, Opaque) or part.dialect != RESPONSES or part.value.get("type") != "custom_tool_call_output":
        return None
    call_id, output = part.value.get("call_id"), part.value.get("output")
    if not isinstance(call_id, str):
        return None
    if isinstance(output, str):
        return ToolResult(call_id=call_id, content=(Text(output),) if output else ())
    texts = [each.get("text") for each in output if isinstance(each, dict)] if isinstance(output, list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        return None  # images and files in a form that only the vendor reads
    return ToolResult(call_id=call_id, content=tuple(Text(text) for text in texts if isinstance(text, str)))


def fit_custom_calls(messages: tuple[Message, ...], wire: str) -> tuple[Message, ...]:
    """Return the conversation with the calls of custom tools, and their results, in the form of ``wire``: as custom
    calls if the wire has them, else as calls of functions.
    """
    return tuple(_fit(message, wire) if message.role in ("assistant", "tool") else message for message in messages)


def _fit(message: Message, wire: str) -> Message:
    if not any(isinstance(part, Opaque) for part in message.content):
        return message
    content = tuple(_fit_part(part, wire) for part in message.content)
    return msgspec.structs.replace(message, content=content)


def _fit_part(part: Part, wire: str) -> Part:
    if not isinstance(part, Opaque) or part.dialect == wire:
        return part
    if (call := read_call(part)) is not None:
        id_, name, text = call
        if wire in WIRES:
            return write_call(id_, name, text, wire)
        return ToolCall(id=id_, name=name, arguments=encode_json({INPUT: text}).decode())
    return _read_result(part) or part
