"""Room for connections: strangers have their share, and those who belong are never shut out."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.config import Server, ServerLimits
from llm_runtime.server.access import ConnectionAdmission
from llm_runtime.server.limits import RESERVED_CONNECTIONS, UNVERIFIED_SHARE
from support.server import OpenServer, hanging, open_server

KEYS = {"me": "sk-secret-0123456789"}
MINE = {"authorization": "Bearer sk-secret-0123456789"}


class Visitor:
    """A connection from ``peer_host``."""

    def __init__(self, peer_host: str = "198.51.100.1") -> None:
        self.peer_host = peer_host
        self.gone = False

    def evict(self) -> None:
        self.gone = True


def visitors(admission: ConnectionAdmission[Visitor], hosts: list[str]) -> list[Visitor]:
    found = [Visitor(host) for host in hosts]
    for each in found:
        admission.admit(each)
    return found


def gone(found: list[Visitor]) -> int:
    return sum(each.gone for each in found)


def test_one_address_has_fifty_connections_without_a_key_and_the_next_takes_the_oldest_place() -> None:
    admission = ConnectionAdmission[Visitor](ServerLimits(), has_keys=True)
    found = visitors(admission, ["198.51.100.1"] * 50)
    assert gone(found) == 0
    visitors(admission, ["198.51.100.1"])
    assert [each.gone for each in found] == [True] + [False] * 49
    assert len(admission) == admission.unverified == 50
    visitors(admission, ["198.51.100.2"])
    assert gone(found) == 1, "another address is another's"


def test_strangers_of_many_addresses_have_a_quarter_of_what_is_left() -> None:
    admission = ConnectionAdmission[Visitor](ServerLimits(), has_keys=True)
    hosts = [f"198.51.{number}.1" for number in range(1_000 // UNVERIFIED_SHARE)]
    found = visitors(admission, hosts)
    assert gone(found) == 0
    visitors(admission, ["203.0.113.1"])
    assert [each.gone for each in found[:2]] == [True, False]
    for each in found[1:101]:
        admission.mark_verified(each)
    more = visitors(admission, [f"203.0.113.{number}" for number in range(2, 100)])
    assert admission.unverified == (1_000 - 100) // UNVERIFIED_SHARE
    assert gone(found[1:101] + more) == 0, "who has shown a key stays"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "", "10.1.2.3", "2001:db8::5"])
def test_shared_addresses_are_limited_only_by_the_whole(host: str) -> None:
    proxies = ("10.0.0.0/8", "2001:db8::5")
    admission = ConnectionAdmission[Visitor](ServerLimits(max_connections=100), has_keys=True, proxies=proxies)
    found = visitors(admission, [host] * 100)
    assert gone(found) == 0
    visitors(admission, [host])
    assert [each.gone for each in found[:2]] == [True, False]
    assert len(admission) == 100


def test_without_keys_nobody_is_counted_by_address() -> None:
    admission = ConnectionAdmission[Visitor](ServerLimits(max_connections=100), has_keys=False)
    assert gone(visitors(admission, ["198.51.100.1"] * 100)) == 0


def test_an_ipv6_network_is_one_peer() -> None:
    admission = ConnectionAdmission[Visitor](ServerLimits(max_unverified_per_peer=2), has_keys=True)
    found = visitors(admission, ["2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:1::3", "2001:db8:1:2::1"])
    assert [each.gone for each in found] == [True, False, False, False]


def test_a_room_full_of_known_ones_has_a_reserve() -> None:
    admission = ConnectionAdmission[Visitor](ServerLimits(max_connections=3), has_keys=True)
    known = visitors(admission, ["127.0.0.1"] * 3)
    for each in known:
        admission.mark_verified(each)
    reserved = visitors(admission, ["127.0.0.1"] * RESERVED_CONNECTIONS)
    assert all(admission.is_reserved(each) for each in reserved)
    assert gone(reserved) == 0
    (late,) = visitors(admission, ["127.0.0.1"])
    assert [each.gone for each in reserved[:2]] == [True, False]
    assert gone(known) == 0
    admission.mark_verified(late)
    assert admission.is_reserved(late), "a place in the reserve is no other place"
    admission.remove(known[0])
    (next_one,) = visitors(admission, ["127.0.0.1"])
    assert not admission.is_reserved(next_one)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=200), st.booleans())
def test_whatever_happens_the_books_balance(steps: list[tuple[int, int]], has_keys: bool) -> None:
    limits = ServerLimits(max_connections=6, max_unverified_per_peer=2)
    admission = ConnectionAdmission[Visitor](limits, has_keys=has_keys)
    present: list[Visitor] = []
    for action, number in steps:
        if action <= 1:
            present.append(Visitor(f"198.51.100.{number % 5}" if action else "127.0.0.1"))
            admission.admit(present[-1])
        elif present:
            one = present[number % len(present)]
            if action == 2:
                admission.mark_verified(one)
            else:
                admission.remove(one)
                present.remove(one)
        present = [each for each in present if not each.gone]
        reserved = sum(admission.is_reserved(each) for each in present)
        assert len(admission) == len(present)
        assert len(present) - reserved <= limits.max_connections
        assert reserved <= RESERVED_CONNECTIONS
    for each in present:
        admission.remove(each)
    assert len(admission) == 0
    assert (admission._by_peer, admission._counted) == ({}, {})


# -- the same at the server --------------------------------------------------------------------------------------------


async def fill(server: OpenServer, count: int, **headers: str) -> None:
    """Connections that belong."""
    for _ in range(count):
        client = await server.connect()
        assert (await client.request("GET", "/v1/models", **headers)).status == 200


@pytest.mark.parametrize("keys", [{}, KEYS])
async def test_silent_connections_shut_nobody_out(keys: dict[str, str]) -> None:
    mine = MINE if keys else {}
    async with open_server(max_connections=4, keys=keys) as server:
        silent = [await server.connect() for _ in range(10)]
        await fill(server, 4, **mine)
        for client in silent:
            assert b"connection_limit" in await client.until_closed()
        async with await server.connect() as late:
            assert (await late.request("GET", "/v1/models", **mine)).status == 429


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("keys", [{}, KEYS])
async def test_a_request_that_is_here_is_judged_before_later_connections_are_let_in(
    before: int, keys: dict[str, str]
) -> None:
    """They wait in the kernel together; the silent ones that come behind it must not take its place."""
    async with open_server(max_connections=4, keys=keys) as server:
        with ExitStack() as clients:
            connect = partial(socket.create_connection, ("127.0.0.1", server.address.port))
            for _ in range(before):
                clients.enter_context(connect())
            mine = clients.enter_context(connect())
            mine.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % authorization(keys))
            for _ in range(20):
                clients.enter_context(connect())
            await trio.lowlevel.wait_readable(mine)
            assert mine.recv(1000).startswith(b"HTTP/1.1 200 ")


def authorization(keys: dict[str, str]) -> bytes:
    return b"".join(f"authorization: Bearer {secret}\r\n".encode() for secret in keys.values())


async def test_a_full_server_answers_health_and_metrics_and_nothing_else() -> None:
    async with open_server(hanging, max_connections=2, keys=KEYS, roles=dict.fromkeys(KEYS, "admin")) as server:
        await fill(server, 2, **MINE)
        for path in ("/livez", "/readyz", "/health"):
            assert (await server.request("GET", path)).status == 200
        assert (await server.request("GET", "/metrics")).status == 401
        reply = await server.request("GET", "/metrics", **MINE)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        reply = await server.request("POST", "/v1/responses", {"input": "hi"}, **MINE)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert (await server.request("GET", "/v1/models")).status == 429
        assert server.engine.requests == []


async def test_who_asks_for_health_alone_does_not_belong() -> None:
    async with open_server(max_connections=2, keys=KEYS) as server:
        probes = [await server.connect() for _ in range(2)]
        for probe in probes:
            assert (await probe.request("GET", "/livez")).status == 200
        await fill(server, 2, **MINE)
        for probe in probes:
            assert b"connection_limit" in await probe.until_closed()


def test_the_default_is_a_thousand() -> None:
    assert Server().max_connections == 1_000
