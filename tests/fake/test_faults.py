"""Every fault on every vendor's wire, through the runtime's own client: a typed failure each, never a whole answer and
never a hang.
"""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_protocol.content import Tool, ToolCall
from llm_protocol.events import Finished, ItemDone
from llm_protocol.failures import FailureKind
from llm_protocol.http1 import LAST_CHUNK
from llm_protocol.policy import Timeouts
from llm_protocol.requests import LLMProvider
from llm_runtime.fake import CallState, FakeProvider, FakeToolCall, Fault, ScriptRule
from llm_runtime.fake.delivery import (
    BOMB_DEPTH,
    BOMB_KEYS,
    BOMB_PIECE,
    GZIP_BYTES,
    DeliveryEnd,
    DeliveryPlan,
    Step,
    deliver,
)
from support.faking import SPEAKERS, ask, chat, failure, folded
from support.server import HttpClient

EVERY = pytest.mark.parametrize("kind", SPEAKERS)
BOTH = pytest.mark.parametrize("stream", [False, True])
BOMBS = {Fault.BOMB_LINE, Fault.BOMB_GZIP, Fault.BOMB_KEYS, Fault.BOMB_DEPTH}

STREAMED = {
    Fault.TRUNCATE: {FailureKind.TRUNCATED},
    Fault.NO_END: {FailureKind.TRUNCATED},
    Fault.CLOSE: {FailureKind.TRUNCATED, FailureKind.NETWORK},
    Fault.STALL: {FailureKind.TIMEOUT_IDLE},
    Fault.ERROR: {FailureKind.SERVER_ERROR},
    Fault.GARBAGE: {FailureKind.PROTOCOL},
}
WHOLE = {
    **STREAMED,
    Fault.TRUNCATE: {FailureKind.PROTOCOL, FailureKind.TRUNCATED},
    Fault.NO_END: {FailureKind.PROTOCOL, FailureKind.TRUNCATED},
    Fault.STALL: {FailureKind.TIMEOUT_TOTAL},
    Fault.ERROR: {FailureKind.SERVER_ERROR, FailureKind.PROTOCOL},  # Cohere's bare sentence is no error by itself
}
QUICK = Timeouts(first_token=8, idle=5, total=30)


@EVERY
@pytest.mark.parametrize("fault", STREAMED)
async def test_a_broken_stream_is_a_typed_failure(autojump_clock: MockClock, kind: LLMProvider, fault: Fault) -> None:
    async with FakeProvider(ScriptRule(fault=fault)) as fake:
        with trio.fail_after(60):
            broken = failure(await ask(fake, kind, chat(), stream=True, timeouts=QUICK))
        assert broken.kind in STREAMED[fault], broken


@EVERY
@pytest.mark.parametrize("fault", WHOLE)
async def test_a_broken_whole_answer_is_a_typed_failure(
    autojump_clock: MockClock, kind: LLMProvider, fault: Fault
) -> None:
    async with FakeProvider(ScriptRule(fault=fault)) as fake:
        with trio.fail_after(60):
            broken = failure(await ask(fake, kind, chat(), stream=False, timeouts=QUICK))
        assert broken.kind in WHOLE[fault], broken


@pytest.mark.parametrize("kind", [LLMProvider.OPENAI, LLMProvider.ANTHROPIC, LLMProvider.GEMINI, LLMProvider.COHERE])
@pytest.mark.parametrize("fault", sorted(BOMBS))
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_bomb_costs_little_and_is_a_typed_failure(
    autojump_clock: MockClock, kind: LLMProvider, fault: Fault, stream: bool
) -> None:
    """Less than 8 MiB, the fake's own part included."""
    async with FakeProvider(ScriptRule(fault=fault)) as fake:
        tracemalloc.start()
        try:
            broken = failure(await ask(fake, kind, chat(), stream=stream, timeouts=QUICK))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # What is too large is not asked for again; what cannot be read may be.
        is_large = fault in (Fault.BOMB_KEYS, Fault.BOMB_LINE)
        assert broken.kind is (FailureKind.ANSWER_TOO_LARGE if is_large else FailureKind.PROTOCOL)
        assert peak < 8 * 1024 * 1024


