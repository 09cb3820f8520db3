"""``/passthrough/{provider}/…``: bytes both ways, within the same limits, and nothing else reachable."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from llm_actors.store.ledger import LedgerEntry
from llm_protocol.budgets import Budget
from llm_protocol.policy import Limits, Timeouts
from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_runtime.config import Config, Key, Provider, Server
from llm_runtime.runtime import Runtime
from llm_runtime.server import ListenAddress, server_child
from llm_runtime.server.limits import CREATED_BYTES, PASSTHROUGH_WHOLE_BYTES
from support.callers import Served
from support.peer import Call, Hangup, Peer, Script, chunked, raw, reply, reset
from support.upstream import JSON

ALL = ("* main/**",)
PIECE = b"x" * 16_384


@asynccontextmanager
async def passing(
    *scripts: Script,
    greeting: Script = (),
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    kind: LLMProvider = LLMProvider.OPENAI,
    drain_s: float = 1,
    budgets: dict[str, Budget] | None = None,
    **keys: dict[str, Any],
) -> AsyncIterator[tuple[Served, Peer, Runtime]]:
    """A daemon in front of one scripted vendor; without ``keys``, alice may send everything."""
    addresses: list[ListenAddress] = []
    async with Peer(*scripts, greeting=greeting) as peer:
        provider = Provider(
            kind=kind,
            base_url=f"{peer.url}/v1",
            api_key=Secret("sk-vendor"),
            models=("m",),
            limits=limits or Limits(),
            timeouts=timeouts or Timeouts(),
        )
        fields = (keys or {"alice": {"passthrough": ALL}}) | {"watch": {"metrics_only": True, "passthrough": ALL}}
        callers = {name: Key(secret=Secret(f"sk-{name}"), **each) for name, each in fields.items()}
        config = Config(
            server=Server(port=0, drain_s=drain_s),
            providers={"main": provider},
            keys=callers,
            budgets=budgets or {},
        )
        runtime = Runtime(
            config, servers=lambda rt: server_child(config.server, rt, addresses.append, keys=config.keys)
        )
        async with runtime.running():
            yield Served(addresses[0], {"main": peer}), peer, runtime


async def metrics(daemon: Served) -> str:
    return (await daemon.ask("watch", "GET", "/metrics")).body.decode()


# ---------------------------------------------------------------- what goes where


async def test_a_request_goes_as_it_is_with_the_providers_key() -> None:
    answer = reply(b'{"id": "file-1"}', 201, headers={**JSON, "x-request-id": "theirs", "set-cookie": "a=b"})
    async with passing(answer) as (daemon, peer, _):
        got = await daemon.ask(
            "alice", "POST", "/passthrough/main/v1/files?a=1&b=%2F", b"--x\r\n", content_type="multipart/form-data"
        )
        [seen] = peer.requests
        text = await metrics(daemon)
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/files?a=1&b=%2F", b"--x\r\n")
    assert seen.headers["authorization"] == "Bearer sk-vendor"
    assert seen.headers["content-type"] == "multipart/form-data"
    assert seen.headers["host"].startswith("127.0.0.1:")
    assert (got.status, got.body) == (201, b'{"id": "file-1"}')
    assert got.headers["x-llm-runtime-upstream-request-id"] == "theirs"
    assert got.headers["x-llm-runtime-cost"] == "unknown"
    assert got.headers["x-request-id"] != "theirs"
    assert "set-cookie" not in got.headers
    assert 'llm_runtime_passthrough_requests_total{outcome="2xx",provider="main"} 1.0' in text


@pytest.mark.parametrize("spelling", ["/passthrough/main/v1/files", "/passthrough/main/files"])
async def test_the_version_may_be_left_out(spelling: str) -> None:
    async with passing(reply(b"{}"), alice={"passthrough": ("GET main/v1/files",)}) as (daemon, peer, _):
        assert (await daemon.ask("alice", "GET", spelling)).status == 200
        assert peer.requests[0].target == "/v1/files"


@pytest.mark.parametrize(
    ("caller", "method", "path", "status"),
    [
        ("alice", "GET", "/passthrough/main/v1/batches", 403),
        ("alice", "DELETE", "/passthrough/main/v1/files", 403),
        ("alice", "GET", "/passthrough/other/v1/files", 403),
        ("alice", "GET", "/passthrough/main", 400),
        ("alice", "GET", "/passthrough/main/", 400),
        ("alice", "GET", "/passthrough/main//evil.example/v1/files", 400),
        ("alice", "GET", "/passthrough/main/v1/../v1/files", 400),
        ("alice", "GET", "/passthrough/main/v1/%2e%2e/files", 400),
        ("alice", "GET", "/passthrough/main/v1%2ffiles", 400),
        ("bob", "GET", "/passthrough/main/v1/files", 403),
        ("watch", "GET", "/passthrough/main/v1/files", 403),
        ("nobody", "GET", "/passthrough/main/v1/files", 401),
    ],
)
async def test_what_is_not_allowed_costs_no_call(caller: str, method: str, path: str, status: int) -> None:
    keys: dict[str, Any] = {"alice": {"passthrough": ("GET main/v1/files",)}, "bob": {}}
    async with passing(reply(b"{}"), **keys) as (daemon, peer, _):
        got = await daemon.ask(caller, method, path)
        assert got.status == status
        assert not peer.connections
        if status == 403:
            assert got.json["error"]["code"] == ("not_allowed" if caller == "watch" else "passthrough_not_allowed")


async def test_another_host_is_out_of_reach() -> None:
    async with passing(reply(b"{}")) as (daemon, peer, _), await daemon.connect() as client:
        await client.send(b"GET http://evil.example/passthrough/main/v1/x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")
        assert not peer.connections


async def test_redirects_are_not_followed() -> None:
    moved = reply(b"", 302, headers={"location": "https://elsewhere.example/x"})
    async with passing(moved) as (daemon, peer, _):
        got = await daemon.ask("alice", "GET", "/passthrough/main/v1/files/1/content")
        assert (got.status, got.headers["location"]) == (302, "https://elsewhere.example/x")
        assert len(peer.requests) == 1


async def test_without_keys_nothing_is_passed_through() -> None:
    async with passing(reply(b"{}"), alice={}) as (daemon, _, _):
        assert (await daemon.ask("alice", "GET", "/passthrough/main/v1/files")).status == 403


async def test_a_head_and_a_status_without_a_body() -> None:
    async def head(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")

    async with passing(head, reply(b"", 204)) as (daemon, _, _), await daemon.connect() as client:
        got = await client.request("HEAD", "/passthrough/main/v1/files/1", authorization="Bearer sk-alice")
        assert (got.status, got.headers["content-length"], got.body) == (200, "1000", b"")
        got = await client.request("DELETE", "/passthrough/main/v1/files/1", authorization="Bearer sk-alice")
        assert (got.status, got.body) == (204, b"")
        assert "transfer-encoding" not in got.headers


async def test_an_error_comes_as_the_vendor_said_it() -> None:
    body = b'{"error": {"message": "No such File", "type": "invalid_request_error"}}'
    async with passing(reply(body, 404, headers=JSON)) as (daemon, _, _):
        got = await daemon.ask("alice", "GET", "/passthrough/main/v1/files/x")
        assert (got.status, got.body) == (404, body)
        assert 'outcome="4xx",provider="main"} 1.0' in await metrics(daemon)


async def test_a_refused_key_of_ours_is_not_shown() -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-ve*dor.", "code": "invalid_api_key"}}'
    async with passing(reply(body, 401, headers=JSON)) as (daemon, _, _):
        got = await daemon.ask("alice", "GET", "/passthrough/main/v1/files")
    assert got.status == 424
    assert got.headers["x-should-retry"] == "false"
    assert got.json["error"]["code"] == "auth"
    assert "sk-ve" not in got.body.decode()


async def test_a_guessed_pause_refuses_nothing_because_no_other_provider_can_do_it() -> None:
    """The vendor did not say how long its refusal of the key, or of the quota, will last."""
    spent = reply(b'{"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}', 429)
    async with passing(reply(b"{}", 401, headers=JSON), spent, reply(b"{}", headers=JSON)) as (daemon, _, _):
        paths = ["/passthrough/main/v1/files"] * 3
        assert [(await daemon.ask("alice", "GET", path)).status for path in paths] == [424, 429, 200]


async def test_what_a_caller_uploaded_is_the_callers_to_use() -> None:
    upload = reply(b'{"id": "file-1", "object": "file"}', headers=JSON)
    keys: dict[str, Any] = {"alice": {"passthrough": ALL}, "bob": {"passthrough": ALL}}
    async with passing(upload, reply(b"{}", 500), **keys) as (daemon, peer, _):
        await daemon.ask("alice", "POST", "/passthrough/main/v1/files", b"x")
        part = {"type": "file", "file": {"file_id": "file-1"}}
        chat = {"model": "main/m", "messages": [{"role": "user", "content": [part]}]}
        refused = await daemon.ask("bob", "POST", "/v1/chat/completions", chat)
        assert refused.status == 400
        assert "was not issued to this key" in refused.json["error"]["message"]
        assert len(peer.requests) == 1
        await daemon.ask("alice", "POST", "/v1/chat/completions", chat)
        assert "file-1" in peer.requests[1].body.decode()


async def test_ids_in_a_long_response_are_not_looked_for() -> None:
    long = json.dumps({"id": "file-1", "text": "x" * CREATED_BYTES}).encode()
    async with passing(reply(long, headers=JSON), reply(b"{}", 500)) as (daemon, _, _):
        assert (await daemon.ask("alice", "POST", "/passthrough/main/v1/files", b"x")).body == long
        part = {"type": "file", "file": {"file_id": "file-1"}}
        chat = {"model": "main/m", "messages": [{"role": "user", "content": [part]}]}
        assert (await daemon.ask("alice", "POST", "/v1/chat/completions", chat)).status == 400


# ---------------------------------------------------------------- streamed, both ways


async def test_a_small_body_goes_over_a_kept_connection() -> None:
    async with passing(reply(b"{}")) as (daemon, peer, _):
        for size in (1, PASSTHROUGH_WHOLE_BYTES, PASSTHROUGH_WHOLE_BYTES + 1):
            got = await daemon.ask("alice", "POST", "/passthrough/main/v1/x", b"x" * size)
            assert got.status == 200
        assert [seen.connection for seen in peer.requests] == [1, 1, 2]
        assert [len(seen.body) for seen in peer.requests] == [1, PASSTHROUGH_WHOLE_BYTES, PASSTHROUGH_WHOLE_BYTES + 1]


class Upload:
    """A vendor that reads a body to its end, in whatever framing, and says how much it was."""

    def __init__(self, *, read: bool = True, after: bytes = b"") -> None:
        self.received = 0
        self.head = b""
        self.reading = trio.Event()
        self.ended = trio.Event()
        self._read = read
        self._after = after

    async def __call__(self, call: Call) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._some(call)
        self.head, _, rest = data.partition(b"\r\n\r\n")
        self.reading.set()
        if self._after:
            await call.send(self._after)
        if not self._read:
            await trio.sleep_forever()
        is_chunked = b"transfer-encoding: chunked" in self.head.lower()
        length = 0 if is_chunked else int(self.head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        tail = rest
        self.received = len(rest)
        while not (tail.endswith(b"0\r\n\r\n") if is_chunked else self.received >= length):
            more = await self._some(call)
            self.received += len(more)
            tail = (tail + more)[-16:]
        body = str(self.received).encode()
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        self.ended.set()
        raise Hangup

    async def _some(self, call: Call) -> bytes:
        data = bytes(await call.stream.receive_some(65_536))
        if not data:
            self.ended.set()
            raise Hangup
        return data


def head(fields: str, path: str = "/passthrough/main/v1/files") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-alice\r\n{fields}\r\n\r\n".encode()


async def test_a_large_upload_goes_through_as_it_comes() -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head(f"content-length: {len(PIECE) * 2000}"))
        for _ in range(2000):  # 32 MB, more than max_body_mb
            await client.send(PIECE)
        answer = await client.receive()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(str(len(PIECE) * 2000).encode())
    assert b"content-length: 32768000" in upload.head


async def test_an_upload_in_chunks_stays_one() -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head("transfer-encoding: chunked"))
        for _ in range(20):
            await client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
            await upload.reading.wait()
        await client.send(b"0\r\n\r\n")
        assert (await client.receive()).startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding: chunked" in upload.head
    assert upload.received > len(PIECE) * 20


async def test_the_client_is_asked_for_its_body_when_it_is_wanted() -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head(f"content-length: {len(PIECE) * 8}\r\nexpect: 100-continue"))
        assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await upload.reading.wait()
        for _ in range(8):
            await client.send(PIECE)
        assert (await client.receive()).startswith(b"HTTP/1.1 200 ")


async def test_a_refused_upload_is_not_asked_for() -> None:
    async with passing(reply(b"{}"), alice={}) as (daemon, peer, _), await daemon.connect() as client:
        await client.send(head("content-length: 1000000\r\nexpect: 100-continue"))
        assert (await client.receive()).startswith(b"HTTP/1.1 403 ")
        assert not peer.connections


async def test_a_vendor_that_does_not_read_holds_the_client_back(jumping_clock: object) -> None:
    """No more of it is in memory than the limit; when the vendor stays away, the request ends."""
    upload = Upload(read=False)
    async with passing(greeting=upload, timeouts=Timeouts(idle=5)) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head("content-length: 100000000"))
        sent = 0
        with trio.move_on_after(1):
            while sent < 100_000_000:
                await client.send(PIECE)
                sent += len(PIECE)
        assert sent < 30_000_000
        answer = await client.until_closed()
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_an_upload_may_take_long(jumping_clock: object) -> None:
    """Each wait has a limit of its own, and the sum has none."""
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head(f"content-length: {len(PIECE) * 120}"))
        for _ in range(3):
            for _ in range(40):
                await client.send(PIECE)
            await trio.sleep(20)
        answer = await client.receive()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(str(len(PIECE) * 120).encode())


async def test_a_download_may_take_long(jumping_clock: object) -> None:
    async def wait(call: Call) -> None:
        await trio.sleep(20)

    script = [chunked(b"one", end=False), wait, raw(b"3\r\ntwo\r\n"), wait, raw(b"5\r\nthree\r\n0\r\n\r\n")]
    async with passing(script) as (daemon, _, _):
        answer = await daemon.ask("alice", "GET", "/passthrough/main/v1/files/f1/content")
    assert answer.body == b"onetwothree"


async def test_an_early_error_ends_the_upload() -> None:
    too_large = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge"
    upload = Upload(read=False, after=too_large)
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head("content-length: 100000000"))
        await client.send(PIECE)
        answer = await client.until_closed()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert answer.endswith(b"large")


async def test_an_answer_streams_as_it_comes() -> None:
    more = trio.Event()

    async def wait(call: Call) -> None:
        await more.wait()

    script = [chunked(b"one", end=False), wait, raw(b"3\r\ntwo\r\n0\r\n\r\n")]
    async with passing(script) as (daemon, _, _), await daemon.connect() as client:
        await client.begin("GET", "/passthrough/main/v1/files/1/content", authorization="Bearer sk-alice")
        assert (await client.head()).headers["transfer-encoding"] == "chunked"
        assert await client.piece() == b"one"
        more.set()
        assert await client.piece() == b"two"
        assert await client.piece() is None


async def test_an_answer_that_is_cut_is_not_taken_for_a_whole_one() -> None:
    async with passing([chunked(b"one", end=False), reset()]) as (daemon, _, _), await daemon.connect() as client:
        await client.begin("GET", "/passthrough/main/v1/files/1/content", authorization="Bearer sk-alice")
        answer = await client.until_closed()
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_client_that_leaves_takes_the_request_along() -> None:
    async def silent(call: Call) -> None:
        await trio.sleep_forever()

    async with passing(silent) as (daemon, peer, _):
        async with await daemon.connect() as client:
            await client.begin("GET", "/passthrough/main/v1/slow", authorization="Bearer sk-alice")
            with trio.fail_after(5):
                await peer.until(lambda: peer.open_requests == 1)
        with trio.fail_after(5):
            await peer.until(lambda: peer.open_connections == 0)
        assert 'outcome="cancelled",provider="main"} 1.0' in await metrics(daemon)


async def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _):
        async with await daemon.connect() as client:
            await client.send(head("content-length: 100000000"))
            await client.send(PIECE)
            await upload.reading.wait()
        with trio.fail_after(5):
            await upload.ended.wait()
        assert 'outcome="cancelled",provider="main"} 1.0' in await metrics(daemon)


async def test_a_client_that_sends_nothing_is_not_waited_for(jumping_clock: object) -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head("content-length: 100000000"))
        answer = await client.until_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_garbage_in_a_chunked_body_is_a_400() -> None:
    upload = Upload()
    async with passing(greeting=upload) as (daemon, _, _), await daemon.connect() as client:
        await client.send(head("transfer-encoding: chunked") + b"zz\r\n")
        assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")


async def test_a_second_request_on_the_same_connection() -> None:
    async with passing(reply(b"one"), reply(b"two")) as (daemon, _, _), await daemon.connect() as client:
        for text in (b"one", b"two"):
            got = await client.request("POST", "/passthrough/main/v1/x", b"{}", authorization="Bearer sk-alice")
            assert got.body == text


# ---------------------------------------------------------------- limits and the circuit


async def test_a_vendor_that_cannot_be_reached() -> None:
    async with passing(reply(b"{}")) as (daemon, peer, _):
        peer.stop_listening()
        got = await daemon.ask("alice", "GET", "/passthrough/main/v1/files")
    assert got.status == 502
    assert got.json["error"]["code"] == "network"


async def test_an_open_circuit_is_a_refusal_without_a_call() -> None:
    async with passing(reply(b"{}", 500)) as (daemon, peer, _):
        statuses = [(await daemon.ask("alice", "GET", "/passthrough/main/v1/x")).status for _ in range(12)]
        asked = len(peer.requests)
    assert statuses[0] == 500
    assert statuses[-1] == 503
    assert asked < 12


async def test_a_providers_slots_are_for_all() -> None:
    go_on = trio.Event()

    async def held(call: Call) -> None:
        await go_on.wait()
        await reply(b"{}")(call)

    limits = Limits(max_concurrency=1)
    async with passing(held, limits=limits) as (daemon, peer, _), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(daemon.ask, "alice", "GET", "/passthrough/main/v1/x")
        with trio.fail_after(5):
            await peer.until(lambda: peer.open_requests == 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(peer.requests) == 1
        go_on.set()


async def test_a_callers_limit_counts_it() -> None:
    keys: dict[str, Any] = {"alice": {"passthrough": ALL, "limits": Limits(requests_per_minute=1, wait_s=0)}}
    async with passing(reply(b"{}"), **keys) as (daemon, peer, _):
        assert (await daemon.ask("alice", "GET", "/passthrough/main/v1/x")).status == 200
        got = await daemon.ask("alice", "GET", "/passthrough/main/v1/x")
        assert got.status == 429
        assert int(got.headers["retry-after"]) > 0
        assert len(peer.requests) == 1


async def test_a_budget_refuses_what_may_cost_money_and_has_no_price() -> None:
    async with passing(reply(b"{}"), budgets={"all": Budget(usd=1.0)}) as (daemon, peer, _):
        assert (await daemon.ask("alice", "GET", "/passthrough/main/v1/files")).status == 200
        got = await daemon.ask("alice", "POST", "/passthrough/main/v1/batches", b"{}")
        assert (got.status, got.json["error"]["code"]) == (402, "budget")
        assert 'unknown_price = "allow"' in got.json["error"]["message"]
        assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "budget", [Budget(usd=1.0, unknown_price="allow"), Budget(usd=1.0, keys=("bob",)), Budget(tokens=5)]
)
async def test_other_budgets_let_it_pass(budget: Budget) -> None:
    async with passing(reply(b"{}"), budgets={"one": budget}) as (daemon, _, _):
        assert (await daemon.ask("alice", "POST", "/passthrough/main/v1/batches", b"{}")).status == 200


async def test_a_drain_lets_it_finish() -> None:
    go_on = trio.Event()

    async def held(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        await go_on.wait()
        await call.send(b"cd")

    got: list[bytes] = []

    async def ask(daemon: Served) -> None:
        got.append((await daemon.ask("alice", "GET", "/passthrough/main/v1/x")).body)

    async with trio.open_nursery() as nursery:
        async with passing(held, drain_s=5) as (daemon, peer, _):
            nursery.start_soon(ask, daemon)
            with trio.fail_after(5):
                await peer.until(lambda: peer.open_requests == 1)

            async def later() -> None:
                await trio.sleep(0.2)
                go_on.set()

            nursery.start_soon(later)
    assert got == [b"abcd"]


def test_the_log_line_names_no_query(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with passing(reply(b"{}")) as (daemon, _, _):
            await daemon.ask("alice", "GET", "/passthrough/main/v1/files?prompt=secret")

    with caplog.at_level("INFO"):
        trio.run(main)
    [line] = [each.getMessage() for each in caplog.records if "passed through" in each.getMessage()]
    assert "of alice: GET main/v1/files passed through: 2xx, 200 in" in line
    assert "cost unknown" in line
    assert "secret" not in line


class _Written:
    """A ledger that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []

    def record(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)


