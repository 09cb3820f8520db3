"""Request bodies that come compressed."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd

from llm_runtime.server import content_encoding
from llm_runtime.server.content_encoding import decoded
from llm_runtime.server.http_error import HttpError
from llm_runtime.server.limits import CONTENT_MEMBERS
from support.server import open_server

BODY = json.dumps({"messages": [{"role": "user", "content": "hällo " * 100}]}).encode()


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the time would be in the ids of tests, which must stay the same


def in_members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(data[100:])


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, upper case": ("GZIP", gzip.compress),
    "gzip in two members": ("gzip", in_members),
    "deflate": ("deflate", zlib.compress),
    "deflate without its head": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "two": ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
    "identity": ("identity", bytes),
    "byte order mark": ("", lambda data: b"\xef\xbb\xbf" + data),
}
PATHS = ["/v1/chat/completions", "/v1/responses"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ENCODINGS)
async def test_a_compressed_body_is_read(how: str, path: str) -> None:
    name, compress = ENCODINGS[how]
    body = BODY.replace(b'"messages"', b'"input"') if path == "/v1/responses" else BODY
    async with open_server() as server:
        reply = await server.request("POST", path, compress(body), **({"content_encoding": name} if name else {}))
        assert reply.status == 200, reply.body
        assert "hällo" in str(server.engine.requests[0])


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("br", BODY, 415, "unsupported_encoding"),
        ("gzip, gzip, gzip, gzip", BODY, 415, "unsupported_encoding"),
        ("gzip", BODY, 400, "invalid_request"),
        ("zstd", BODY, 400, "invalid_request"),
        ("deflate", b"\xff" * 20, 400, "invalid_request"),
        ("gzip", gzipped(BODY)[:-20], 400, "invalid_request"),
        ("zstd", zstd.compress(BODY)[:-5], 400, "invalid_request"),
        ("gzip", gzipped(b" " * 2_000_000), 413, "body_too_large"),
        ("zstd", zstd.compress(b" " * 2_000_000), 413, "body_too_large"),
        ("deflate, gzip", gzipped(zlib.compress(b" " * 2_000_000)), 413, "body_too_large"),
    ],
)
async def test_what_cannot_be_read_is_refused(name: str, body: bytes, status: int, code: str) -> None:
    async with open_server(max_body_mb=1) as server:
        reply = await server.request("POST", "/v1/chat/completions", body, content_encoding=name)
        assert (reply.status, reply.json["error"]["code"]) == (status, code)
        assert server.engine.requests == []


async def test_what_a_body_becomes_counts_among_all_bodies_in_memory() -> None:
    async with open_server(max_body_mb=2, max_body_total_mb=2) as server:
        body = gzip.compress(b" " * 2_000_000 + BODY)
        reply = await server.request("POST", "/v1/chat/completions", body, content_encoding="gzip")
        assert reply.status == 200
    async with open_server(max_body_mb=2, max_body_total_mb=2) as server, await server.connect() as client:
        await client.send(
            b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n" + b" " * 999_999
        )
        await server.until(lambda: server.connections == 1)
        reply = await server.request("POST", "/v1/chat/completions", body, content_encoding="gzip")
        assert (reply.status, reply.json["error"]["code"]) == (503, "body_memory_full")


def test_a_few_bytes_never_take_much_memory() -> None:
    huge = zstd.compress(b"\0" * 100_000_000, options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(HttpError):
        decoded(huge, "zstd", 200_000_000)


@pytest.mark.parametrize("how", ["gzip", "deflate", "zstd"])
def test_a_body_of_just_the_limit_is_read(how: str) -> None:
    name, compress = ENCODINGS[how]
    assert decoded(compress(b"a" * 1000), name, 1000) == b"a" * 1000
    with pytest.raises(HttpError):
        decoded(compress(b"a" * 1001), name, 1000)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_body_of_many_members_is_refused(how: str) -> None:
    """Each is a few bytes, and its decompressor is made anew."""
    name, compress = ENCODINGS[how]
    assert decoded(compress(b"a") * CONTENT_MEMBERS, name, 1_000_000) == b"a" * CONTENT_MEMBERS
    with pytest.raises(HttpError, match="compressed parts"):
        decoded(compress(b"a") * (CONTENT_MEMBERS + 1), name, 1_000_000)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_what_follows_a_member_is_not_copied_for_each(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work grows with the size of the body, not with its square."""
    name, compress = ENCODINGS[how]
    given = 0

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.decompress = self._decompress

        def _decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return bytes(self._inner.decompress(data, most))

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self._inner, attribute)

    start = content_encoding._DECODERS[name]
    monkeypatch.setitem(content_encoding._DECODERS, name, lambda body: Counting(start(body)))
    members = [compress(os.urandom(60_000)) for _ in range(100)]
    body = b"".join(members)
    assert len(decoded(body, name, 10_000_000)) == 6_000_000
    assert given < 4 * len(body)
