"""Every fault under every policy: a whole answer, or one honest error in time, and nothing left in any book.

Each row of `FAULTS` is a way to fail. It is asked once or lastingly, of a lone vendor or with a healthy one behind it,
streamed or whole, under each of the four policies for broken streams. `expected` is the promise in a dozen lines.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

import pytest
import trio
from trio.testing import MockClock

from llm_protocol.failures import RULES, FailureKind, Step
from llm_protocol.policy import OnBrokenStream
from support.attempts import (
    ANSWER,
    BEGUN,
    NAMED_CALL,
    TIMEOUTS,
    WORDS,
    Asked,
    Vendor,
    World,
    answer,
    answering,
    breaking,
    cost_of,
    error,
    reset,
    status,
    tokens,
    world,
)
from support.peer import Call, Script, close, raw, reply, sse, stall

K = FailureKind
DEADLINE = 60.0


class Fault(NamedTuple):
    """``alone`` and ``backed``: the calls when it lasts, to a lone vendor and with another at hand.

    ``stream``: whether it is one of a stream only, or of a whole answer only; None: of both.
    ``delivers``: some of the answer was delivered before. ``dial``: it is ``refused`` or ``dead``, else answers.
    """

    name: str
    script: Script
    kind: FailureKind
    alone: int = 3
    backed: int = 2
    stream: bool | None = None
    delivers: bool = False
    dial: str = ""

    def vendor(self, *, lasts: bool) -> Vendor:
        """One that fails like this, only the first time unless it ``lasts``."""
        if self.dial:
            return Vendor(self.script, bad_dials=math.inf if lasts else 1, dead=self.dial == "dead")
        return Vendor(self.script) if lasts else Vendor(self.script, answer)


async def _pings(call: Call) -> None:
    """Comments for ever: the connection lives, the answer does not."""
    await breaking()(call)
    while True:
        await trio.sleep(1)
        await call.send(b"8\r\n: ping\n\n\r\n")


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PART = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"id":'

FAULTS = [
    Fault("429", status(429), K.RATE_LIMITED, 3, 1),
    Fault("429 retry-after 1", status(429, retry_after="1"), K.RATE_LIMITED),
    Fault("429 retry-after-ms", status(429, retry_after_ms="1500"), K.RATE_LIMITED),
    Fault("429 retry-after 20", status(429, retry_after="20"), K.RATE_LIMITED, 2, 1),  # twice is more than wait_s
    Fault("429 retry-after 1e9", status(429, retry_after="1000000000"), K.RATE_LIMITED, 1, 1),
    Fault("500", status(500), K.SERVER_ERROR),
    Fault("502 page", reply(b"<html>bad gateway</html>", 502), K.SERVER_ERROR),
    Fault("503", status(503), K.OVERLOADED),
    Fault("503 retry-after 2", status(503, retry_after="2"), K.OVERLOADED),
    Fault("504", status(504), K.SERVER_ERROR),
    Fault("529", status(529), K.OVERLOADED),
    Fault("401", status(401), K.AUTH, 1, 1),
    Fault("403", status(403), K.AUTH, 1, 1),
    Fault("quota", status(429, error("insufficient_quota")), K.QUOTA, 1, 1),
    Fault("context length", status(400, error("context_length_exceeded")), K.CONTEXT_LENGTH, 1, 1),
    Fault("content filter", status(400, error("content_filter")), K.CONTENT_FILTER, 1, 1),
    Fault("bad request", status(400), K.BAD_REQUEST, 1, 1),
    Fault("no model", status(404, error("model_not_found")), K.MODEL_NOT_FOUND, 1, 1),
    Fault("refused", answer, K.NETWORK, dial="refused"),
    Fault("dead", answer, K.TIMEOUT_CONNECT, dial="dead"),
    Fault("closed before the head", close(), K.NETWORK),
    Fault("reset before the head", reset(), K.NETWORK),
    Fault("reset in the head", [raw(b"HTTP/1.1 200 OK\r\ncont"), reset()], K.NETWORK),
    Fault("garbled head", raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), K.PROTOCOL),
    Fault("error as 200", reply(b'{"error": {"message": "no", "code": "server_error"}}'), K.SERVER_ERROR),
    # a stream's own
    Fault("silent", stall(), K.TIMEOUT_FIRST_TOKEN, 1, 1, True),
    Fault("silent after the head", [raw(HEAD), stall()], K.TIMEOUT_FIRST_TOKEN, 1, 1, True),
    Fault("late first token", answering(late=TIMEOUTS.first_token + 1), K.TIMEOUT_FIRST_TOKEN, 1, 1, True),
    Fault("reset after the head", [raw(HEAD), reset()], K.NETWORK, stream=True),
    Fault("closed after the head", [raw(HEAD), close()], K.NETWORK, stream=True),
    Fault("empty stream", sse(), K.TRUNCATED, stream=True),
    Fault("end without an answer", sse("[DONE]"), K.TRUNCATED, stream=True),
    Fault("error first", sse('{"error": {"message": "no", "code": "overloaded"}}'), K.OVERLOADED, stream=True),
    Fault("garbled first", sse("{nonsense"), K.PROTOCOL, stream=True),
    Fault("cut", [breaking(), close()], K.NETWORK, stream=True, delivers=True),
    Fault("reset", [breaking(), reset()], K.NETWORK, stream=True, delivers=True),
    Fault("no end marker", breaking(end=True), K.TRUNCATED, stream=True, delivers=True),
    Fault("done without a reason", breaking("[DONE]", end=True), K.TRUNCATED, stream=True, delivers=True),
    Fault("stalled", [breaking(), stall()], K.TIMEOUT_IDLE, 1, 1, True, delivers=True),
    Fault("only pings", _pings, K.TIMEOUT_IDLE, 1, 1, True, delivers=True),
    Fault("garbled event", breaking("{nonsense"), K.PROTOCOL, stream=True, delivers=True),
    Fault("garbled chunk", [breaking(), raw(b"zz\r\n")], K.PROTOCOL, stream=True, delivers=True),
    Fault(
        "error inside",
        breaking('{"error": {"message": "no", "code": "server_error"}}'),
        K.SERVER_ERROR,
        stream=True,
        delivers=True,
    ),
    Fault(
        "filtered inside",
        breaking('{"error": {"message": "no", "code": "content_filter"}}'),
        K.CONTENT_FILTER,
        1,
        1,
        True,
        delivers=True,
    ),
    # an item was announced, and nothing of it said: no token has been delivered
    Fault("stalled behind a call's name", [breaking(NAMED_CALL, words=0), stall()], K.TIMEOUT_FIRST_TOKEN, 1, 1, True),
    Fault("cut behind a call's name", [breaking(NAMED_CALL, words=0), close()], K.NETWORK, stream=True),
    # a whole answer's own
    Fault("silent, whole", stall(), K.TIMEOUT_TOTAL, 1, 1, False),
    Fault("half a body, stalled", [raw(PART), stall()], K.TIMEOUT_TOTAL, 1, 1, False),
    Fault("half a body, closed", [raw(PART), close()], K.NETWORK, stream=False),
    Fault("half a body, reset", [raw(PART), reset()], K.NETWORK, stream=False),
    Fault("garbled body", reply(b"{nonsense"), K.PROTOCOL, stream=False),
    Fault("empty body", reply(b""), K.PROTOCOL, stream=False),
    Fault("no choices", reply(b'{"id": "c1", "choices": []}'), K.PROTOCOL, stream=False),
]
MODES: tuple[OnBrokenStream, ...] = get_args(OnBrokenStream)


CASES = [
    pytest.param(
        fault, stream, lasts, id=f"{fault.name}-{'stream' if stream else 'whole'}-{'lasting' if lasts else 'once'}"
    )
    for fault in FAULTS
    for stream in (True, False)
    for lasts in (True, False)
    if fault.stream in (stream, None) and (lasts or fault.alone > 1)  # who is asked once cannot tell
]


class Expected(NamedTuple):
    """Who answers (``""``: nobody), after how many calls to the faulty one."""

    who: str
    calls: int


def expected(fault: Fault, mode: OnBrokenStream, *, backed: bool, lasts: bool) -> Expected:
    """The promise. Nobody of the healthy ones refuses to go on with a text here."""
    stops = RULES[fault.kind].step is Step.STOP or (fault.delivers and mode == "error")
    if stops:
        return Expected("", 1)
    most = fault.backed if backed else fault.alone
    if not lasts and most > 1:
        return Expected("a", 2)
    return Expected("b" if backed else "", most)


@pytest.mark.parametrize("backed", [False, True], ids=["alone", "backed"])
@pytest.mark.parametrize(("fault", "stream", "lasts"), CASES)
async def test_every_fault_ends_in_a_whole_answer_or_one_honest_error(
    fault: Fault, stream: bool, lasts: bool, backed: bool, autojump_clock: MockClock
) -> None:
    for mode in MODES:
        vendors: dict[str, Any] = {"a": fault.vendor(lasts=lasts), **({"b": Vendor(answer)} if backed else {})}
        promise = expected(fault, mode, backed=backed, lasts=lasts)
        async with world(prefill="ab", **vendors) as w:
            with trio.fail_after(DEADLINE + 1):
                asked = await w.ask(stream=stream, on_broken_stream=mode, deadline_s=DEADLINE)
            await w.settled()

        where = f"{fault.name}, {mode}: {asked.outcomes()}"
        assert w["a"].calls == promise.calls, where
        assert (w["b"].calls if backed else 0) == (promise.who == "b"), where
        assert asked.calls == w.calls, where
        told(asked, fault, mode, promise, w, where)


def told(asked: Asked, fault: Fault, mode: OnBrokenStream, promise: Expected, w: World, where: str) -> None:
    response = asked.response
    failed = asked.attempts[:-1] if promise.who else asked.attempts
    for attempt in failed:
        assert attempt["outcome"] == fault.kind.value, where
        assert not (fault.dial and "usage" in attempt), f"what never left used nothing: {where}"
        if "usage" in attempt:
            assert attempt["usage"]["estimated"], where
    if promise.who:
        assert asked.failure is None, where
        assert (response.content, asked.text) == (ANSWER, ANSWER), where
        assert (response.provider, response.model) == (promise.who, f"m-{promise.who}"), where
        assert response.usage == tokens(promise.who), where
        assert response.cost == cost_of(promise.who, "", tokens(promise.who)), where
        return
    assert asked.failure is not None, where
    assert asked.failure.kind is fault.kind, where
    standing = BEGUN * (promise.calls if mode == "continue" else 1) if fault.delivers and mode != "buffer" else 0
    assert asked.text == response.content == "".join(WORDS[:standing]), where
    assert asked.failure.partial == bool(standing), where
    assert "stopped" in asked.decision, where


@pytest.mark.parametrize("deadline", [0.05, 4.5, 11.0])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_no_fault_outlasts_a_short_deadline(fault: Fault, deadline: float, autojump_clock: MockClock) -> None:
    """The last of the three vendors is too slow for any of these deadlines, so that time does run out."""
    async with world(a=fault.vendor(lasts=True), b=fault.vendor(lasts=True), c=Vendor(answering(late=12))) as w:
        with trio.fail_after(deadline + 1):
            asked = await w.ask(stream=fault.stream is not False, on_broken_stream="buffer", deadline_s=deadline)
        await w.settled()

    assert asked.took <= deadline
    assert asked.failure is not None
    assert asked.failure.kind in (fault.kind, K.DEADLINE, K.TIMEOUT_FIRST_TOKEN)
    assert asked.calls == w.calls
    assert (asked.text, asked.response.content) == ("", "")
