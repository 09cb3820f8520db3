"""Which requests may be passed through, where they go, and what goes along."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.passthrough import (
    PassthroughRule,
    ids_of_created,
    is_plain,
    request_headers,
    response_headers,
    target_of,
    vendor_path,
)


@pytest.mark.parametrize(
    ("entry", "method", "path", "allowed"),
    [
        ("POST openai/v1/files", "POST", "v1/files", True),
        ("POST openai/v1/files", "GET", "v1/files", False),
        ("POST openai/v1/files", "POST", "v1/files/x", False),
        ("POST openai/v1/files", "POST", "v1/files2", False),
        ("GET openai/v1/files/*", "GET", "v1/files/file-1", True),
        ("GET openai/v1/files/*", "HEAD", "v1/files/file-1", True),
        ("GET openai/v1/files/*", "GET", "v1/files/file-1/content", False),
        ("GET openai/v1/files/*/content", "GET", "v1/files/file-1/content", True),
        ("GET openai/v1/files/**", "GET", "v1/files/file-1/content", True),
        ("GET openai/v1/files/**", "GET", "v1/files", False),
        ("* openai/**", "DELETE", "anything/at/all", True),
        ("POST openai/v1/models/*:predict", "POST", "v1/models/m:predict", True),
        ("GET openai/v1/a.b", "GET", "v1/aXb", False),
        ("GET openai/v1/files", "GET", "v1/%66iles", True),
    ],
)
def test_what_an_entry_allows(entry: str, method: str, path: str, allowed: bool) -> None:
    rule = PassthroughRule.parse(entry)
    assert rule.allows(method, "openai", path) is allowed
    assert not rule.allows(method, "other", path)


@pytest.mark.parametrize(
    "entry", ["", "GET", "GET openai", "GET openai/", "get openai/v1", "FETCH openai/v1", "GET */v1", "GET openai/v1 x"]
)
def test_what_is_no_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="a provider's name and a path"):
        PassthroughRule.parse(entry)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/v1/files",
        "v1//files",
        "v1/files/",
        "v1/../admin",
        "v1/./files",
        "v1/%2e%2e/admin",
        "v1/..;x/admin",
        "v1/%2E./admin",
        "v1/a%2fb",
        "v1/a%5Cb",
        "v1/a\\b",
        "v1/a%252fb",
        "v1/a%00b",
        "v1/a%0d%0ab",
        "v1/%zz",
        "v1/ä",
        "//evil.example/v1",
        "http://evil.example/v1",
        "v1/a?b",
    ],
)
def test_a_path_that_can_mean_two_things(path: str) -> None:
    assert not is_plain(path)


@pytest.mark.parametrize(
    "path", ["v1/files", "v1beta/models/m:embed", "v1/files/file-1.a_b~c", "v1/a%20b", "v1/...", "v1/a@b"]
)
def test_a_path_that_means_one_thing(path: str) -> None:
    assert is_plain(path)


@given(st.text(max_size=40))
def test_a_plain_path_stays_below_its_base(path: str) -> None:
    if is_plain(path):
        target = target_of("/api/v1", vendor_path("/api/v1", path))
        assert target.startswith("/api/v1/") or target == "/api/v1"
        assert "//" not in target


@pytest.mark.parametrize(
    ("base", "path", "canonical", "target"),
    [
        ("/v1", "v1/files", "v1/files", "/v1/files"),
        ("/v1", "files", "v1/files", "/v1/files"),
        ("/v1", "v2/files", "v1/v2/files", "/v1/v2/files"),
        ("/openai/v1", "v1/audio/speech", "v1/audio/speech", "/openai/v1/audio/speech"),
        ("", "v1beta/files", "v1beta/files", "/v1beta/files"),
    ],
)
def test_a_path_has_one_spelling(base: str, path: str, canonical: str, target: str) -> None:
    assert vendor_path(base, path) == canonical
    assert target_of(base, canonical) == target


def test_headers_to_the_vendor() -> None:
    given_ = {
        "host": "us",
        "authorization": "Bearer ours",
        "x-api-key": "ours",
        "x-goog-api-key": "ours",
        "cookie": "a=b",
        "connection": "close, X-Hop",
        "x-hop": "1",
        "content-length": "3",
        "transfer-encoding": "chunked",
        "expect": "100-continue",
        "te": "trailers",
        "openai-organization": "org-of-another",
        "x-llm-runtime-anything": "1",
        "x-forwarded-for": "10.0.0.1",
        "sec-fetch-mode": "cors",
        "content-type": "multipart/form-data; boundary=x",
        "content-encoding": "gzip",
        "anthropic-beta": "files-api-2025-04-14",
        "idempotency-key": "mine",
    }
    kept = {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"}
    kept["anthropic-beta"] = "files-api-2025-04-14"
    assert dict(request_headers(given_, None)) == {**kept, "idempotency-key": "mine"}
    assert dict(request_headers(given_, "hashed")) == {**kept, "idempotency-key": "hashed"}


def test_headers_to_the_client() -> None:
    given_ = {
        "content-type": "application/json",
        "content-encoding": "gzip",
        "content-length": "3",
        "transfer-encoding": "chunked",
        "set-cookie": "a=b",
        "date": "now",
        "server": "nginx",
        "x-request-id": "theirs",
        "access-control-allow-origin": "*",
        "strict-transport-security": "max-age=1",
        "connection": "x-hop",
        "x-hop": "1",
        "x-ratelimit-remaining-requests": "9",
        "location": "https://elsewhere",
    }
    assert dict(response_headers(given_)) == {
        "content-type": "application/json",
        "content-encoding": "gzip",
        "x-llm-runtime-upstream-request-id": "theirs",
        "x-ratelimit-remaining-requests": "9",
        "location": "https://elsewhere",
    }


def test_ids_that_a_vendor_gives_out() -> None:
    assert list(ids_of_created({"id": "file-1", "object": "file"})) == ["file-1"]
    assert list(ids_of_created({"file": {"name": "files/abc", "uri": "https://x"}})) == ["files/abc"]
    assert list(ids_of_created([{"id": "file-1"}])) == []
    assert list(ids_of_created({"id": 7, "name": None})) == []
