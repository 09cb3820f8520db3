"""A server with an engine made of scripts behind it, and raw clients for it.

The engine is the seam: its runs and logs are the real ones, what appends to them is the test's script.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Never

import h11
import msgspec
import trio
import trio.testing

from llm_actors.kernel import ChildSpec, Supervisor, running
from llm_actors.orchestrator import RecentRequest
from llm_actors.provider import PassthroughRequest, PassthroughResponse
from llm_actors.run import Run
from llm_actors.selector import Ranking, Weights
from llm_actors.shared_responses import SharedResponses
from llm_actors.store import StoreRef
from llm_protocol.content import Text
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError
from llm_protocol.events import Finished, ItemDone, ItemStarted, Started, TextDelta, UsageReported
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import FinishReason, TokenCount, Usage
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Key, Server
from llm_runtime.metrics import SESSIONS
from llm_runtime.server import ListenAddress, server_child
from llm_runtime.server.siblings import Siblings

Script = Callable[[Run], Awaitable[None]]


def begin_text(run: Run) -> None:
    """Append the beginning of a text answer."""
    run.log.append(Started(model="fake-1", provider="fake"))
    run.log.append(ItemStarted(index=0, kind="text"))


def add_text(run: Run, text: str) -> None:
    run.log.append(TextDelta(0, text))


def end_text(run: Run, reason: FinishReason = FinishReason.STOP) -> None:
    """Append the end of a text answer; its text is what was added."""
    text = "".join(event.text for event in run.log.events if isinstance(event, TextDelta))
    run.log.append(ItemDone(index=0, part=Text(text)))
    run.log.append(UsageReported(Usage(input_tokens=3, output_tokens=2)))
    whole = msgspec.structs.replace(run.folded(provider="fake"), finish_reason=reason)
    run.finish(Finished(reason=reason), whole)


def saying(*pieces: str) -> Script:
    """Answer with these pieces, one after the other, at once."""

    async def script(run: Run) -> None:
        begin_text(run)
        for piece in pieces:
            add_text(run, piece)
            await trio.lowlevel.checkpoint()
        end_text(run)

    return script


async def hanging(run: Run) -> None:
    """Begin to answer and never end."""
    begin_text(run)
    add_text(run, "so far")
    await trio.sleep_forever()


async def silent(run: Run) -> None:
    """Never begin."""
    await trio.sleep_forever()


@dataclass
class FakeEngine:
    """Submits to scripts: the nth request to the nth, later ones to the last."""

    nursery: trio.Nursery
    scripts: Sequence[Script | LLMClientError | Exception] = (saying("Hel", "lo"),)
    runs: list[Run] = field(default_factory=list)
    requests: list[AnyRequest] = field(default_factory=list)
    ready: bool = True
    parked: Sequence[str] = ()
    counted: TokenCount = field(default_factory=lambda: TokenCount(7, estimated=False))
    told: object = field(default_factory=dict)
    recent: Sequence[RecentRequest] = ()
    store: StoreRef | None = None
    changed: trio.Event = field(default_factory=trio.Event)
    open_runs: int = 0
    refusals: list[str] = field(default_factory=list)
    listeners: list[Callable[[Config], None]] = field(default_factory=list)

    @property
    def routes(self) -> Mapping[str, Policy]:
        return {}

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        return 0

    def deadline_s(self, request: AnyRequest) -> float:
        said = request.policy.deadline_s if request.policy else None
        return said or request.deadline_s or 600.0

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        if isinstance(script, Exception):
            raise script
        deadline_s = self.deadline_s(request)
        run = Run(
            request,
            stream=stream,
            background=background,
            response_id=response_id,
            started_at=since,
            deadline_s=deadline_s,
        )
        self.runs.append(run)
        self.open_runs += 1
        self.nursery.start_soon(self._drive, run, script)
        self._change()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            run.cancel("the caller has cancelled")
            raise
        return run

    async def _drive(self, run: Run, script: Script) -> None:
        with run.scope:
            await script(run)
        run.close()
        self.open_runs -= 1
        self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        """Wait until ``condition``, which looks at this engine, is true."""
        with trio.fail_after(seconds):
            while not condition():
                await self.changed.wait()

    def model_list(self, caller: str = "") -> Sequence[ModelInfo]:
        return [ModelInfo(id="fake/fake-1", owned_by="fake"), ModelInfo(id="local/smollm2")]

    def route_names(self, caller: str = "") -> Sequence[str]:
        return ["careful"]

    async def gives_choices(self, request: AnyRequest) -> bool:
        return False

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        return self.counted

    def recent_requests(self, caller: str | None = None) -> Sequence[RecentRequest]:
        return [each for each in self.recent if caller is None or each.request.caller == caller]

    def is_ready(self) -> bool:
        return self.ready

    def parked_services(self) -> Sequence[str]:
        return self.parked

    def tree(self) -> object:
        return {"name": "root"}

    async def pass_through(
        self, provider: str, message: PassthroughRequest, *, caller: str, request_id: str
    ) -> PassthroughResponse:
        raise AssertionError("nothing is passed through here")

    def upstream_base(self, provider: str) -> str | None:
        return None

    def on_reload(self, listener: Callable[[Config], None]) -> None:
        self.listeners.append(listener)

    def refused(self, code: str, *, is_limit: bool) -> None:
        self.refusals.append(code)

    async def metrics(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"up 1\n"

    async def statistics(self, caller: str | None = None) -> object:
        await trio.lowlevel.checkpoint()
        return self.told

    async def explain(self, model: str, *, caller: str = "") -> Ranking:
        await trio.lowlevel.checkpoint()
        return Ranking(select="score", weights=Weights(), choices=())


@dataclass
class OpenServer:
    """A server that listens."""

    address: ListenAddress
    engine: FakeEngine
    root: Supervisor
    clients: list[HttpClient] = field(default_factory=list)

    async def connect(self, *, receive_buffer: int = 0) -> HttpClient:
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect((self.address.host, self.address.port))
        except OSError:
            sock.close()
            raise
        client = HttpClient(trio.SocketStream(sock))
        self.clients.append(client)
        return client

    @property
    def connections(self) -> int:
        """How many connections have a child."""
        sessions = next(each for each in self.root.tree().children if each.name == SESSIONS)
        return len(sessions.children)

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        """Wait until ``condition``, which looks at the tree, is true."""
        with trio.fail_after(seconds), self.root.bus.subscribe() as events:
            while not condition():
                await anext(events)
                await trio.testing.wait_all_tasks_blocked()

    async def request(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        async with await self.connect() as client:
            return await client.request(method, target, body, **headers)


@asynccontextmanager
async def open_server(
    *scripts: Script | Exception, beside: Sequence[ChildSpec[Never]] = (), **config: Any
) -> AsyncIterator[OpenServer]:
    """A server on any free port of loopback, stopped (and drained) at the end. ``beside``: more children of its root.
    ``roles``: which keys are for what besides, such as ``{"boss": "admin"}``. ``siblings``: the other workers.
    ``shared``: where the responses of all replicas are.
    """
    siblings: Siblings | None = config.pop("siblings", None)
    shared: SharedResponses | None = config.pop("shared", None)
    expires = {name: datetime.fromtimestamp(at, UTC) for name, at in config.pop("expires", {}).items()}
    roles: dict[str, str] = config.pop("roles", {})
    keys = {
        name: Key(
            secret=Secret(key),
            expires=expires.get(name),
            admin=roles.get(name) == "admin",
            metrics_only=roles.get(name) == "metrics_only",
        )
        for name, key in config.pop("keys", {}).items()
    }
    addresses: list[ListenAddress] = []
    async with trio.open_nursery() as nursery:
        engine = FakeEngine(nursery, scripts or (saying("Hel", "lo"),))
        settings: dict[str, Any] = {"port": 0, "drain_s": 0.5} | config
        others: dict[str, Any] = {"siblings": siblings, "shared": shared}
        branches = server_child(Server(**settings), engine, addresses.append, keys=keys, **others)
        root = Supervisor([*branches, *beside])
        async with running(root):
            server = OpenServer(addresses[-1], engine, root)
            yield server
        for client in server.clients:
            client.close()
        nursery.cancel_scope.cancel()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of the server-sent events; ``[DONE]`` stays text."""
        data = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [each if each == "[DONE]" else json.loads(each) for each in data]


