"""The pure parts: lanes, the shelf, recent responses, wakers, the request parser."""

from __future__ import annotations

from collections import deque

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_actors.run import Run
from llm_protocol.content import Message
from llm_protocol.dialect import ClientRequest
from llm_protocol.events import TextDelta
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.http1 import encode_chunk
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.responses import ResponseOptions
from llm_runtime.config import ServerLimits
from llm_runtime.server.http1 import RequestParser, encode_head
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import RECENT_RESPONSES
from llm_runtime.server.response_store import Recent, ResponseStore, StoredResponse
from llm_runtime.server.subscription import WakeupEvent
from llm_runtime.server.turn_queue import Lanes

LIMITS = ServerLimits()
NAMES = st.sampled_from([None, *(f"l{number}" for number in range(LIMITS.websocket_lanes + 4))])


class LaneMachine(RuleBasedStateMachine):
    """Lanes against a model: FIFO in a lane, at most one active in a lane, at most 16 in all, nothing lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[int] = Lanes(LIMITS)
        self.queued: dict[str | None, deque[int]] = {None: deque()}
        self.active: dict[str | None, int] = {}
        self.next = 0

    @rule(name=NAMES)
    def admit(self, name: str | None) -> None:
        self.next += 1
        full = len(self.queued.get(name, ())) >= LIMITS.websocket_queue
        strange = name not in self.queued and len(self.queued) > LIMITS.websocket_lanes
        if full or strange:
            with pytest.raises(HttpError):
                self.lanes.admit(name, self.next)
        else:
            self.lanes.admit(name, self.next)
            self.queued.setdefault(name, deque()).append(self.next)

    @rule()
    def start(self) -> None:
        for item in self.lanes.start():
            name = next(name for name, queue in self.queued.items() if queue and queue[0] == item)
            assert name not in self.active
            self.queued[name].popleft()
            self.active[name] = item
        idle = [name for name, queue in self.queued.items() if queue and name not in self.active]
        assert not idle or len(self.active) == LIMITS.websocket_responses

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.active, key=str)))
        self.lanes.end(name)
        del self.active[name]

    @rule()
    def clear(self) -> None:
        assert sorted(self.lanes.clear()) == sorted(item for queue in self.queued.values() for item in queue)
        for queue in self.queued.values():
            queue.clear()

    @invariant()
    def agree(self) -> None:
        assert len(self.active) <= LIMITS.websocket_responses
        assert all(self.lanes.active(name) == self.active.get(name) for name in self.queued)
        assert self.lanes.idle == (not self.active and not any(self.queued.values()))


TestLanes = LaneMachine.TestCase


def make_stored(*, store: bool = True, caller: str = "", size: int = 0) -> StoredResponse:
    request = ChatRequest(messages=(Message.of("user", "hi"),), caller=caller)
    return StoredResponse(
        Run(request, stream=True), ClientRequest(request), ResponseOptions(store=store), request.messages, size
    )


def end(response: StoredResponse) -> None:
    response.run.log.append(TextDelta(0, "x"))
    response.run.fail(Failure(kind=FailureKind.INTERNAL, message="over"))


async def test_the_shelf_keeps_what_is_stored_for_its_time() -> None:
    response_store, stored, unstored = ResponseStore(LIMITS), make_stored(), make_stored(store=False)
    for each in (stored, unstored):
        response_store.put(each)
        response_store.tick(0)
        assert response_store.find(each.id, "") is each is response_store.find_live(each.id, "")
        end(each)
        assert response_store.find_live(each.id, "") is None
    assert response_store.find(unstored.id, "") is None
    response_store.tick(LIMITS.stored_s - 1)
    assert response_store.find(stored.id, "") is stored
    response_store.tick(LIMITS.stored_s)
    assert response_store.find(stored.id, "") is None


async def test_the_shelf_keeps_to_its_bytes_and_the_newest() -> None:
    response_store = ResponseStore(LIMITS)
    responses = [make_stored(size=LIMITS.stored_bytes // 4) for _ in range(6)]
    for now, each in enumerate(responses):
        response_store.put(each)
        end(each)
        response_store.tick(now)
    assert [response_store.find(each.id, "") is not None for each in responses] == [False] * 3 + [True] * 3
    response_store.drop(responses[-1])
    response_store.drop(responses[-1])
    assert response_store.find(responses[-1].id, "") is None
    late = make_stored(size=LIMITS.stored_bytes // 4)
    response_store.put(late)
    end(late)
    response_store.tick(10)
    assert response_store.find(responses[3].id, "") is not None, "what was dropped made room"


@pytest.mark.parametrize(("more", "is_kept"), [(0, True), (1, False)])
async def test_all_that_is_stored_has_so_many_bytes(more: int, is_kept: bool) -> None:
    response_store = ResponseStore(LIMITS)
    first, second = make_stored(size=1_000_000), make_stored()
    for each in (first, second):
        end(each)
    second.asked_bytes = LIMITS.stored_bytes - first.weight - second.weight + more
    for now, each in enumerate((first, second)):
        response_store.put(each)
        response_store.tick(now)
    assert response_store.find(second.id, "") is second
    assert (response_store.find(first.id, "") is first) == is_kept


async def test_a_connection_remembers_the_recently_used() -> None:
    recent = Recent(ResponseStore(LIMITS))
    first, *others = [make_stored() for _ in range(RECENT_RESPONSES + 1)]
    recent.add(first)
    for each in others[:-1]:
        recent.add(each)
    assert recent.get(first.id) is first
    recent.add(others[-1])
    assert recent.get(first.id) is first
    assert recent.get(others[0].id) is None


async def test_a_waker_remembers_one_call() -> None:
    waker = WakeupEvent()
    waker.wake()
    waker.wake()
    await waker.wait()
    with trio.move_on_after(0) as scope:
        await waker.wait()
    assert scope.cancelled_caught


HEADS = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /b?c=d HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nh\nllo",
        b"POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ]
)


@given(st.lists(HEADS, min_size=1, max_size=5), st.data())
def test_any_split_of_pipelined_requests_reads_alike(requests: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(requests)
    parser, found = RequestParser(), []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        parser.feed(whole[at : at + size])
        at += size
        while (request := parser.next()) is not None:
            found.append((request.method, request.path, request.query, request.body, request.keep_alive))
    reference = []
    for each in requests:
        one = RequestParser()
        one.feed(each)
        request = one.next()
        assert request is not None
        reference.append((request.method, request.path, request.query, request.body, request.keep_alive))
    assert found == reference


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("length", [None, 0, 5])
def test_heads_and_chunks_are_what_h11_reads(close: bool, length: int | None) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    body = b"" if length == 0 else b"hello"
    client.receive_data(encode_head(200, [("a", "b")], close=close, length=length))
    client.receive_data(encode_chunk(body) + b"0\r\n\r\n" if length is None and not close else body)
    client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert dict(head.headers)[b"a"] == b"b"
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert got == body
