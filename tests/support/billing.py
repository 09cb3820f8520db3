"""A vendor that keeps a journal of what it bills, on five wires, whatever becomes of the answer.

    ledger = Ledger()
    async with world(a=[billing(ledger, words=40, gap=0.1, fault="reset", after=10)], kinds={"a": "anthropic"}) as w:
        ...
    assert ledger.bills[0].output_tokens == 10

A word is one token. What it bills is what a vendor does: the prompt as soon as it is there, and each token of a stream
when it is made, hidden reasoning first; the tokens of an unstreamed answer when it is sent. A status is not billed. The
most tokens that the request allows are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
import trio

from support.peer import Call, Hangup, Step

Fault: TypeAlias = Literal["", "cut", "close", "stall", "error", "garbage", "no-count"]
"""What becomes of a stream after some words: a proper end of the body without the wire's, a closed connection, silence,
the wire's own error, bytes of no wire; or nothing, but that the final count is missing.
"""

WORD = "word"

TEMPLATE_TOKENS = 70
"""What Cohere's wire counts of a prompt beyond what it bills."""

_MARK = re.compile(rb"#(\d+)#")
"""A prompt with a number like this says whose it is."""


@dataclass
class Bill:
    """One request that was worked on."""

    vendor: str
    input_tokens: int
    output_tokens: int = 0
    is_final: bool = False
    """Whether the client was told the final count."""
    stream: bool = False
    most: int | None = None
    """The most tokens that the request allowed."""
    run: int = -1
    """The number in the prompt."""


@dataclass
class Ledger:
    """All bills of all vendors."""

    bills: list[Bill] = field(default_factory=list)

    def total(self) -> tuple[int, int]:
        """Input and output tokens of all."""
        return sum(bill.input_tokens for bill in self.bills), sum(bill.output_tokens for bill in self.bills)


