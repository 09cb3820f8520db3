"""The spellings of a path, and how a client is told that there is none, or not with that method."""

from __future__ import annotations

from typing import Any

import pytest

from support.server import open_server

SAID = [{"role": "user", "content": "hi"}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": SAID},
    "/chat/completions/": {"messages": SAID},
    "/v1/chat/completions/": {"messages": SAID},
    "/v1/v1/chat/completions": {"messages": SAID},
    "/responses": {"input": "hi"},
    "/v1/responses/": {"input": "hi"},
    "/embeddings": {"model": "m", "input": "hi"},
    "/messages": {"model": "m", "messages": SAID, "max_tokens": 9},
    "/v1/v1/messages": {"model": "m", "messages": SAID, "max_tokens": 9},
    "/models/m:generateContent": CONTENTS,
    "/v1/models/m:generateContent": CONTENTS,
    "/v1beta/v1beta/models/m:generateContent": CONTENTS,
    "/v1beta/models/fake/m:generateContent": CONTENTS,
    "/v1beta/models/fake%2Fm:generateContent": CONTENTS,
    "/v1beta/fake/m:generateContent": CONTENTS,
    "/v1beta/models/fake%2fm:generateContent/": CONTENTS,
    "/v1/v2/chat": {"model": "m", "messages": SAID},
    "/v2/chat/": {"model": "m", "messages": SAID},
}


@pytest.mark.parametrize("path", BODIES)
async def test_base_urls_are_written_in_many_ways(path: str) -> None:
    async with open_server() as server:
        reply = await server.request("POST", path, BODIES[path])
        assert reply.status == 200, reply.body
        if "fake" in path:
            assert server.engine.requests[0].model == "fake/m"


async def test_a_path_that_leads_outside_the_api_is_not_bent_into_it() -> None:
    async with open_server() as server:
        for path in ("//livez", "/v1/v1/v1/models", "/v3/models", "/v1/../livez", "/x/v1/models"):
            assert (await server.request("GET", path)).status == 404, path


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "error"),
    [
        ("POST", "/v1/nothing", {}, 404, {"type": "invalid_request_error", "code": "not_found"}),
        ("GET", "/v1/chat/completions", {}, 405, {"type": "invalid_request_error", "code": "method_not_allowed"}),
        ("POST", "/v1/messages/batches", {}, 404, {"type": "not_found_error"}),
        ("POST", "/v1/files", {"anthropic_version": "2023-06-01"}, 404, {"type": "not_found_error"}),
        ("GET", "/v1/messages", {}, 405, {"type": "invalid_request_error"}),
        ("POST", "/v1beta/files", {}, 404, {"code": 404, "status": "NOT_FOUND"}),
        ("GET", "/v1beta/cachedContents", {}, 404, {"code": 404, "status": "NOT_FOUND"}),
        ("POST", "/v1/files", {"x_goog_api_key": "k"}, 404, {"code": 404, "status": "NOT_FOUND"}),
        ("DELETE", "/v1beta/models/m", {}, 405, {"code": 405}),
    ],
)
async def test_what_is_not_there_is_told_in_the_clients_own_form(
    method: str, path: str, headers: dict[str, str], status: int, error: dict[str, Any]
) -> None:
    async with open_server() as server:
        reply = await server.request(method, path, **headers)
        assert reply.status == status
        assert reply.json["error"].items() >= error.items()


async def test_coheres_clients_read_another_form() -> None:
    async with open_server() as server:
        for path in ("/v2/nothing", "/v2/chat"):
            reply = await server.request("GET", path)
            assert reply.status == (404 if path == "/v2/nothing" else 405)
            assert reply.json["message"]


async def test_anthropics_clients_find_the_requests_id_under_their_own_name() -> None:
    async with open_server() as server:
        for path in ("/v1/messages", "/v1/messages/nothing"):
            reply = await server.request("POST", path, BODIES["/messages"])
            assert reply.headers["request-id"] == reply.headers["x-request-id"]


async def test_pages_may_read_our_headers() -> None:
    async with open_server(allowed_origins=("https://page",)) as server:
        reply = await server.request("POST", "/v1/chat/completions", BODIES["/chat/completions"], origin="https://page")
        assert reply.headers["access-control-expose-headers"] == "*"
