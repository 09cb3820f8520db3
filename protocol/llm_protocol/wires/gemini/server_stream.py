"""Encode a response for a client of Gemini, as a stream of chunks or whole."""

from __future__ import annotations

from typing import final

import msgspec

from llm_protocol.codec.citations import to_gemini
from llm_protocol.codec.fields import own_fields
from llm_protocol.codec.json import encode_json
from llm_protocol.codec.logprobs import to_gemini as logprobs_to_gemini
from llm_protocol.codec.response_encoding import StreamEncoder, runtime_fields
from llm_protocol.content import Image, JsonObject, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from llm_protocol.dialect import ClientRequest, Frame
from llm_protocol.events import Delta, Failed, Finished, ItemDone, ReasoningDelta, ToolCallDelta
from llm_protocol.extra_fields import filled
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_protocol.wires.gemini import errors
from llm_protocol.wires.gemini.content import encode_part, pack
from llm_protocol.wires.gemini.shapes import (
    BLOCK_REASONS,
    ERROR_REASONS,
    FINISH_REASONS,
    NAME,
    SENT_REASONS,
    TOKENS_DETAILS,
)


@final
class GeminiEncoder(StreamEncoder):
    """Turns the events of one run into chunks. Text is sent as it arrives; everything else is sent when the item is
    complete.
    """

    def __init__(self, inbound: ClientRequest, response_id: str) -> None:
        super().__init__(inbound, response_id)
        self._started()

    def _started(self) -> None:
        self._tail = b'],"role":"model"},"index":0}],"modelVersion":%b,"responseId":%b}' % (
            encode_json(self._model),
            encode_json(self._id),
        )

    def _delta(self, event: Delta, count: int) -> None:  # noqa: ARG002
        if isinstance(event, ReasoningDelta):
            self._add_part(b'{"text":%b,"thought":true}' % encode_json(event.text))
        elif not isinstance(event, ToolCallDelta):  # this wire sends calls only complete
            self._add_part(b'{"text":%b}' % encode_json(event.text))

    def _item_done(self, event: ItemDone) -> None:
        for wire in self._rest_of(event):
            self._add_part(encode_json(wire))

    def _finished(self, event: Finished) -> None:
        assert event.response is not None, "the last event must contain the complete response"
        last = encode_json(_last_chunk(event.response, self._id, []))
        self._frames.append(Frame(None, runtime_fields(last, event.response, wanted=self._wants_runtime_fields)))

    def _failed(self, event: Failed) -> None:
        self._frames.append(Frame(None, encode_json(errors.error_object(event.failure))))

    def _add_part(self, part: bytes) -> None:
        self._frames.append(Frame(None, b'{"candidates":[{"content":{"parts":[' + part + self._tail))

    def _whole_text(self, part: Part) -> str:  # noqa: ARG002
        return ""  # a part that is not streamed is sent in one chunk, with its signature

    def _rest_of(self, event: ItemDone) -> list[JsonObject]:
        """Return the parts of a complete item that its deltas did not contain."""
        part = event.part
        if event.index not in self._streamed or isinstance(part, ToolCall):
            return _parts(part)
        if isinstance(part, Reasoning) and (pack(part) is not None or own_fields(part.extra, NAME)):
            return _parts(msgspec.structs.replace(part, text=""))
        if isinstance(part, Text) and (part.signature is not None or own_fields(part.extra, NAME)):
            signature = {} if part.signature is None else {"thoughtSignature": part.signature}
            return [{**own_fields(part.extra, NAME), "text": "", **signature}]
        return []


def encode_whole(response: LLMResponse) -> bytes:
    """The body of a whole response."""
    parts = [wire for part in response.output for wire in _parts(part)]
    return encode_json(_last_chunk(response, response.response_id, parts))


def _parts(part: Part) -> list[JsonObject]:
    """A part of a response as a list of one wire part; empty if the wire has no equivalent."""
    match part:
        case Reasoning():
            signature = pack(part)
            thought: JsonObject = {**own_fields(part.extra, NAME), "text": part.text, "thought": True}
            return [thought | ({"thoughtSignature": signature} if signature else {})]
        case ToolResult():
            return []
        case Opaque() if part.dialect != NAME:
            return []
        case ToolCall():
            return [encode_part(part, "")] if _has_object(part) else []
        case Image() if part.url is not None:
            return [{"fileData": {"fileUri": part.url}}]
    return [encode_part(part, "")]


def _has_object(call: ToolCall) -> bool:
    """Whether the arguments are an object, which Gemini's clients require. If not, the response ends with
    MALFORMED_FUNCTION_CALL.
    """
    try:
        call.parsed()
    except ValueError:
        return False
    return True


def _last_chunk(response: LLMResponse, response_id: str, parts: list[JsonObject]) -> JsonObject:
    word, blocked = _finish_word(response)
    kept = response.extra.get(NAME, {})
    chunk: JsonObject = {}
    feedback = kept.get("feedback", {})
    if blocked:
        chunk["promptFeedback"] = {**feedback, "blockReason": word}
    else:
        content = {"parts": parts, "role": "model"} if parts else {"role": "model"}
        chunk["candidates"] = [{**_fields(response), "content": content, "finishReason": word, "index": 0}]
        if feedback:
            chunk["promptFeedback"] = feedback
    chunk |= kept.get("chunk", {})
    usage, more = _usage(response.usage or Usage()), kept.get("usage", {})
    if TOKENS_DETAILS in more:
        usage.pop(TOKENS_DETAILS, None)  # the vendor's own counts are more detailed
    if isinstance(tools := more.get("toolUsePromptTokenCount"), int):
        usage["promptTokenCount"] -= tools  # our output count includes thoughts, but Google's clients add the two
    chunk["usageMetadata"] = filled(usage, more)
    chunk["modelVersion"] = response.model
    chunk["responseId"] = response_id
    return chunk


def _fields(response: LLMResponse) -> JsonObject:
    """The fields of a candidate besides its content: Gemini's own, or another provider's citations and log
    probabilities in Gemini's form.
    """
    own = response.extra.get(NAME, {}).get("candidate")
    if own is not None:
        return own
    texts = [part for part in response.output if isinstance(part, Text)]
    grounding = to_gemini([(text.text, text.citations) for text in texts])
    logprobs = [each for text in texts for each in text.logprobs]
    fields: JsonObject = {} if grounding is None else {"groundingMetadata": grounding}
    return fields | {"logprobsResult": logprobs_to_gemini(logprobs)} if logprobs else fields


def _finish_word(response: LLMResponse) -> tuple[str, bool]:
    """Return Gemini's finish reason, and whether it means a blocked prompt."""
    if not all(_has_object(call) for call in response.tool_calls):
        return "MALFORMED_FUNCTION_CALL", False
    reason, raw = response.finish_reason or FinishReason.STOP, response.raw_finish_reason or ""
    if FINISH_REASONS.get(raw) is reason or (raw in ERROR_REASONS and reason is FinishReason.ERROR):
        return raw, False
    if raw in BLOCK_REASONS and reason is FinishReason.CONTENT_FILTER and not response.output:
        return raw, True
    return SENT_REASONS[reason], False


def _usage(usage: Usage) -> JsonObject:
    counts: JsonObject = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.image_tokens:
        counts[TOKENS_DETAILS] = [{"modality": "IMAGE", "tokenCount": usage.image_tokens}]
    return counts
