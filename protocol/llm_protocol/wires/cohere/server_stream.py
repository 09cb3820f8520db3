"""Encode a response for a client of Cohere's v2 API, streamed or whole."""

from __future__ import annotations

from typing import final

from llm_protocol.codec.fields import own_fields
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.response_encoding import StreamEncoder, runtime_fields
from llm_protocol.content import JsonObject, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import Delta, Failed, Finished, ItemDone, ItemStarted
from llm_protocol.extra_fields import filled, merge
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.cohere.content import (
    TOOL_PLAN,
    answer_citations,
    encode_block,
    encode_tool_call,
    normal_arguments,
)
from llm_protocol.wires.cohere.shapes import NAME, REASONS

_REASONS = {
    FinishReason.STOP: "COMPLETE",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "TOOL_CALL",
    FinishReason.CONTENT_FILTER: "ERROR",  # clients know no other values, and this is not an ordinary end
    FinishReason.UNKNOWN: "COMPLETE",  # clients know no other values
    FinishReason.ERROR: "ERROR",
}
_DONE = Frame(None, b"[DONE]")


class _Open:
    """An item on the wire: the list that contains it, and its position in that list."""

    __slots__ = ("number", "place")

    def __init__(self, place: str, number: int) -> None:
        self.place = place
        self.number = number


