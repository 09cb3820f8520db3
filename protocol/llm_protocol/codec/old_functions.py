"""OpenAI's deprecated form of tool calls: ``functions`` and ``function_call``, with at most one call per response.

A request in this form is converted to the current form before it is decoded, and its response is converted back after
it is encoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Frame, ResponseEncoder
from llm_protocol.events import Event

FUNCTIONS = "functions"
"""`ClientRequest.form` of a request in this form."""


def form_of(body: JsonObject) -> str:
    """`FUNCTIONS` if the response must be in the deprecated form too, else the empty string."""
    return FUNCTIONS if body.get("functions") is not None or body.get("function_call") is not None else ""


def modernised(body: JsonObject) -> JsonObject:
    """Return the request in the current form. Malformed fields are not changed; the decoder refuses them."""
    found = {name: value for name, value in body.items() if name not in ("functions", "function_call")}
    functions, choice = body.get("functions"), body.get("function_call")
    if functions is not None and "tools" not in found:
        found["tools"] = (
            [{"type": "function", "function": each} for each in functions] if isinstance(functions, list) else functions
        )
        found.setdefault("parallel_tool_calls", False)
    if choice is not None:
        found["tool_choice"] = {"type": "function", "function": choice} if isinstance(choice, dict) else choice
    return found | {"messages": _modern_messages(body.get("messages"))}


def _modern_messages(messages: Any) -> Any:
    """The messages with calls and results in the current form. The deprecated form has no ids, so each result belongs
    to the call before it.
    """
    if not isinstance(messages, list):
        return messages
    found: list[Any] = []
    latest = ""
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            found.append(message)
        elif isinstance(call := message.get("function_call"), dict):
            latest = f"call_{at}"
            rest = {name: value for name, value in message.items() if name != "function_call"}
            found.append(rest | {"tool_calls": [{"id": latest, "type": "function", "function": call}]})
        elif message.get("role") == "function":
            rest = {name: value for name, value in message.items() if name != "name"}
            found.append(rest | {"role": "tool", "tool_call_id": latest or f"call_{at}"})
        else:
            found.append({name: value for name, value in message.items() if name != "function_call" or value})
    return found


def old_body(body: bytes) -> bytes:
    """A complete response, or a chunk of one, in the deprecated form."""
    answer = msgspec.json.decode(body)
    for choice in answer.get("choices", ()):
        part = choice.get("message") or choice.get("delta") or {}
        calls = part.pop("tool_calls", None) or ()
        for call in calls[:1]:
            if call.get("index", 0) == 0:
                part["function_call"] = call["function"]
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
    return encode_json(answer)


@final
class OldFormEncoder:
    """Converts the frames of another encoder to the deprecated form."""

    def __init__(self, encoder: ResponseEncoder) -> None:
        self._encoder = encoder

    def start(self) -> list[Frame]:
        """See `ResponseEncoder`."""
        return [_old(frame) for frame in self._encoder.start()]

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """See `ResponseEncoder`."""
        return [_old(frame) for frame in self._encoder.encode(events)]


def _old(frame: Frame) -> Frame:
    """Convert one frame. Most frames are text, and are not decoded again."""
    return frame._replace(data=old_body(frame.data)) if b'"tool_calls"' in frame.data else frame