@EVERY
@pytest.mark.parametrize(
    ("status", "kind_of_failure"),
    [
        (400, FailureKind.BAD_REQUEST),
        (401, FailureKind.AUTH),
        (403, FailureKind.AUTH),
        (404, FailureKind.MODEL_NOT_FOUND),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (503, FailureKind.OVERLOADED),
    ],
)
async def test_a_status_comes_with_the_vendors_own_error(
    autojump_clock: MockClock, kind: LLMProvider, status: int, kind_of_failure: FailureKind
) -> None:
    async with FakeProvider() as fake:
        refused = failure(await ask(fake, kind, chat(model=f"fault-{status}"), stream=True))
        assert (refused.kind, refused.upstream_status) == (kind_of_failure, status)


@EVERY
@pytest.mark.parametrize("events", range(8))
async def test_a_call_that_is_cut_is_never_handed_over(
    autojump_clock: MockClock, kind: LLMProvider, events: int
) -> None:
    """Wherever the cut falls, the call is whole or not there; without the end marker it is a failure."""
    arguments = {"city": "Oslo", "days": 14}
    rule = ScriptRule(
        tool_calls=(FakeToolCall(name="weather", arguments=arguments),), fault=Fault.TRUNCATE, after_events=events
    )
    async with FakeProvider(rule) as fake:
        asked = await ask(fake, kind, chat(tools=(Tool(name="weather"),)), stream=True)
        parts = [event.part for event in asked.events if isinstance(event, ItemDone)]
        calls = [part.parsed() for part in parts if isinstance(part, ToolCall)]
        assert asked.outcome
        if isinstance(asked.outcome.end, Finished):
            assert calls == [arguments]
        else:
            assert failure(asked).kind is FailureKind.TRUNCATED
            assert calls in ([], [arguments])


@EVERY
async def test_retry_after_is_told_where_the_vendor_tells_it(autojump_clock: MockClock, kind: LLMProvider) -> None:
    async with FakeProvider(ScriptRule(status=429, retry_after=7)) as fake:
        assert failure(await ask(fake, kind, chat(), stream=False)).retry_after == 7


async def test_an_errors_body_and_headers_can_be_written_out(autojump_clock: MockClock) -> None:
    body = json.dumps({"error": {"message": "No more.", "type": "insufficient_quota", "code": "insufficient_quota"}})
    rule = ScriptRule(status=429, body=body, headers={"x-ratelimit-remaining-requests": "0"})
    async with FakeProvider(rule) as fake:
        asked = await ask(fake, LLMProvider.OPENAI, chat(), stream=True)
        assert failure(asked).kind is FailureKind.QUOTA
        assert asked.outcome
        assert asked.outcome.limits
        assert asked.outcome.limits.requests_remaining == 0


@EVERY
@BOTH
@pytest.mark.parametrize("size", [1, 2, 7])
async def test_an_answer_split_anywhere_is_the_same_answer(
    autojump_clock: MockClock, kind: LLMProvider, stream: bool, size: int
) -> None:
    async with FakeProvider(ScriptRule(text="Blåbær \U0001f600", split_bytes=size)) as fake:
        assert folded(await ask(fake, kind, chat(), stream=stream)).content == "Blåbær \U0001f600"


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (ScriptRule(delay_head_s=9), FailureKind.TIMEOUT_FIRST_TOKEN),
        (ScriptRule(delay_first_s=9), FailureKind.TIMEOUT_FIRST_TOKEN),
        (ScriptRule(delay_event_s=6), FailureKind.TIMEOUT_IDLE),
        (ScriptRule(fault=Fault.STALL, after_events=0), FailureKind.TIMEOUT_FIRST_TOKEN),
        (ScriptRule(fault=Fault.STALL, after_bytes=0), FailureKind.TIMEOUT_FIRST_TOKEN),
        (ScriptRule(fault=Fault.STALL, after_events=4), FailureKind.TIMEOUT_IDLE),
    ],
)
async def test_a_delay_is_where_it_was_put(autojump_clock: MockClock, rule: ScriptRule, kind: FailureKind) -> None:
    async with FakeProvider(rule) as fake:
        silent = failure(await ask(fake, LLMProvider.OPENAI, chat(), stream=True, timeouts=QUICK))
        assert silent.kind is kind
        (seen,) = fake.journal.requests
        assert seen.state is CallState.LEFT