@final
class CohereEncoder(StreamEncoder):
    """Encodes one streamed response."""

    def __init__(self, inbound: ClientRequest, response_id: str) -> None:
        super().__init__(inbound, response_id)
        self._told_start = False
        self._refused = False
        self._open: dict[int, _Open] = {}
        self._numbers = {"text": 0, "call": 0, "citation": 0}
        self._kept_usage: JsonObject = {}

    def _fields_added(self, dialect: str, fields: dict[str, JsonObject]) -> None:
        if dialect != NAME:
            return
        merge(self._kept_usage, fields.get("usage", {}))
        for item in [item for item in self._open.values() if item.place == "text"][:1]:
            for logprobs in fields.get("body", {}).get("logprobs", ()):
                self._emit("content-delta", item, {"content": {"text": ""}}, logprobs=logprobs)

    def _started(self) -> None:
        self._tell_start()

    def _item_started(self, event: ItemStarted) -> None:
        match event.kind:
            case "text" | "refusal":
                self._refused |= event.kind == "refusal"
                self._start_content(event.index, "text")
            case "reasoning" if event.id == TOOL_PLAN:
                self._open[event.index] = _Open("plan", 0)
            case "reasoning":
                self._start_content(event.index, "thinking")
            case "tool_call":
                item = self._open[event.index] = _Open("call", self._next("call"))
                function = {"name": event.name or "", "arguments": ""}
                own = own_fields(event.extra, NAME)
                call = {**own, "id": event.id or "", "type": "function", "function": function}
                self._emit("tool-call-start", item, {"tool_calls": call})
            case _:
                pass  # images and opaque blocks have no place in a response of this wire

    def _start_content(self, index: int, type_: str) -> None:
        item = self._open[index] = _Open(type_, self._next("text"))
        self._emit("content-start", item, {"content": {"type": type_, type_: ""}})

    def _next(self, counter: str) -> int:
        number = self._numbers[counter]
        self._numbers[counter] += 1
        return number

    def _delta(self, event: Delta, count: int) -> None:  # noqa: ARG002
        if (item := self._open.get(event.index)) is None:
            return
        match item.place:
            case "text" | "thinking" as place:
                # This frame is sent thousands of times per response, so it is formatted by hand.
                data = b'{"type":"content-delta","index":%d,"delta":{"message":{"content":{"%b":%b}}}}'
                values = (item.number, place.encode(), encode_json(event.text))
                self._frames.append(Frame("content-delta", data % values))
            case "call":
                self._emit("tool-call-delta", item, {"tool_calls": {"function": {"arguments": event.text}}})
            case _:
                plan = {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": event.text}}}
                self._frames.append(Frame("tool-plan-delta", encode_json(plan)))

    def _whole_text(self, part: Part) -> str:
        return normal_arguments(part.arguments) if isinstance(part, ToolCall) else super()._whole_text(part)

    def _item_done(self, event: ItemDone) -> None:
        item = self._open.pop(event.index, None)
        if item is None:
            return
        if item.place == "call":
            self._emit("tool-call-end", item)
        elif item.place != "plan":
            self._tell_citations(item, event.part)
            self._emit("content-end", item)

    def _tell_citations(self, item: _Open, part: Part) -> None:
        for citation in answer_citations(part, item.number) if isinstance(part, Text) else ():
            if isinstance(citation, dict) and "content_index" in citation:
                citation = {**citation, "content_index": item.number}
            number = _Open("citation", self._next("citation"))
            self._emit("citation-start", number, {"citations": citation})
            self._emit("citation-end", number)

    def _finished(self, event: Finished) -> None:
        self._tell_start()
        for item in self._open.values():  # an incomplete item stays as it is
            if item.place != "plan":
                self._emit("tool-call-end" if item.place == "call" else "content-end", item)
        self._open.clear()
        reason = raw_reason(event.reason, event.raw_reason, refused=self._refused)
        usage = filled(encode_usage(self._usage), self._kept_usage)
        self._tell_end({"finish_reason": reason, "usage": usage}, event.response)

    def _failed(self, event: Failed) -> None:
        self._tell_start()
        error = {"error": event.failure.message, "error_type": event.failure.rule.code}
        self._tell_end({"finish_reason": "ERROR", "usage": encode_usage(self._usage), **error}, None)

    def _tell_end(self, delta: JsonObject, response: LLMResponse | None) -> None:
        end = encode_json({"type": "message-end", "delta": delta})
        self._frames.append(Frame("message-end", runtime_fields(end, response, wanted=self._wants_runtime_fields)))
        self._frames.append(_DONE)

    def _tell_start(self) -> None:
        if not self._told_start:
            self._told_start = True
            message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            start = {"id": self._id, "type": "message-start", "delta": {"message": message}}
            self._frames.append(Frame("message-start", encode_json(start)))

    def _emit(self, event: str, item: _Open, message: JsonObject | None = None, **more: object) -> None:
        self._tell_start()
        delta = {} if message is None else {"delta": {"message": message}}
        self._frames.append(Frame(event, encode_json({"type": event, "index": item.number, **delta, **more})))


def encode_whole(response: LLMResponse) -> bytes:
    """The body of a whole response."""
    message: JsonObject = {"role": "assistant"}
    thoughts = [part for part in response.output if isinstance(part, Reasoning)]
    if plan := "".join(part.text for part in thoughts if part.id == TOOL_PLAN and part.dialect == NAME):
        message["tool_plan"] = plan
    shown = [(part, block) for part in response.output if (block := _answer_block(part)) is not None]
    if shown:
        message["content"] = [block for _, block in shown]
    if response.tool_calls:
        message["tool_calls"] = [encode_tool_call(call) for call in response.tool_calls]
    texts = [(at, part) for at, (part, _) in enumerate(shown) if isinstance(part, Text)]
    if citations := [cited for at, part in texts for cited in answer_citations(part, at)]:
        message["citations"] = citations
    finish = response.finish_reason or FinishReason.STOP
    reason = raw_reason(finish, response.raw_finish_reason, refused=bool(response.refusal))
    kept = response.extra.get(NAME, {})
    usage = filled(encode_usage(response.usage), kept.get("usage"))
    answer = {"id": response.response_id, "message": message, "finish_reason": reason, "usage": usage}
    return encode_json({**answer, **kept.get("body", {})})


def _answer_block(part: Part) -> JsonObject | None:
    match part:
        case Reasoning():
            planned = part.id == TOOL_PLAN and part.dialect == NAME
            return {"type": "thinking", "thinking": part.text} if part.text and not planned else None
        case ToolCall() | ToolResult():
            return None
        case Opaque() if part.dialect != NAME:
            return None
        case _:
            return encode_block(part, "output")


def raw_reason(reason: FinishReason, raw: str | None, *, refused: bool) -> str:
    """The finish reason on the wire: Cohere's own if Cohere sent one. A refusal is an ordinary end; filtered output
    without a refusal is an error.
    """
    if refused and reason is FinishReason.CONTENT_FILTER:
        return "COMPLETE"
    return raw if raw is not None and REASONS.get(raw) == reason else _REASONS[reason]


def encode_usage(usage: Usage | None) -> JsonObject:
    """Token counts in the wire's two forms: as the model saw them, and as billed."""
    if usage is None:
        return {}
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    billed = {
        "input_tokens": usage.input_tokens if usage.billed_input_tokens is None else usage.billed_input_tokens,
        "output_tokens": usage.output_tokens if usage.billed_output_tokens is None else usage.billed_output_tokens,
    }
    if usage.reasoning_tokens:
        tokens["reasoning_tokens"] = usage.reasoning_tokens
    return {"billed_units": billed, "tokens": tokens, "cached_tokens": usage.cached_tokens}
