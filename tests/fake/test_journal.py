"""What the journal tells, in process and over HTTP, and TLS."""

import ssl

import pytest
import trio
import trustme
from trio.testing import MockClock

from llm_actors.transport import TlsTrust
from llm_protocol.requests import LLMProvider
from llm_runtime.fake import CallState, FakeProvider, Fault, ScriptRule, provider
from llm_runtime.fake.connection import ANSWER_SECONDS
from llm_runtime.fake.journal import MAX_BODY_BYTES, MAX_REQUESTS
from support.faking import KEY, ask, chat
from support.server import HttpClient

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_a_client_that_leaves_early_is_noticed(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(fault=Fault.STALL)) as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            await client.begin("POST", "/v1/chat/completions", BODY)
            await client.head()
            await fake.journal.until(lambda journal: journal.open == 1)
        with trio.fail_after(1):
            await fake.journal.until(lambda journal: journal.left == 1)
        (seen,) = fake.journal.requests
        assert (seen.state, seen.status, fake.journal.open) == (CallState.LEFT, 200, 0)
        assert seen.ended_s is not None
        assert seen.ended_s >= seen.began_s


async def test_it_is_told_over_http_and_holds_no_key(autojump_clock: MockClock) -> None:
    async with FakeProvider(key=KEY) as fake:
        await ask(fake, LLMProvider.ANTHROPIC, chat(), stream=True)
        await ask(fake, LLMProvider.GEMINI, chat(model="fault-500"), stream=False)
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            told = await client.request("GET", "/_fake/journal")
            again = await client.request("GET", "/_fake/journal")
        assert KEY.encode() not in told.body
        assert again.json["asked"] == 2  # looking is not asking
        first, second = told.json["requests"]
        assert first["kind"] == "anthropic"
        assert first["body"]["messages"][0]["content"] == "Hello there, friend."
        assert (first["model"], first["request_type"], first["stream"], first["state"]) == (
            "m",
            "chat",
            True,
            "answered",
        )
        assert (second["path"], second["status"]) == ("/gemini/v1beta/models/fault-500:generateContent", 500)


async def test_it_is_bounded(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            for number in range(MAX_REQUESTS + 5):
                await client.request("GET", f"/v1/models/{number}")
            await client.request("POST", "/v1/chat/completions", b"x" * (MAX_BODY_BYTES + 1))
            await fake.journal.until(lambda journal: journal.open == 0)
        assert len(fake.journal.requests) == MAX_REQUESTS
        assert fake.journal.asked == fake.journal.answered == MAX_REQUESTS + 6
        assert len(fake.journal.requests[-1].body) == MAX_BODY_BYTES


async def test_a_long_request_is_named_but_not_kept(autojump_clock: MockClock) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]}
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            for sent in (BODY, body):
                assert (await client.request("POST", "/v1/chat/completions", sent)).status == 200
        short, long = fake.journal.requests
        assert short.request is not None
        assert long.request is None
        assert (long.model, long.to_json()["request_type"]) == ("m", "chat")


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            await client.send(
                b"GET /v1/models/a HTTP/1.1\r\nhost: h\r\n\r\nGET /v1/models/b HTTP/1.1\r\nhost: h\r\n\r\n"
            )
            await fake.journal.until(lambda journal: journal.answered == 2)
        assert [seen.path for seen in fake.journal.requests] == ["/v1/models/a", "/v1/models/b"]


async def test_an_http_1_0_client_reads_to_the_end_of_the_connection(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
            head = b"POST /v1/chat/completions HTTP/1.0\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body)
            await client.send(head + body)
            answer = await client.until_closed()
        assert b"transfer-encoding" not in answer
        assert answer.endswith(b"data: [DONE]\n\n")


async def test_what_is_no_http_is_refused(autojump_clock: MockClock) -> None:
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            await client.send(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
            assert (await client.until_closed()).startswith(b"HTTP/1.1 400 ")


async def test_a_new_script_counts_from_the_beginning(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(status=500, times=1)) as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            statuses = [(await client.request("POST", "/v1/chat/completions", BODY)).status for _ in range(2)]
            fake.script(ScriptRule(status=429, times=1))
            statuses += [(await client.request("POST", "/v1/chat/completions", BODY)).status for _ in range(2)]
        assert statuses == [500, 200, 429, 200]


async def test_leaving_the_block_closes_what_is_open(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(fault=Fault.STALL)) as fake:
        client = HttpClient(await fake.dial("fake.test", 80))
        await client.begin("POST", "/v1/chat/completions", BODY)
        await client.head()
    async with client:
        with trio.fail_after(1):
            await client.until_closed()


async def test_no_answer_takes_for_ever(autojump_clock: MockClock) -> None:
    async with FakeProvider(ScriptRule(fault=Fault.STALL)) as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as client:
            await client.begin("POST", "/v1/chat/completions", BODY)
            while await client.stream.receive_some():
                pass
        assert trio.current_time() == pytest.approx(ANSWER_SECONDS)
        assert fake.journal.answered == 1


async def test_more_connections_than_there_may_be_are_closed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "MAX_CONNECTIONS", 1)
    async with FakeProvider() as fake:
        async with HttpClient(await fake.dial("fake.test", 80)) as first:
            assert (await first.request("GET", "/v1/models")).status == 200
            async with HttpClient(await fake.dial("fake.test", 80)) as second:
                assert await second.until_closed() == b""
            assert (await first.request("GET", "/v1/models")).status == 200


async def test_the_blocks_own_error_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError):
        async with FakeProvider():
            raise KeyError


@pytest.mark.parametrize("fault", [None, Fault.RESET, Fault.CLOSE])
async def test_tls(autojump_clock: MockClock, fault: Fault | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over TLS all is the same; a close in the middle is one without TLS's own goodbye."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    trust = TlsTrust(ca_file=str(file))
    trust.context()  # read before virtual time begins: it takes a thread
    async with FakeProvider(ScriptRule(fault=fault), tls=context) as fake:
        assert fake.url.startswith("https://")
        asked = await ask(fake, LLMProvider.ANTHROPIC, chat(), stream=True, trust=trust)
        assert asked.outcome
        assert (asked.text == "You said: Hello there, friend.") is (fault is None)