async def test_delays_that_fit_only_cost_time(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(text="four", delay_head_s=1, delay_first_s=2, delay_event_s=0.5)) as fake:
        begun = trio.current_time()
        assert folded(await ask(fake, LLMProvider.OPENAI, chat(), stream=True)).content == "four"
        assert trio.current_time() - begun == pytest.approx(1 + 2 + 4 * 0.5, abs=0.2)  # role, text, reason, usage, DONE


@pytest.mark.parametrize("after", [0, 1, 100, 300])
async def test_a_cut_after_so_many_bytes_is_just_there(autojump_clock: MockClock, after: int) -> None:
    async with FakeProvider(ScriptRule(after_bytes=after)) as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            await client.begin("POST", "/v1/chat/completions", body)
            assert len(await client.until_closed()) == after


async def everything(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("rule", [ScriptRule(fault=Fault.RESET), ScriptRule(fault=Fault.RESET, after_bytes=0)])
async def test_a_reset_is_a_reset(rule: ScriptRule) -> None:
    """Over TCP: the client's kernel says ECONNRESET, not end of file."""
    async with FakeProvider(rule) as fake:
        stream = await trio.open_tcp_stream("127.0.0.1", fake.port)
        async with HttpClient(stream) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            await client.begin("POST", "/v1/chat/completions", body)
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                await everything(stream)


@EVERY
async def test_a_reset_in_the_middle_is_a_network_failure(kind: LLMProvider) -> None:
    async with FakeProvider(ScriptRule(fault=Fault.RESET)) as fake:
        broken = failure(await ask(fake, kind, chat(), stream=True, tcp=True))
        assert broken.kind in {FailureKind.NETWORK, FailureKind.TRUNCATED}


# ---------------------------------------------------------------- the plans

STREAM = DeliveryPlan(
    200, (), (b"data: a\n\n", b"data: b\n\n", b"data: [DONE]\n\n"), streamed=True, event=b"data: %b\n\n"
)
WHOLE_ANSWER = DeliveryPlan(200, (), (b"{}",))


def body_of(steps: Iterator[Step]) -> bytes:
    """What a plan sends, without its head and chunk frames."""
    sent = [step for step in steps if isinstance(step, bytes)][1:]
    return b"".join(step[step.index(b"\r\n") + 2 : -2] for step in sent if step != LAST_CHUNK)


def test_the_bombs_are_as_large_as_they_say() -> None:
    keys = body_of(deliver(STREAM, ScriptRule(fault=Fault.BOMB_KEYS), chunked=True))
    assert keys.count(b',"k') == BOMB_KEYS
    depth = body_of(deliver(STREAM, ScriptRule(fault=Fault.BOMB_DEPTH), chunked=True))
    assert depth.count(b"[" * BOMB_DEPTH) == 1
    squeezed = body_of(deliver(STREAM, ScriptRule(fault=Fault.BOMB_GZIP), chunked=True))
    assert len(squeezed) < 4 * 1024 * 1024
    assert len(gzip.decompress(squeezed)) == GZIP_BYTES + len(b"data: ")
    line = body_of(islice(deliver(STREAM, ScriptRule(fault=Fault.BOMB_LINE, after_events=0), chunked=True), 100))
    assert len(line) > 90 * BOMB_PIECE
    assert b"\n" not in line


@given(st.builds(ScriptRule, fault=st.none() | st.sampled_from([each for each in Fault if each not in BOMBS]),
                 after_events=st.none() | st.integers(0, 5), after_bytes=st.none() | st.integers(0, 400),
                 split_bytes=st.none() | st.integers(1, 9), delay_event_s=st.sampled_from([0.0, 1.0])),
       st.sampled_from([STREAM, WHOLE_ANSWER]), st.booleans())  # fmt: skip
def test_every_plan_ends_once_and_sends_nothing_empty(rule: ScriptRule, answer: DeliveryPlan, chunked: bool) -> None:
    steps = list(deliver(answer, rule, chunked=chunked))
    assert isinstance(steps[-1], DeliveryEnd)
    assert not any(isinstance(step, DeliveryEnd) for step in steps[:-1])
    assert b"" not in steps
    sent = b"".join(step for step in steps if isinstance(step, bytes))
    if rule.after_bytes is not None:
        assert len(sent) <= rule.after_bytes
    elif steps[-1] is DeliveryEnd.KEEP and answer.streamed:
        assert sent.endswith(LAST_CHUNK)
