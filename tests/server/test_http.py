"""HTTP/1.1: what is answered, what is refused, and when a connection ends."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from llm_actors.run import Run
from llm_protocol.errors import ModelNotFoundError, QueueFullError
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.config import Server
from llm_runtime.server.limits import HEAD_BYTES
from llm_runtime.server.run_response import BodyStream
from support.server import HttpClient, add_text, begin_text, end_text, hanging, open_server, saying, silent

BODY_BYTES = Server().max_body_bytes
CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "hi"}]}
STREAM = CHAT | {"stream": True}


def chat_text(events: list[Any]) -> str:
    choices = [choice for each in events if each != "[DONE]" for choice in each["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_whole_chat_answer_carries_the_requests_id() -> None:
    async with open_server() as server:
        reply = await server.request("POST", "/v1/chat/completions", CHAT)
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == "Hello"
        assert reply.headers["x-request-id"] == server.engine.requests[0].request_id


async def test_a_streamed_chat_answer_ends_with_done() -> None:
    async with open_server() as server:
        reply = await server.request("POST", "/v1/chat/completions", STREAM)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert chat_text(reply.events) == "Hello"
        assert reply.events[-1] == "[DONE]"


async def test_one_connection_answers_many_requests_also_pipelined_ones() -> None:
    async with open_server() as server, await server.connect() as client:
        for _ in range(3):
            assert (await client.request("POST", "/v1/chat/completions", STREAM)).events[-1] == "[DONE]"
        await client.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3)
        got = b""
        while got.count(b'{"status":"ok"}') < 3:
            got += await client.receive()


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with open_server() as server, await server.connect() as client:
        for byte in b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n":
            await client.send(bytes([byte]))
        assert (await client.receive()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_1_0_gets_its_stream_without_chunks_and_a_closed_connection() -> None:
    async with open_server() as server, await server.connect() as client:
        body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true}'
        await client.send(b"POST /v1/chat/completions HTTP/1.0\r\nhost: localhost\r\ncontent-length: 59\r\n\r\n" + body)
        answer = await client.until_closed()
        assert b"chunked" not in answer
        assert answer.endswith(b"data: [DONE]\n\n")


async def test_head_is_answered_without_a_body() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"HEAD /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = await client.until_closed()
        assert b"content-length: 15\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n".replace(b": a", b": localhost"))
        await client.send(b"content-length: 44\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.receive()) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b'{"messages":[{"role":"user","content":"a"}]}')
        assert (await client.receive()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),  # a TLS ClientHello
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /livez HTTP/1.1\nhost: localhost\n\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: y\nz: 1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: %b\r\n\r\n" % (b"a" * HEAD_BYTES), 431),
        (b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (BODY_BYTES + 1), 413),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    """Bad handshakes and other noise: a status with the reason, the end, and nothing in the log."""
    async with open_server() as server, await server.connect() as client:
        await client.send(sent)
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b'"error":{"message":"' in answer
        assert (await server.request("GET", "/livez")).status == 200


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes() -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
        with trio.move_on_after(20):
            try:
                for _ in range(18):
                    await client.send(chunk)
            except trio.BrokenResourceError:
                pass
        assert (await client.until_closed()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/responses/resp_1", 405, "method_not_allowed"),
        ("GET", "/v1/responses", 426, "upgrade_required"),
        ("GET", "/v1/models/nothing", 404, "model_not_found"),
        ("GET", "/v1/responses/resp_none", 404, "response_not_found"),
    ],
)
async def test_what_is_not_there_is_told_in_the_error_shape(method: str, path: str, status: int, code: str) -> None:
    async with open_server() as server:
        reply = await server.request(method, path)
        assert (reply.status, reply.json["error"]["code"]) == (status, code)
        assert reply.json["error"].keys() == {"message", "type", "code", "param"}


async def test_an_unknown_path_is_answered_with_where_the_apis_are() -> None:
    async with open_server() as server:
        message = (await server.request("GET", "/nowhere")).json["error"]["message"]
        assert message.startswith("No such path. ")
        for base in ("/v1", "/v1beta", "/v2"):
            assert f" {base}" in message


async def test_health_needs_no_key_and_tells_no_names() -> None:
    async with open_server(keys={"me": "sk-secret"}) as server:
        assert (await server.request("GET", "/livez", host="10.0.0.1")).json == {"status": "ok"}
        assert (await server.request("GET", "/health")).status == 200
        assert (await server.request("GET", "/readyz")).status == 200
        server.engine.parked = ("cache",)
        told = await server.request("GET", "/readyz")
        assert (told.status, told.json) == (200, {"status": "ready", "parked": ["cache"]})
        server.engine.ready = False
        told = await server.request("GET", "/readyz")
        assert (told.status, told.json) == (503, {"status": "not ready", "parked": ["cache"]})


async def test_the_tree_is_shown() -> None:
    async with open_server() as server:
        assert (await server.request("GET", "/v1/runtime/tree")).json == {"name": "root"}


async def test_metrics_are_told_to_who_has_a_key() -> None:
    async with open_server(keys={"me": "sk-secret"}, roles={"me": "metrics_only"}) as server:
        assert (await server.request("GET", "/metrics")).status == 401
        assert server.engine.refusals == ["invalid_api_key"]
        told = await server.request("GET", "/metrics", authorization="Bearer sk-secret")
        assert (told.status, told.headers["content-type"].partition(";")[0]) == (200, "text/plain")
        assert told.body == b"up 1\n"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": []}', b"\xff", b"[" * 100_000])
async def test_a_bad_body_is_the_clients_fault_and_names_it(body: bytes) -> None:
    async with open_server() as server:
        for path in ("/v1/chat/completions", "/v1/responses"):
            reply = await server.request("POST", path, body)
            assert reply.status == 400
            assert reply.json["error"]["message"]
        assert server.engine.requests == []


@pytest.mark.parametrize("field", ["base_url", "api_key", "headers", "proxy", "extra_body"])
async def test_where_and_how_providers_are_called_is_not_a_requests_to_say(field: str) -> None:
    async with open_server() as server:
        for path, body in (("/v1/chat/completions", CHAT), ("/v1/responses", {"input": "hi"})):
            assert (await server.request("POST", path, body | {field: "http://127.0.0.1:1"})).status == 400
        assert server.engine.requests == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(ModelNotFoundError("no such model"), 404), (QueueFullError("full"), 429), (RuntimeError("secret text"), 500)],
)
async def test_a_refusal_of_the_engine_is_an_http_error(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(error, saying("on")) as server, await server.connect() as client:
        reply = await client.request("POST", "/v1/chat/completions", STREAM)
        assert reply.status == status
        assert reply.json["error"]["message"]
        assert "secret" not in str(reply.body) + caplog.text
        assert (await client.request("POST", "/v1/chat/completions", CHAT)).status == 200


def failing(kind: FailureKind, *pieces: str) -> object:
    async def script(run: Run) -> None:
        if pieces:
            await saying_without_end(run, *pieces)
        run.fail(Failure(kind=kind, message="it broke", retry_after=2.0, partial=bool(pieces)))

    return script


async def saying_without_end(run: Run, *pieces: str) -> None:
    from support.server import add_text

    begin_text(run)
    for piece in pieces:
        add_text(run, piece)
    await trio.lowlevel.checkpoint()


async def test_a_failure_before_the_first_token_keeps_its_status_though_a_stream_was_asked_for() -> None:
    async with open_server(failing(FailureKind.RATE_LIMITED)) as server:  # type: ignore[arg-type]
        reply = await server.request("POST", "/v1/chat/completions", STREAM)
        assert (reply.status, reply.headers["retry-after"]) == (429, "2")
        assert reply.json["error"]["code"] == "rate_limit_exceeded"


async def test_a_failure_after_tokens_is_told_in_the_stream() -> None:
    async with open_server(failing(FailureKind.CRASHED, "half")) as server:  # type: ignore[arg-type]
        chat = await server.request("POST", "/v1/chat/completions", STREAM)
        assert chat.status == 200
        assert any("error" in e for e in chat.events if isinstance(e, dict))
        whole = await server.request("POST", "/v1/chat/completions", CHAT)
        assert (whole.status, whole.headers["x-should-retry"]) == (500, "false")


async def test_an_answer_that_is_too_large_is_not_asked_for_again_by_the_client() -> None:
    """It was made and is billed; without the header OpenAI's and Anthropic's clients ask again at a 502."""
    for kind in (FailureKind.ANSWER_TOO_LARGE, FailureKind.LOG_LIMIT):
        async with open_server(failing(kind)) as server:  # type: ignore[arg-type]
            reply = await server.request("POST", "/v1/chat/completions", CHAT)
            assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("script", [silent, hanging])
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_client_that_leaves_cancels_its_run(how: str, script: object, body: dict[str, object]) -> None:
    """over HTTP: FIN or RST, before the first token and in mid-stream: cancelled within a second."""
    async with open_server(script) as server:  # type: ignore[arg-type]
        client = await server.connect()
        await client.begin("POST", "/v1/chat/completions", body)
        await server.engine.until(lambda: server.engine.open_runs == 1)
        if how == "half-close":
            await client.stream.send_eof()
        elif how == "close":
            client.close()
        else:
            client.reset()
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)
        client.close()


async def test_an_idle_event_stream_is_kept_alive(jumping_clock: MockClock) -> None:
    async def late(run: Run) -> None:
        begin_text(run)
        await trio.sleep(40)
        end_text(run)

    async with open_server(late) as server:
        reply = await server.request("POST", "/v1/chat/completions", STREAM)
        assert reply.body.count(b": ping\n\n") == 2
        assert reply.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nho",
        b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nab",
    ],
)
async def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes, jumping_clock: MockClock) -> None:
    """Slow heads and bodies."""
    async with open_server() as server, await server.connect() as client:
        await client.send(sent)
        started = trio.current_time()
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""
        assert trio.current_time() - started <= 12


async def test_an_idle_connection_is_closed_after_a_while(jumping_clock: MockClock) -> None:
    async with open_server() as server, await server.connect() as client:
        await client.request("GET", "/livez")
        started = trio.current_time()
        assert await client.until_closed() == b""
        assert 70 < trio.current_time() - started < 80


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_leave_at_any_step(stream: bool) -> None:
    """over HTTP: however far its request has come, nothing goes on without it."""
    async with open_server(hanging) as server:
        for steps in range(40):
            client = await server.connect()
            await client.begin("POST", "/v1/chat/completions", CHAT | {"stream": stream})
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            client.close()
        await server.until(lambda: server.connections == 0)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)


async def test_a_client_that_pipelines_without_measure_is_cut_off() -> None:
    async with open_server(hanging) as server, await server.connect() as client:
        await client.begin("POST", "/v1/chat/completions", STREAM)
        await server.engine.until(lambda: server.engine.open_runs == 1)
        with suppress(trio.BrokenResourceError):
            await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n" + b"a" * 150_000)
        await server.engine.until(lambda: server.engine.open_runs == 0, seconds=1)


async def read_to_the_end(client: HttpClient) -> None:
    while await client.receive():
        pass


async def test_a_stream_that_crashes_its_connection_does_not_seem_to_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the end of the connection is that of the body, that is a reset."""
    goes_on = trio.Event()

    async def in_two_halves(run: Run) -> None:
        begin_text(run)
        add_text(run, "first ")
        await goes_on.wait()
        add_text(run, "second")
        end_text(run)

    async with open_server(in_two_halves) as server, await server.connect() as client:
        await client.begin("POST", "/v1/chat/completions", STREAM, connection="close")
        said = b""
        while b"first" not in said:
            said += await client.receive()

        def crashing(*_: object) -> bytes:
            raise RuntimeError("a bug")

        monkeypatch.setattr(BodyStream, "write", crashing)
        monkeypatch.setattr(BodyStream, "finish", crashing)
        goes_on.set()
        with pytest.raises(trio.BrokenResourceError):
            await read_to_the_end(client)


async def test_a_stream_is_not_held_back_by_a_proxy() -> None:
    async with open_server() as server:
        reply = await server.request("POST", "/v1/responses", {"input": "hi", "stream": True})
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["cache-control"] == "no-cache"
