"""Names: typed errors in time, few threads, and no hanging name in the way of another."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.transport import (
    ConnectFailed,
    ConnectTimeout,
    Origin,
    OutOfResources,
    ResolvedAddress,
    Resolver,
    TcpDial,
    Transport,
)
from support.outgoing import fetch, post, transport_to
from support.peer import Peer, reply

UNROUTABLE = ResolvedAddress(socket.AF_INET, ("0.0.0.0", 1))


class Names:
    """A name service by script; names not in it hang until ``wake``."""

    def __init__(self) -> None:
        self.known: dict[str, Callable[[int], list[ResolvedAddress]]] = {}
        self.asked: list[str] = []
        self.wake = threading.Event()
        self.arrived = threading.Semaphore(0)

    def lookup(self, host: str, port: int) -> list[ResolvedAddress]:
        self.asked.append(host)
        self.arrived.release()
        if host not in self.known:
            self.wake.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.known[host](port)

    async def wait_asked(self, times: int) -> None:
        for _ in range(times):
            await trio.to_thread.run_sync(self.arrived.acquire, True, 5)

    def add(self, host: str, *addresses: str) -> None:
        self.known[host] = lambda port: [ResolvedAddress(socket.AF_INET, (address, port)) for address in addresses]

    def fail(self, host: str, code: int, text: str) -> None:
        def failing(port: int) -> list[ResolvedAddress]:
            raise socket.gaierror(code, text)

        self.known[host] = failing


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.wake.set()


def at(host: str, port: int = 80) -> Origin:
    return Origin("http", host, port)


@pytest.mark.parametrize(
    ("code", "text"),
    [(socket.EAI_NONAME, "Name or service not known"), (socket.EAI_AGAIN, "Temporary failure in name resolution")],
)
async def test_name_that_does_not_resolve_is_a_failed_connection(names: Names, code: int, text: str) -> None:
    names.fail("gone.test", code, text)
    transport = Transport(dial=TcpDial(Resolver(names.lookup)))
    with pytest.raises(ConnectFailed, match=rf"^http://gone.test: the name does not resolve \({text}\)"):
        await fetch(transport, post(origin=at("gone.test")))


async def test_name_without_addresses_is_a_failed_connection(names: Names) -> None:
    names.add("empty.test")
    with pytest.raises(ConnectFailed, match="does not resolve"):
        await fetch(Transport(dial=TcpDial(Resolver(names.lookup))), post(origin=at("empty.test")))


async def test_hanging_name_ends_at_the_connect_timeout(names: Names) -> None:
    transport = Transport(dial=TcpDial(Resolver(names.lookup)))
    with pytest.raises(ConnectTimeout, match=r"^http://hang.test: no connection within 0.01 s"):
        async with transport.send(post(origin=at("hang.test")), connect_timeout=0.01):
            pass
    assert transport.statistics().connecting == 0


async def test_many_requests_for_a_hanging_name_cost_one_thread_and_block_nobody(names: Names) -> None:
    names.add("good.test", "127.0.0.1")
    async with Peer(reply(b"ok")) as peer:
        dial = TcpDial(Resolver(names.lookup, threads=2))
        async with transport_to(peer, dial=dial) as transport, trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(fetch, transport, post(origin=at("hang.test")))
            await names.wait_asked(1)
            assert await fetch(transport, post(origin=at("good.test", peer.port))) == (200, b"ok")
            assert names.asked == ["hang.test", "good.test"]
            nursery.cancel_scope.cancel()


async def test_threads_are_bounded_and_waiting_for_one_is_too(names: Names) -> None:
    resolver = Resolver(names.lookup, threads=2)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(resolver.resolve, f"hang{number}.test", 80)
        await names.wait_asked(2)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(names.asked) == 2


async def test_lookup_whose_thread_does_not_start_fails_and_the_next_one_is_made(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.add("good.test", "127.0.0.1")
    resolver = Resolver(names.lookup, threads=1)

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(trio.lowlevel, "start_thread_soon", no_thread)
        with pytest.raises(OutOfResources, match=r"^http://good\.test: Cannot allocate memory"):
            await fetch(Transport(dial=TcpDial(resolver)), post(origin=at("good.test")))
    with trio.fail_after(5):
        assert await resolver.resolve("good.test", 1) == [ResolvedAddress(socket.AF_INET, ("127.0.0.1", 1))]
        assert await resolver.resolve("good.test", 80) == [ResolvedAddress(socket.AF_INET, ("127.0.0.1", 80))]


async def test_caller_that_leaves_does_not_end_the_lookup_of_the_others(names: Names) -> None:
    found: list[BaseException] = []
    resolver = Resolver(names.lookup)

    async def wait() -> None:
        try:
            await resolver.resolve("hang.test", 80)
        except OSError as exc:
            found.append(exc)

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def leave() -> None:
            with first:
                await wait()

        nursery.start_soon(leave)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        names.wake.set()
    assert len(found) == 1
    assert names.asked == ["hang.test"]


async def test_all_who_wait_for_a_name_get_its_error(names: Names) -> None:
    transport = Transport(dial=TcpDial(Resolver(names.lookup)))
    failures: list[str] = []

    async def ask() -> None:
        with pytest.raises(ConnectFailed) as caught:
            await fetch(transport, post(origin=at("hang.test")))
        failures.append(caught.value.reason)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        names.wake.set()
    assert failures == ["the name does not resolve (Temporary failure in name resolution)"] * 3
    assert names.asked == ["hang.test"]


async def test_host_that_is_no_name_is_a_failed_connection() -> None:
    with pytest.raises(ConnectFailed, match="not a host name"):
        await fetch(Transport(), post(origin=at("a" * 64 + ".test")))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that neither accepts nor refuses: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_next_address_is_tried_while_the_first_is_silent(
    autojump_clock: MockClock, names: Names, silent_port: int
) -> None:
    async with Peer() as peer:
        ports = [silent_port, peer.port]
        names.known["api.test"] = lambda _: [ResolvedAddress(socket.AF_INET, ("127.0.0.1", port)) for port in ports]
        start = trio.current_time()
        stream = await TcpDial(Resolver(names.lookup))("api.test", 80)
        assert trio.current_time() - start == pytest.approx(0.25)
        assert stream.socket.getpeername()[1] == peer.port
        await stream.aclose()


async def test_cancel_while_connecting_closes_the_attempt(autojump_clock: MockClock, silent_port: int) -> None:
    """A socket left open would be a ResourceWarning here, and that is an error."""
    transport = Transport()
    with pytest.raises(ConnectTimeout, match=r"no connection within 10 s \(connecting\)"):
        await fetch(transport, post(origin=at("127.0.0.1", silent_port)))
    gc.collect()
    assert transport.statistics().connecting == 0


async def test_name_that_moves_is_looked_up_for_every_new_connection(names: Names) -> None:
    async with Peer(reply(b"ok")) as peer:
        dial = TcpDial(Resolver(names.lookup))
        async with transport_to(peer, dial=dial, idle_seconds=0) as transport:
            names.known["api.test"] = lambda port: [UNROUTABLE]
            with pytest.raises(ConnectFailed):
                await fetch(transport, post(origin=at("api.test", peer.port)))
            names.add("api.test", "127.0.0.1")
            assert await fetch(transport, post(origin=at("api.test", peer.port))) == (200, b"ok")


async def test_next_address_is_tried_at_once_when_one_refuses(autojump_clock: MockClock, names: Names) -> None:
    async with Peer() as peer:
        good = ResolvedAddress(socket.AF_INET, ("127.0.0.1", peer.port))
        names.known["api.test"] = lambda _: [UNROUTABLE, UNROUTABLE, good]
        start = trio.current_time()
        stream = await TcpDial(Resolver(names.lookup))("api.test", 80)
        assert trio.current_time() == start
        await stream.aclose()


async def test_addresses_need_no_name_service(names: Names) -> None:
    async with Peer(reply(b"ok")) as peer, transport_to(peer, dial=TcpDial(Resolver(names.lookup))) as transport:
        assert await fetch(transport, post(origin=at("127.0.0.1", peer.port))) == (200, b"ok")
        assert names.asked == []


async def test_localhost_resolves_for_real() -> None:
    async with Peer(reply(b"ok")) as peer, transport_to(peer, dial=TcpDial()) as transport:
        assert await fetch(transport, post(origin=at("localhost", peer.port))) == (200, b"ok")
