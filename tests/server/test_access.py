"""Who may come in: Host, Origin, keys."""

from __future__ import annotations

import pytest

from support.server import open_server
from support.ws import connected, handshake, upgrade

PAGE = "https://app.example"
KEYS = {"alice": "sk-alice-0123456789", "bob": "sk-bob-0123456789"}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "LOCALHOST.", "127.0.0.1:9", "127.9.9.9", "[::1]:80", "me.example"]
)
async def test_loopback_and_configured_names_are_ours(host: str) -> None:
    async with open_server(allowed_hosts=("me.example",)) as server:
        assert (await server.request("GET", "/v1/models", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "localhost.evil.test",
        "127.0.0.1.nip.io",
        "10.1.2.3",
        "0x7f000001",
        "[::1",
        "a b",
        "me.example:1:2",
        "x@localhost",
        "",
    ],
)
async def test_other_names_are_not(host: str) -> None:
    """DNS rebinding."""
    async with open_server(allowed_hosts=("me.example",)) as server:
        reply = await server.request("GET", "/v1/models", host=host)
        assert reply.status in (400, 403)
        if reply.status == 403:
            assert reply.json["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        "https://app.example.evil.test",
        "https://x.app.example",
        "https://app.example:8443",
        "HTTPS://APP.EXAMPLE",
        "",
        "http://app.example",
    ],
)
async def test_pages_of_other_origins_are_refused_before_101(origin: str) -> None:
    async with open_server(allowed_origins=(PAGE,)) as server, await server.connect() as client:
        request = handshake().replace(b"\r\n\r\n", f"\r\norigin: {origin}\r\n\r\n".encode())
        await client.send(request)
        answer = await client.until_closed()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b'"origin_not_allowed"' in answer


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_page_of_our_own_may_connect(scheme: str) -> None:
    """The dashboard; a proxy before us may speak TLS."""
    async with open_server() as server:
        own = f"{server.address.host}:{server.address.port}"
        async with connected(server, host=own, origin=f"{scheme}://{own}") as ws:
            await ws.create()
            assert (await ws.response())[-1]["type"] == "response.completed"
        for other in (
            f"{scheme}://{server.address.host}:1",
            f"{scheme}://evil.test",
            f"ftp://{own}",
            own,
            f"{scheme}://{own}/",
        ):
            assert (await server.request("GET", "/v1/models", origin=other)).status == 403


async def test_a_page_of_a_host_that_is_not_ours_is_refused_though_it_names_itself() -> None:
    """DNS rebinding: Host and Origin agree, and are the attacker's."""
    async with open_server() as server:
        reply = await server.request("GET", "/v1/models", host="evil.test", origin="http://evil.test")
        assert (reply.status, reply.json["error"]["code"]) == (403, "host_not_allowed")


async def test_two_origins_are_none() -> None:
    async with open_server(allowed_origins=(PAGE,)) as server, await server.connect() as client:
        await client.send(handshake().replace(b"\r\n\r\n", f"\r\norigin: {PAGE}\r\norigin: {PAGE}\r\n\r\n".encode()))
        assert (await client.until_closed()).startswith(b"HTTP/1.1 403 ")


async def test_an_allowed_page_may_connect_and_read() -> None:
    async with open_server(allowed_origins=(PAGE,)) as server:
        async with connected(server, origin=PAGE) as ws:
            await ws.create()
            assert (await ws.response())[-1]["type"] == "response.completed"
        reply = await server.request("GET", "/v1/models", origin=PAGE)
        assert reply.headers["access-control-allow-origin"] == PAGE
        asked = await server.request(
            "OPTIONS", "/v1/responses", origin=PAGE, access_control_request_headers="authorization"
        )
        assert (asked.status, asked.headers["access-control-allow-headers"]) == (204, "authorization")
        assert (await server.request("OPTIONS", "/v1/responses", origin="http://evil.test")).status == 403


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-alice-012345678"},
        {"authorization": "Bearer sk-alice-01234567890"},
        {"authorization": "Bearer SK-ALICE-0123456789"},
        {"authorization": "Basic sk-alice-0123456789"},
        {"authorization": "Bearer s\u00e9cret"},
        {"authorization": "Bearer " + "a" * 8000},
        {"x_api_key": "sk-nobody"},
        {"sec_websocket_protocol": "openai-insecure-api-key.sk-nobody, realtime"},
    ],
)
async def test_every_wrong_key_gets_the_same_answer(sent: dict[str, str]) -> None:
    async with open_server(keys=KEYS) as server, await server.connect() as client:
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in sent.items())
        await client.send(
            f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n".encode("latin-1")
        )
        head, _, body = (await client.until_closed()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b'"code":"invalid_api_key"' in body
        assert b"sk-" not in head + body


async def test_a_key_with_nul_or_of_a_megabyte_is_refused() -> None:
    async with open_server(keys=KEYS) as server:
        for key in (b"a\0b", b"a" * 2**20):
            async with await server.connect() as client:
                await client.send(
                    b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer " + key + b"\r\n\r\n"
                )
                assert (await client.until_closed())[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")


@pytest.mark.parametrize("query", ["token=x", "api_key=sk-alice-0123456789", "a=1&ACCESS_TOKEN=", "key=1"])
async def test_a_key_in_the_url_is_refused_so_that_nobody_starts(query: str) -> None:
    async with open_server(keys=KEYS) as server:
        reply = await server.request("GET", f"/v1/models?{query}", authorization="Bearer sk-alice-0123456789")
        assert (reply.status, reply.json["error"]["code"]) == (400, "key_in_query")


@pytest.mark.parametrize("how", ["authorization", "x-api-key", "x-goog-api-key", "api-key"])
async def test_the_key_says_who_calls(how: str) -> None:
    async with open_server(keys=KEYS) as server:
        key = KEYS["bob"] if how != "authorization" else f"bearer {KEYS['bob']}"
        reply = await server.request("POST", "/v1/responses", {"input": "hi"}, **{how: key})
        assert reply.status == 200
        assert server.engine.requests[0].caller == "bob"


async def test_a_browser_offers_the_key_as_a_subprotocol_and_never_sees_it_again() -> None:
    async with open_server(keys=KEYS, allowed_origins=(PAGE,)) as server, await server.connect() as http:
        offer = f"openai-insecure-api-key.{KEYS['alice']}, realtime"
        ws = await upgrade(http, handshake(origin=PAGE, sec_websocket_protocol=offer))
        assert b"sec-websocket-protocol: realtime\r\n" in ws.head.lower() + b"\r\n"  # type: ignore[attr-defined]
        assert b"sk-alice" not in ws.head  # type: ignore[attr-defined]
        await ws.create()
        await ws.response()
        assert server.engine.requests[0].caller == "alice"
