"""Random responses whose readers are cut off at random bytes and come back, over HTTP and WebSocket.

Each response has one client that asked for it and five that follow it by its id. All of them lose their connections
again and again, by FIN or RST, in the middle of whatever was being sent, and go on after the last number that they had
whole. However the response ends, what each of them has in the end is the stream: no event is missing, doubled, changed
or out of order. The stream is what the run's log says when it is encoded event by event.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from bench._storm.clients import unchunked
from llm_actors.run import Run
from llm_protocol.content import Part, Reasoning, Text, ToolCall
from llm_protocol.events import (
    ANY_DELTAS,
    Event,
    Finished,
    MemberDelta,
    MemberStarted,
    Restarted,
    Started,
    UsageReported,
    count_pieces,
    cut,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.fold import item_events
from llm_protocol.response import FinishReason, Usage
from llm_runtime.server.stored import RESPONSES
from support.server import OpenServer, open_server
from support.ws import MORE, TEXT, frame, handshake

FOLLOWERS = 5
AT_ONCE = 6
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@dataclass
class Tally:
    """What came of it."""

    responses: int = 0
    cuts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


# -- what is answered --------------------------------------------------------------------------------------------------


def _plan(random: Random) -> Iterator[Event]:
    """An answer of several parts, some of them without an end, perhaps begun twice, with members beside."""
    yield Started(model="fake-1", provider="fake")
    for member in "ab":
        yield MemberStarted(member=member, request_id=f"r_{member}")
    for number in range(random.randint(0, 12)):
        yield MemberDelta(random.choice("ab"), f"{number} ")
    if random.random() < 0.3:
        yield from _items(random, 0, 1)
        yield Restarted()
    parts = random.randint(1, 3)
    yield from _items(random, 0, parts)
    if random.random() < 0.5:
        *begun, _ = item_events(parts, _part(random, parts), piece=4)
        yield from begun
    yield UsageReported(Usage(input_tokens=3, output_tokens=9))


def _items(random: Random, first: int, count: int) -> Iterator[Event]:
    for index in range(first, first + count):
        yield from item_events(index, _part(random, index), piece=random.randint(1, 9))


def _part(random: Random, index: int) -> Part:
    text = "".join(random.choice('abc é😀\n"') for _ in range(random.randint(1, 300)))
    match random.choice(("text", "text", "thought", "call")):
        case "text":
            return Text(text)
        case "thought":
            return Reasoning(text=text, id=f"rs_{index}", dialect="openai_responses")
        case _:
            return ToolCall(id=f"call_{index}", name="f", arguments=json.dumps({"text": text}))


def script(random: Random) -> Any:
    """Answers at random, at a random pace."""

    async def answer(run: Run) -> None:
        pace = random.choice((0.0, 0.0005, 0.002))
        for event in list(_plan(random)):
            run.log.append(event)
            if random.random() < 0.3:
                await trio.sleep(pace * random.random())
        end = random.choice(("stop", "length", "failed", "hangs", "stop"))
        if end == "hangs":
            await trio.sleep_forever()
        elif end == "failed":
            run.fail(
                Failure(
                    kind=random.choice((FailureKind.TRUNCATED, FailureKind.RATE_LIMITED)), message="so", partial=True
                )
            )
        else:
            reason = FinishReason.STOP if end == "stop" else FinishReason.LENGTH
            run.log.append(Finished(reason=reason, response=run.folded(provider="fake")))

    return answer


# -- the readers -------------------------------------------------------------------------------------------------------


def _events_of_http(data: bytes) -> list[dict[str, Any]]:
    """The whole events in what came of an HTTP answer."""
    head, gap, rest = data.partition(b"\r\n\r\n")
    if not gap:
        return []
    assert head.startswith(b"HTTP/1.1 200"), data
    try:
        body, _ = unchunked(bytearray(rest))
    except ValueError:  # half a line with a chunk's size
        return []
    whole = body[: body.rfind(b"\n\n") + 2]
    lines = [line[6:] for line in whole.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def _events_of_websocket(data: bytes) -> list[dict[str, Any]]:
    """The whole messages in what came over a WebSocket."""
    head, gap, rest = data.partition(b"\r\n\r\n")
    if not gap:
        return []
    assert head.startswith(b"HTTP/1.1 101"), data
    found, message = [], b""
    while len(rest) >= 2:
        size, at = rest[1], 2
        if size == 126:
            size, at = int.from_bytes(rest[2:4]), 4
        elif size == 127:
            size, at = int.from_bytes(rest[2:10]), 10
        if len(rest) < at + size:
            break
        if rest[0] & 0x0F in (TEXT, MORE):
            message += rest[at : at + size]
            if rest[0] & 0x80:
                found.append(json.loads(message))
                message = b""
        rest = rest[at + size :]
    return found


def _request(over: str, asked: dict[str, Any]) -> bytes:
    """What opens a stream: a ``create`` or a ``resume``."""
    if over == "websocket":
        return handshake() + frame(TEXT, json.dumps(asked).encode())
    if asked["type"] == "response.create":
        body = json.dumps({name: value for name, value in asked.items() if name != "type"} | {"stream": True}).encode()
        return b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    target = f"/v1/responses/{asked['response_id']}?stream=true&starting_after={asked['starting_after']}"
    return f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


class Reader:
    """One client, which has so many of the stream's events."""

    def __init__(self, server: OpenServer, random: Random, tally: Tally, after: int = -1) -> None:
        self._server = server
        self._random = random
        self._tally = tally
        self.first_after = after
        self.events: list[dict[str, Any]] = []

    @property
    def after(self) -> int:
        """The last number it has."""
        return int(self.events[-1]["sequence_number"]) if self.events else self.first_after

    @property
    def has_ended(self) -> bool:
        """Whether it has the last event."""
        return bool(self.events) and self.events[-1]["type"] in TERMINAL

    async def read(self, over: str, asked: dict[str, Any], most: int) -> None:
        """Read until the end, or until so many bytes have come; then leave, in the middle of whatever it is."""
        events_of = _events_of_http if over == "http" else _events_of_websocket
        sock = trio.socket.socket()
        await sock.connect((self._server.address.host, self._server.address.port))
        try:
            await sock.send(_request(over, asked))
            data, had = b"", len(self.events)
            while len(data) < most and not self.has_ended:
                got = await sock.recv(min(65_536, most - len(data)))
                assert got, f"the connection ended in silence after {data[-300:]!r}"
                data += got
                self.events[had:] = [each for each in events_of(data) if not each["type"].startswith("llm-runtime:c")]
                problem = next((each for each in self.events[had:] if each["type"] == "error"), None)
                assert problem is None, problem
            if not self.has_ended:
                self._tally.cuts += 1
                if self._random.random() < 0.5:
                    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            sock.close()

    async def follow(self, response_id: str) -> None:
        """Come back until it has the end."""
        random, most = self._random, 4_500
        while not self.has_ended:
            had = len(self.events)
            over = random.choice(("http", "websocket"))
            asked: dict[str, Any] = {
                "type": "response.resume",
                "response_id": response_id,
                "starting_after": self.after,
            }
            if random.random() < 0.5:
                asked["stream_id"] = "lane"
            await self.read(over, asked, random.randint(350, random.choice((600, 1_500, most, 10 * most))))
            if len(self.events) == had:
                most *= 2  # the next event may be larger than what was read