async def test_the_ledger_has_a_row_without_a_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with passing(reply(b"{}"), reply(b"{}", 404)) as (daemon, _, runtime):
        written = _Written()
        monkeypatch.setattr(runtime._tree.services.accounting, "_ledger", written)
        for _ in range(2):
            await daemon.ask("alice", "GET", "/passthrough/main/v1/files")
    rows = [(each.caller, each.provider, each.model, each.outcome, each.cost) for each in written.entries]
    assert rows == [("alice", "main", "passthrough", outcome, None) for outcome in ("ok", "4xx")]


async def test_a_reload_changes_what_is_allowed() -> None:
    async with passing(reply(b"{}")) as (daemon, peer, runtime):
        path = "/passthrough/main/v1/files"
        assert (await daemon.ask("alice", "GET", path)).status == 200
        keys = {"alice": Key(secret=Secret("sk-alice"), passthrough=("POST main/v1/files",))}
        await runtime.reload(msgspec.structs.replace(runtime.config, keys=keys))
        assert (await daemon.ask("alice", "GET", path)).status == 403
        await runtime.reload(msgspec.structs.replace(runtime.config, providers={}))
        assert (await daemon.ask("alice", "POST", path, b"x")).status == 403
        assert len(peer.requests) == 1


async def test_a_provider_that_goes_while_the_body_comes() -> None:
    async with passing(reply(b"{}")) as (daemon, peer, runtime), await daemon.connect() as client:
        await client.send(head("content-length: 3\r\nexpect: 100-continue"))
        assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await runtime.reload(msgspec.structs.replace(runtime.config, providers={}))
        await client.send(b"abc")
        assert (await client.receive()).startswith(b"HTTP/1.1 404 ")
        assert not peer.requests
