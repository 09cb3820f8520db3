"""Wrong keys are throttled by the peer they come from; right ones are not."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from llm_runtime.server.limits import FAILED_LOGINS, LOGIN_SECONDS, WATCHED_PEERS
from llm_runtime.server.logins import FailedLogins
from support.server import Reply, open_server
from support.ws import connected, handshake

KEYS = {"alice": "sk-alice-0123456789"}
ALICE = {"authorization": "Bearer sk-alice-0123456789"}
WRONG = {"authorization": "Bearer sk-alice-012345678"}
HERE = "127.0.0.1"


def refusals(logins: FailedLogins, host: str, count: int) -> list[bool]:
    """Whether each of ``count`` wrong keys was throttled."""
    return [logins.another(host) is not None for _ in range(count)]


def said(answer: Reply) -> tuple[int, dict[str, str], bytes]:
    """An answer without what differs from one to the next."""
    return answer.status, {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date")}, answer.body


async def test_many_wrong_keys_are_told_to_wait_and_hung_up_on(
    jumping_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(keys=KEYS) as server:
        for _ in range(FAILED_LOGINS):
            assert (await server.request("GET", "/v1/models", **WRONG)).status == 401
        wait = LOGIN_SECONDS
        for _ in range(3):
            refused = await server.request("GET", "/v1/models", **WRONG)
            assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_incorrect_keys")
            assert refused.headers["connection"] == "close"
            wait = int(refused.headers["retry-after"])
            assert 1 <= wait <= LOGIN_SECONDS
        await trio.sleep(wait)
        assert (await server.request("GET", "/v1/models", **WRONG)).status == 401
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    one, many = (
        f"a wrong key from {HERE}",
        f"more than {FAILED_LOGINS} wrong keys from {HERE} within {LOGIN_SECONDS:g} s",
    )
    assert lines == [*[one] * FAILED_LOGINS, many, one]  # beyond so many it is one line for all


async def test_a_missing_key_is_told_apart_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_server(keys=KEYS) as server:
        assert (await server.request("GET", "/v1/models")).status == 401
    assert [each.getMessage() for each in caplog.records] == [f"a request without a key from {HERE}"]


async def test_a_right_key_from_the_same_address_is_never_locked_out() -> None:
    async with open_server(keys=KEYS) as server:
        for _ in range(5 * FAILED_LOGINS):
            await server.request("GET", "/v1/models", **WRONG)
            assert (await server.request("GET", "/v1/models", **ALICE)).status == 200
        async with connected(server, **ALICE) as ws:
            await ws.create()
            assert (await ws.response())[-1]["type"] == "response.completed"
        assert (await server.request("GET", "/v1/models", **WRONG)).status == 429


async def test_what_needs_no_key_goes_on_and_without_keys_nothing_is_counted() -> None:
    async with open_server(keys=KEYS) as server:
        for _ in range(FAILED_LOGINS + 1):
            await server.request("GET", "/v1/models", **WRONG)
        assert (await server.request("GET", "/livez")).status == 200
    async with open_server() as server:
        for _ in range(FAILED_LOGINS + 1):
            assert (await server.request("GET", "/v1/models", **WRONG)).status == 200


async def test_a_missing_a_wrong_and_an_expired_key_count_and_look_alike() -> None:
    presented: list[dict[str, str]] = [{}, WRONG, {"x_api_key": "sk-old"}]
    async with open_server(keys=KEYS | {"old": "sk-old"}, expires={"old": 0.0}) as server:
        answers = [await server.request("GET", "/v1/models", **presented[at % 3]) for at in range(FAILED_LOGINS + 3)]
    assert len({said(each)[0] for each in answers[:FAILED_LOGINS]}) == 1
    assert all(said(each) == said(answers[0]) for each in answers[:FAILED_LOGINS])
    assert [each.status for each in answers[FAILED_LOGINS:]] == [429] * 3
    assert len({each.body.replace(each.headers["retry-after"].encode(), b"") for each in answers[FAILED_LOGINS:]}) == 1


async def test_a_websocket_is_refused_before_101() -> None:
    async with open_server(keys=KEYS) as server:
        for status in [401] * FAILED_LOGINS + [429]:
            async with await server.connect() as client:
                await client.send(handshake(**WRONG))
                assert (await client.receive()).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/chat/completions", '"type":"rate_limit_error"'),
        ("/v1/messages", '"type":"rate_limit_error"'),
        ("/v1beta/models/m:generateContent", '"status":"RESOURCE_EXHAUSTED"'),
        ("/v2/chat", '"error_type":"too_many_incorrect_keys"'),
    ],
)
async def test_every_wire_says_it_in_its_own_way(path: str, said: str) -> None:
    async with open_server(keys=KEYS) as server:
        for _ in range(FAILED_LOGINS):
            await server.request("POST", path, {}, **WRONG)
        refused = await server.request("POST", path, {}, **WRONG)
        assert refused.status == 429
        assert said in refused.body.decode()


# ---------------------------------------------------------------- the books


async def test_peers_are_counted_apart_and_an_ipv6_network_is_one(mock_clock: MockClock) -> None:
    logins = FailedLogins()
    assert refusals(logins, "192.0.2.1", FAILED_LOGINS + 1)[-1]
    assert not any(refusals(logins, "192.0.2.2", FAILED_LOGINS))
    assert not any(refusals(logins, "2001:db8::1", FAILED_LOGINS))
    assert all(refusals(logins, "2001:db8::ffff:1", 1))
    assert all(refusals(logins, "2001:db8::ffff:1%eth0", 1))
    assert not any(refusals(logins, "2001:db8:0:1::1", FAILED_LOGINS))
    assert not any(refusals(logins, "", FAILED_LOGINS))


async def test_a_window_ends_when_it_said_and_the_wait_shrinks_towards_it(mock_clock: MockClock) -> None:
    logins = FailedLogins()
    refusals(logins, HERE, FAILED_LOGINS)
    waits: list[str] = []
    for passed in (0.0, 0.5, 58.5, 0.75):
        mock_clock.jump(passed)
        refused = logins.another(HERE)
        assert refused is not None
        waits += [value for _, value in refused.headers]
    assert waits == ["60", "60", "1", "1"]
    mock_clock.jump(0.25)
    assert refusals(logins, HERE, FAILED_LOGINS + 1) == [False] * FAILED_LOGINS + [True]


async def test_the_table_is_bounded_and_forgets_who_began_first(mock_clock: MockClock) -> None:
    """A flood of addresses costs a bounded table, and a peer that goes on is not the first to be forgotten."""
    logins = FailedLogins()
    refusals(logins, "first", FAILED_LOGINS)
    for number in range(WATCHED_PEERS - 1):
        logins.another(f"peer {number}")
    assert all(refusals(logins, "first", 1))
    mock_clock.jump(LOGIN_SECONDS)
    refusals(logins, "first", FAILED_LOGINS)
    for number in range(WATCHED_PEERS, 2 * WATCHED_PEERS - 1):
        logins.another(f"peer {number}")
    assert len(logins._windows) == WATCHED_PEERS
    assert all(refusals(logins, "first", 1)), "its new window began after the others'"
    logins.another("one more")
    assert not any(refusals(logins, "first", 1))