# -- what must be ------------------------------------------------------------------------------------------------------


def _singly(events: Sequence[Event]) -> Iterator[Event]:
    """The events of a log as they were appended."""
    for event in events:
        rest = event
        while isinstance(rest, ANY_DELTAS) and count_pieces(rest) > 1:
            first, rest = cut(rest, 1)
            yield first
        yield rest


def stream_of(run: Run, asked: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """All events of a response, none joined, by number."""
    create = RESPONSES.decode_create(json.dumps(asked))
    encoder = RESPONSES.response_encoder(create.inbound._replace(request=run.request), run.response_id, create.options)
    frames = [*encoder.start(), *(each for event in _singly(run.log.events) for each in encoder.encode([event]))]
    return {event["sequence_number"]: event for event in (json.loads(each.data) for each in frames)}


def is_exact(stream: dict[int, dict[str, Any]], events: Sequence[dict[str, Any]], after: int) -> str | None:
    """What is wrong with ``events`` as the part of ``stream`` after a number; ``None``: nothing."""
    last = after
    for event in events:
        said = {name: value for name, value in event.items() if name != "stream_id"}
        number = said["sequence_number"]
        if number == max(stream) <= last and said == stream[number]:
            continue  # the end, told again
        if number <= last or number not in stream:
            return f"{number} after {last}"
        covered = [stream[each] for each in range(last + 1, number + 1)]
        if {each["type"] for each in covered} == {"llm-runtime:member.delta"}:
            parts = said.get("deltas") or [said]
            told = {each["member"]: each["delta"] for each in parts}
            meant: dict[str, str] = {}
            for each in covered:
                meant[each["member"]] = meant.get(each["member"], "") + each["delta"]
            if told != meant:
                return f"members: {told} is not {meant}"
        elif len(covered) > 1 and not all("delta" in each for each in covered):
            return f"{number} after {last}"
        elif len(covered) > 1:
            joined = covered[-1] | {"delta": "".join(each["delta"] for each in covered)}
            if said != joined or len({each["item_id"] for each in covered}) > 1:
                return f"{said} is not {joined}"
        elif said != covered[0]:
            return f"{said} is not {covered[0]}"
        last = number
    return None if last == max(stream) else f"it ends at {last} of {max(stream)}"


async def _at_rest(run: Run) -> None:
    """Wait until it has ended, or says nothing more."""
    had = -1
    while run.log.end is None and len(run.log) > had:
        had = len(run.log)
        await trio.sleep(0.2)


async def _one(server: OpenServer, random: Random, tally: Tally) -> None:
    over = random.choice(("http", "websocket"))
    background = random.random() < 0.6
    asked = {
        "type": "response.create",
        "model": "m",
        "input": "hi",
        "background": background,
        "metadata": {"n": str(tally.responses)},
    }
    tally.responses += 1
    tally.modes[f"{over}, {'background' if background else 'foreground'}"] += 1
    client = Reader(server, random, tally)
    while not client.events:  # what is cut before the id is known cannot be come back to
        with trio.move_on_after(0.5):  # it may hang before so much has come
            await client.read(over, asked, random.randint(1_500, random.choice((2_400, 3_500, 9_500))))
    response_id = client.events[0]["response"]["id"]
    run = next(each for each in server.engine.runs if each.response_id == response_id)
    readers = [client] + [Reader(server, random, tally, random.randint(-1, client.after)) for _ in range(FOLLOWERS)]
    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(reader.follow, response_id)
        await trio.sleep(0.1 * random.random())
        if random.random() < 0.75:
            await _at_rest(run)
        run.cancel("enough")  # nothing, where it has ended
    stream = stream_of(run, asked)
    server.engine.runs.remove(run)
    tally.ends[stream[max(stream)]["response"]["status"]] += 1
    for place, reader in enumerate(readers):
        problem = is_exact(stream, reader.events, reader.first_after)
        if problem is not None:
            tally.problems.append(f"{response_id}, reader {place} from {reader.first_after}: {problem}")


async def resume_run(seed: int, cuts: int) -> Tally:
    """Answer and cut until so many connections were cut."""
    random, tally = Random(seed), Tally()
    async with open_server(script(random)) as server, trio.open_nursery() as nursery:

        async def work() -> None:
            while tally.cuts < cuts:
                await _one(server, random, tally)

        for _ in range(AT_ONCE):
            nursery.start_soon(work)
    return tally
