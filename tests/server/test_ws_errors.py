"""How a WebSocket's client is told of a failure before anything was answered: see docs/decisions/0011."""

from __future__ import annotations

from typing import Any

import pytest

from llm_actors.run import Run
from llm_protocol.errors import BudgetError, ModelNotFoundError
from llm_protocol.events import MemberFailed, MemberStarted
from llm_protocol.failures import Failure, FailureKind
from support.server import Script, add_text, begin_text, open_server
from support.ws import connected


def failing(kind: FailureKind, *, after: str = "") -> Script:
    async def script(run: Run) -> None:
        if after:
            begin_text(run)
            add_text(run, after)
        run.fail(Failure(kind=kind, message="as asked for", retry_after=2.0, partial=bool(after)))

    return script


async def last_of(script: Script | Exception, **fields: Any) -> dict[str, Any]:
    """The event that ends the response."""
    async with open_server(script) as server, connected(server) as ws:
        await ws.create(**fields)
        event: dict[str, Any] = (await ws.response())[-1]
        return event


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FailureKind.AUTH, 400),
        (FailureKind.TIMEOUT_FIRST_TOKEN, 400),
        (FailureKind.BUDGET, 400),
        (FailureKind.BAD_REQUEST, 400),
        (FailureKind.QUOTA, 429),
        (FailureKind.MODEL_NOT_FOUND, 404),
    ],
)
async def test_what_asking_again_cannot_help_is_an_error_that_clients_take_for_final(
    kind: FailureKind, status: int
) -> None:
    last = await last_of(failing(kind))
    assert (last["type"], last["status"]) == ("error", status)
    assert last["error"]["message"] == "as asked for"


@pytest.mark.parametrize("kind", [FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.NETWORK])
async def test_what_passes_is_a_failed_response_with_the_wait_in_words(kind: FailureKind) -> None:
    last = await last_of(failing(kind))
    assert last["type"] == "response.failed"
    assert "try again in 2s" in last["response"]["error"]["message"]


async def test_what_fails_after_an_answer_began_is_a_failed_response() -> None:
    assert (await last_of(failing(FailureKind.TIMEOUT_IDLE, after="half")))["type"] == "response.failed"


async def test_what_fails_in_the_background_is_a_failed_response() -> None:
    assert (await last_of(failing(FailureKind.AUTH), background=True))["type"] == "response.failed"


async def test_that_members_were_asked_is_no_answer() -> None:
    failure = Failure(kind=FailureKind.AUTH, message="no")

    async def panel(run: Run) -> None:
        run.log.append(MemberStarted(member="a", request_id="r"))
        run.log.append(MemberFailed(member="a", failure=failure))
        run.fail(failure)

    assert (await last_of(panel, llm_runtime={"stream_members": True}))["type"] == "error"


@pytest.mark.parametrize(
    ("refusal", "status"), [(ModelNotFoundError("no such model"), 404), (BudgetError("spent"), 400)]
)
async def test_what_is_refused_at_once_has_a_final_status(refusal: Exception, status: int) -> None:
    last = await last_of(refusal)
    assert (last["type"], last["status"]) == ("error", status)