class HttpClient:
    """A raw connection with just enough HTTP to write a request and read an answer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.socket.close()

    def reset(self) -> None:
        """Leave with a RST."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        with trio.fail_after(100):
            return await self.stream.receive_some()

    async def until_closed(self) -> bytes:
        """All bytes up to the end of the connection, however it ends."""
        found = b""
        try:
            while data := await self.receive():
                found += data
        except trio.BrokenResourceError:
            pass
        return found

    async def request(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        await self.begin(method, target, body, **headers)
        return await self.reply()

    async def begin(self, method: str, target: str, body: Any = None, **headers: str) -> None:
        """Send a whole request."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"host": "127.0.0.1"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if data:
            fields["content-length"] = str(len(data))
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        head = h11.Request(method=method, target=target, headers=list(fields.items()))
        parts = [
            self._h11.send(head),
            self._h11.send(h11.Data(data)) if data else b"",
            self._h11.send(h11.EndOfMessage()),
        ]
        await self.send(b"".join(part or b"" for part in parts))

    async def reply(self) -> Reply:
        """Read a whole answer."""
        head = await self.head()
        return Reply(head.status, head.headers, await self.rest())

    async def head(self) -> Reply:
        """Read the head of an answer."""
        event = await self._event()
        while isinstance(event, h11.InformationalResponse):
            event = await self._event()
        assert isinstance(event, h11.Response), event
        return Reply(event.status_code, {k.decode(): v.decode() for k, v in event.headers}, b"")

    async def rest(self) -> bytes:
        """Read the body to its end."""
        body = b""
        while (piece := await self.piece()) is not None:
            body += piece
        return body

    async def piece(self) -> bytes | None:
        """Read some of the body; None at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self.receive())
        return event
