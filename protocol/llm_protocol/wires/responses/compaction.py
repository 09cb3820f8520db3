"""Compaction: shorten a conversation by having a model summarise it.

The result is the user's own messages and one sealed item with the summary. A client sends them as the input of its next
request, to any vendor; there the item becomes a message with the summary.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.content import Image, JsonObject, Message, Opaque, Part, Refusal, Text, ToolCall, ToolResult
from llm_protocol.requests import ChatRequest
from llm_protocol.response import LLMResponse, Usage
from llm_protocol.wires.responses.client import encode_input
from llm_protocol.wires.responses.content import seal_summary
from llm_protocol.wires.responses.shapes import usage_object

_TASK = (
    "Above is a conversation between a user and an assistant, as a transcript. Another assistant will go on with it "
    "and will see only your summary and the user's messages. Write the summary: what the user wants, what was done and "
    "decided, what was found out (names, paths, numbers and errors, word for word where they matter), and what is left "
    "to do. Do not answer the user, and do not go on with the work. Write the summary only."
)


def compaction_request(request: ChatRequest) -> ChatRequest:
    """The request for a summary of ``request``'s conversation.

    The conversation is sent as a transcript in one message, so that no vendor refuses calls without their tools or
    results.
    """
    transcript = "\n\n".join(line for message in request.messages for line in _lines(message))
    text = f"<transcript>\n{transcript}\n</transcript>\n\n{_TASK}"
    return msgspec.structs.replace(
        request, messages=(Message.of("user", text),), tools=(), tool_choice=None, response_format=None
    )


def _lines(message: Message) -> Iterator[str]:
    for part in message.content:
        if text := _line(part):
            yield f"[{message.role}] {text}"


def _line(part: Part) -> str:
    match part:
        case Text(text=text) | Refusal(text=text):
            return text
        case ToolCall():
            return f"calls {part.name} with {part.arguments}"
        case ToolResult():
            return f"result of {part.name or part.call_id}: {part.text}"
        case Image():
            return "(an image)"
        case Opaque():
            return encode_json(part.value).decode()
        case _:
            return ""  # reasoning is of no use to another model


def encode_compaction(request: ChatRequest, response: LLMResponse) -> bytes:
    """The body of the response: the user's messages of the compacted ``request``, and the summary."""
    ident = response.response_id.removeprefix("resp_")
    users = [message for message in request.messages if message.role == "user"]
    output = [_user_item(message, f"msg_{ident}_{at}") for at, message in enumerate(users)]
    output.append({"id": f"cmp_{ident}", "type": "compaction", "encrypted_content": seal_summary(response.content)})
    return encode_json(
        {
            "id": response.response_id,
            "object": "response.compaction",
            "created_at": int(response.timestamp),
            "output": output,
            "usage": usage_object(response.usage or Usage()),
        }
    )


def _user_item(message: Message, ident: str) -> JsonObject:
    (item,) = encode_input((message,), 0)
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    return {"id": ident, "type": "message", "role": "user", "status": "completed", "content": content}