def prompt_tokens(body: Any) -> int:
    """What a prompt takes here: four characters a token, and four tokens a message."""
    turns = body.get("messages") or body.get("contents") or body.get("input") or ()
    contents = [turn.get("content", turn.get("parts")) for turn in turns]
    system = body.get("system") or body.get("instructions") or (body.get("systemInstruction") or {}).get("parts")
    return max(1, math.ceil(sum(4 + len(_text(each)) / 4 for each in (*contents, *((system,) if system else ())))))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def most_tokens(body: Any) -> int | None:
    """How many tokens the answer may have."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if body.get(name) is not None:
            return int(body[name])
    most = (body.get("generationConfig") or {}).get("maxOutputTokens")
    return None if most is None else int(most)


def billing(
    ledger: Ledger,
    *,
    words: int = 20,
    hidden: int = 0,
    late: float = 0.0,
    gap: float = 0.0,
    fault: Fault = "",
    after: int = 0,
    keeps_limit: bool = True,
    text: str = WORD,
) -> Step:
    """Answer with ``words`` tokens after ``hidden`` ones that are not shown. ``fault`` comes after so many words, and
    only in streams. ``keeps_limit``: false for a server that ignores the most tokens it is asked for.
    """

    async def step(call: Call) -> None:
        assert call.request is not None
        body = msgspec.json.decode(call.request.body)
        wire = _wire_of(call.request.target, body)
        bill = Bill(call.request.headers["host"].partition(".")[0], 0, stream=wire.stream, most=most_tokens(body))
        ledger.bills.append(bill)
        admission = bill.most if keeps_limit and bill.most is not None else hidden + words
        bill.input_tokens = prompt_tokens(body)
        if (mark := _MARK.search(call.request.body)) is not None:
            bill.run = int(mark[1])
        if late:
            await trio.sleep(late)
        thought = min(hidden, admission)
        shown = min(words, admission - thought)
        full = thought + shown < hidden + words
        if not wire.stream:
            await trio.sleep(gap * (shown + thought))
            bill.output_tokens, bill.is_final = thought + shown, True
            await _send_whole(call, wire.whole(text * shown, bill, thought, full))
            return
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await _chunk(call, wire.begin(bill))
        bill.output_tokens = thought
        if gap and thought:
            await trio.sleep(gap)
        for nth in range(shown):
            if gap:
                await trio.sleep(gap)
            if fault not in ("", "no-count") and nth == after:
                await _break(call, wire, fault)
                return
            bill.output_tokens += 1
            await _chunk(call, wire.word(text))
        if fault not in ("", "no-count"):
            await _break(call, wire, fault)
            return
        bill.is_final = fault != "no-count"
        await _chunk(call, wire.end(bill if bill.is_final else None, thought, full))
        await call.send(b"0\r\n\r\n")

    return step


async def _break(call: Call, wire: _Wire, fault: Fault) -> None:
    match fault:
        case "cut":
            await call.send(b"0\r\n\r\n")
        case "stall":
            await trio.sleep_forever()
        case "error":
            await _chunk(call, wire.error())
            await call.send(b"0\r\n\r\n")
        case "garbage":
            await _chunk(call, b"data: {]\n\n")
            await call.send(b"0\r\n\r\n")
        case _:
            call.socket.close()
            await trio.lowlevel.checkpoint()
            raise Hangup


async def _chunk(call: Call, data: bytes) -> None:
    await call.send(b"%x\r\n%b\r\n" % (len(data), data))


async def _send_whole(call: Call, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    await call.send(head + body)


def _wire_of(target: str, body: Mapping[str, Any]) -> _Wire:
    if target.endswith("/v2/chat"):
        return _Cohere(stream=bool(body.get("stream")))
    if target.endswith("/responses"):
        return _Responses(stream=bool(body.get("stream")))
    if target.endswith("/messages"):
        return _Anthropic(stream=bool(body.get("stream")))
    if ":" in target:
        return _Gemini(stream="stream" in target)
    return _Chat(stream=bool(body.get("stream")))


def _sse(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events)


class _Chat:
    def __init__(self, *, stream: bool) -> None:
        self.stream = stream

    def begin(self, bill: Bill) -> bytes:
        return _sse(_choice({"role": "assistant", "content": ""}))

    def word(self, text: str) -> bytes:
        return _sse(_choice({"content": text}))

    def end(self, bill: Bill | None, thought: int, full: bool) -> bytes:
        last = {"id": "c", "model": "m", "choices": []}
        counted = [] if bill is None else [last | {"usage": self._usage(bill, thought)}]
        return _sse(_choice({}, "length" if full else "stop"), *counted) + b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return _sse({"error": {"message": "no", "type": "server_error", "code": "server_error"}})

    def whole(self, text: str, bill: Bill, thought: int, full: bool) -> bytes:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if full else "stop",
        }
        return msgspec.json.encode({"id": "c", "model": "m", "choices": [choice], "usage": self._usage(bill, thought)})

    def _usage(self, bill: Bill, thought: int) -> dict[str, Any]:
        return {
            "prompt_tokens": bill.input_tokens,
            "completion_tokens": bill.output_tokens,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }


def _choice(delta: Any, finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class _Anthropic:
    def __init__(self, *, stream: bool) -> None:
        self.stream = stream

    def begin(self, bill: Bill) -> bytes:
        message = {"id": "msg", "model": "m", "usage": {"input_tokens": bill.input_tokens, "output_tokens": 1}}
        block = {"type": "text", "text": ""}
        return _sse(
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
        )

    def word(self, text: str) -> bytes:
        return _sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})

    def end(self, bill: Bill | None, thought: int, full: bool) -> bytes:
        delta = {"type": "message_delta", "delta": {"stop_reason": "max_tokens" if full else "end_turn"}}
        usage = {"output_tokens": bill and bill.output_tokens, "output_tokens_details": {"thinking_tokens": thought}}
        counted = {} if bill is None else {"usage": usage}
        return _sse({"type": "content_block_stop", "index": 0}, delta | counted, {"type": "message_stop"})

    def error(self) -> bytes:
        return _sse({"type": "error", "error": {"type": "overloaded_error", "message": "no"}})

    def whole(self, text: str, bill: Bill, thought: int, full: bool) -> bytes:
        return msgspec.json.encode(
            {
                "id": "msg",
                "type": "message",
                "model": "m",
                "content": [{"type": "text", "text": text}],
                "stop_reason": "max_tokens" if full else "end_turn",
                "usage": {
                    "input_tokens": bill.input_tokens,
                    "output_tokens": bill.output_tokens,
                    "output_tokens_details": {"thinking_tokens": thought},
                },
            }
        )


class _Gemini:
    def __init__(self, *, stream: bool) -> None:
        self.stream = stream

    def begin(self, bill: Bill) -> bytes:
        return _sse({"responseId": "r", "usageMetadata": {"promptTokenCount": bill.input_tokens}})

    def word(self, text: str) -> bytes:
        return _sse({"candidates": [{"content": {"parts": [{"text": text}]}}]})

    def end(self, bill: Bill | None, thought: int, full: bool) -> bytes:
        last: dict[str, Any] = {"candidates": [{"finishReason": "MAX_TOKENS" if full else "STOP"}]}
        return _sse(last if bill is None else last | self._usage(bill, thought))

    def error(self) -> bytes:
        return _sse({"error": {"code": 503, "status": "UNAVAILABLE", "message": "no"}})

    def whole(self, text: str, bill: Bill, thought: int, full: bool) -> bytes:
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": "MAX_TOKENS" if full else "STOP"}
        return msgspec.json.encode({"responseId": "r", "candidates": [candidate], **self._usage(bill, thought)})

    def _usage(self, bill: Bill, thought: int) -> dict[str, Any]:
        return {
            "usageMetadata": {
                "promptTokenCount": bill.input_tokens,
                "candidatesTokenCount": bill.output_tokens - thought,
                "thoughtsTokenCount": thought,
            }
        }


class _Cohere:
    """It counts its own template too, and does not bill it."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream

    def begin(self, bill: Bill) -> bytes:
        return _sse(
            {"type": "message-start", "id": "r", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        )

    def word(self, text: str) -> bytes:
        return _sse({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}})

    def end(self, bill: Bill | None, thought: int, full: bool) -> bytes:
        delta: dict[str, Any] = {"finish_reason": "MAX_TOKENS" if full else "COMPLETE"}
        counted = {} if bill is None else self._usage(bill, thought)
        return _sse({"type": "content-end", "index": 0}, {"type": "message-end", "delta": delta | counted})

    def error(self) -> bytes:
        return _sse({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "no"}})

    def whole(self, text: str, bill: Bill, thought: int, full: bool) -> bytes:
        message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        reason = "MAX_TOKENS" if full else "COMPLETE"
        return msgspec.json.encode(
            {"id": "r", "message": message, "finish_reason": reason, **self._usage(bill, thought)}
        )

    def _usage(self, bill: Bill, thought: int) -> dict[str, Any]:
        counted = {"input_tokens": bill.input_tokens + TEMPLATE_TOKENS, "output_tokens": bill.output_tokens}
        return {
            "usage": {
                "billed_units": {"input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens},
                "tokens": counted | {"reasoning_tokens": thought},
            }
        }


class _Responses:
    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self._said: list[str] = []

    def begin(self, bill: Bill) -> bytes:
        return _sse(
            {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": _message("", "in_progress")},
            {
                "type": "response.content_part.added",
                "output_index": 0,
                "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": []},
            },
        )

    def word(self, text: str) -> bytes:
        self._said.append(text)
        return _sse({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text})

    def end(self, bill: Bill | None, thought: int, full: bool) -> bytes:
        response = self._response("".join(self._said), bill, thought, full)
        [item] = response["output"]
        return _sse(
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.incomplete" if full else "response.completed", "response": response},
        )

    def error(self) -> bytes:
        return _sse({"type": "error", "code": "server_error", "message": "no"})

    def whole(self, text: str, bill: Bill, thought: int, full: bool) -> bytes:
        return msgspec.json.encode(self._response(text, bill, thought, full))

    def _response(self, text: str, bill: Bill | None, thought: int, full: bool) -> dict[str, Any]:
        status = "incomplete" if full else "completed"
        output = [_message(text, status)]
        response: dict[str, Any] = {"id": "r", "model": "m", "status": status, "output": output}
        if full:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        if bill is not None:
            response["usage"] = {
                "input_tokens": bill.input_tokens,
                "output_tokens": bill.output_tokens,
                "output_tokens_details": {"reasoning_tokens": thought},
            }
        return response


def _message(text: str, status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "m", "role": "assistant", "status": status, "content": [part]}


_Wire: TypeAlias = _Chat | _Anthropic | _Gemini | _Cohere | _Responses


def told_attempts(decision: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All attempts of which a decision record tells, the members' too."""
    yield from decision.get("attempts", ())
    for member in decision.get("members", ()):
        yield from member["attempts"]
