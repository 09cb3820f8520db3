"""What clients are told about asking again."""

from __future__ import annotations

from typing import Any

import pytest

from llm_actors.run import Run
from llm_protocol.failures import Failure, FailureKind
from support.server import open_server

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT | {"model": "m", "max_tokens": 9},
    "/v1/responses": {"input": "hi"},
    "/v2/chat": CHAT | {"model": "m"},
    "/v1beta/models/m:generateContent": {"contents": [{"parts": [{"text": "hi"}]}]},
}
FINAL = (
    FailureKind.AUTH,
    FailureKind.QUOTA,
    FailureKind.TLS,
    FailureKind.BAD_REQUEST,
    FailureKind.MODEL_NOT_FOUND,
    FailureKind.UNSUPPORTED,
    FailureKind.TIMEOUT_FIRST_TOKEN,
    FailureKind.DEADLINE,
    FailureKind.BUDGET,
)
PASSING = (
    FailureKind.RATE_LIMITED,
    FailureKind.OVERLOADED,
    FailureKind.QUEUE_FULL,
    FailureKind.PARKED,
    FailureKind.SHUTTING_DOWN,
    FailureKind.OUT_OF_RESOURCES,
)


async def failed(path: str, failure: Failure, attempts: int = 0) -> dict[str, str]:
    """The headers of the error that a client gets, after so many attempts."""

    async def script(run: Run) -> None:
        decision = {"attempts": [{"asked": True} for _ in range(attempts)]}
        run.fail(failure, run.folded(provider="fake", decision=decision))

    async with open_server(script) as server:
        return (await server.request("POST", path, PATHS[path])).headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", FINAL)
async def test_final_failures_are_not_retried_and_name_no_wait(path: str, kind: FailureKind) -> None:
    headers = await failed(path, Failure(kind=kind, message="no", retry_after=30.0), attempts=1)
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers, "a wrong key of ours is no better in 30 s"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", PASSING)
async def test_what_passes_says_when_to_come_back(path: str, kind: FailureKind) -> None:
    headers = await failed(path, Failure(kind=kind, message="later"))
    assert "x-should-retry" not in headers
    assert int(headers["retry-after"]) >= 1
    headers = await failed(path, Failure(kind=kind, message="later", retry_after=7.0), attempts=1)
    assert (headers["retry-after"], headers.get("x-should-retry")) == ("7", None)


@pytest.mark.parametrize("path", PATHS)
async def test_what_was_tried_again_here_is_not_tried_again_by_the_client(path: str) -> None:
    headers = await failed(path, Failure(kind=FailureKind.RATE_LIMITED, message="busy", retry_after=2.0), attempts=3)
    assert (headers["retry-after"], headers["x-should-retry"]) == ("2", "false")


@pytest.mark.parametrize("path", PATHS)
async def test_one_attempt_leaves_the_retry_to_the_client(path: str) -> None:
    headers = await failed(path, Failure(kind=FailureKind.NETWORK, message="reset"), attempts=1)
    assert "x-should-retry" not in headers
