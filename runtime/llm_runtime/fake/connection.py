"""One connection to the fake: reads requests, sends their responses, and notices when the client leaves."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import final

import trio

from llm_protocol.codec.json import encode_json
from llm_protocol.dialect import WireResponse
from llm_runtime.fake.delivery import DeliveryEnd, Step
from llm_runtime.fake.journal import Journal
from llm_runtime.fake.replies import JSON, Replies
from llm_runtime.fake.vendors import Place
from llm_runtime.server.http1 import CONTINUE, Request, RequestParser, encode_response
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import PIPELINED_BYTES, RECEIVE_BYTES

JOURNAL = "/_fake/journal"

_RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

KEEP_ALIVE_SECONDS = 75.0
"""Seconds after which an idle connection is closed."""

ANSWER_SECONDS = 3600.0
"""The most seconds for a response. A response that stalls, or that the client does not read, ends then."""


@final
class FakeConnection:
    """Handles the requests on ``stream`` and closes it at the end. ``raw`` is the socket below it, for resets."""

    def __init__(self, stream: trio.abc.Stream, raw: trio.SocketStream, replies: Replies, journal: Journal) -> None:
        self._stream = stream
        self._raw = raw
        self._replies = replies
        self._journal = journal
        self._parser = RequestParser()

    async def serve(self) -> None:
        """Handle one request after the other."""
        self._count(1)
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while (request := await self._next()) is not None and await self._answer(request):
                    pass
        finally:
            self._raw.socket.close()
            self._count(-1)

    def _count(self, connections: int) -> None:
        self._journal.connections += connections
        self._journal.changed()

    async def _next(self) -> Request | None:
        with trio.move_on_after(KEEP_ALIVE_SECONDS):
            try:
                while (request := self._parser.next()) is None:
                    if self._parser.is_busy:
                        continue
                    if self._parser.awaits_continue:
                        await self._stream.send_all(CONTINUE)
                    if not await self._read():
                        return None
            except HttpError as refused:
                await self._stream.send_all(encode_response(refused.response(), (), close=True, bare=False))
                return None
            return request
        return None

    async def _read(self) -> bool:
        data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        self._parser.feed(data)
        return bool(data)

    async def _answer(self, request: Request) -> bool:
        """Send the response. Return whether the connection stays open."""
        if request.path == JOURNAL:
            body = encode_json(self._journal.to_json())
            encoded = encode_response(WireResponse(200, (JSON,), body), (), close=not request.keep_alive, bare=False)
            await self._stream.send_all(encoded)
            return request.keep_alive
        place = self._replies.place(request)
        kind = (place.vendor if isinstance(place, Place) else place).kind
        seen = self._journal.begin(kind, request.method, request.path, request.body)
        left = True
        try:
            end = await self._watched(self._replies.plan(request, place, seen))
            left = end is None
        finally:
            self._journal.end(seen, left=left)
        return end is DeliveryEnd.KEEP and request.keep_alive

    async def _watched(self, plan: Iterator[Step]) -> DeliveryEnd | None:
        """Carry out a plan. Return how it ended, or ``None`` if the client left before the end."""
        end: DeliveryEnd | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                with trio.move_on_after(ANSWER_SECONDS) as bound:
                    end = await self._perform(plan)
                if bound.cancelled_caught:
                    end = DeliveryEnd.CLOSE
            nursery.cancel_scope.cancel()
        return end

    async def _watch(self, answering: trio.CancelScope) -> None:
        """Keep reading, to notice when the client leaves. Pipelined requests are buffered up to a limit."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._read():
                if self._parser.received > PIPELINED_BYTES:
                    return
        answering.cancel("the client has disconnected")

    async def _perform(self, plan: Iterator[Step]) -> DeliveryEnd:
        for step in plan:
            match step:
                case bytes():
                    await self._stream.send_all(step)
                case DeliveryEnd.RESET:
                    self._raw.setsockopt(*_RESET)
                    return step
                case DeliveryEnd.STALL:
                    await trio.sleep_forever()
                case DeliveryEnd():
                    return step
                case _:
                    await trio.sleep(step)
        raise AssertionError("the last step of a plan must be a DeliveryEnd")
