"""What a vendor says about coming back: `x-should-retry`, and a Retry-After that is passed on."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from llm_protocol.failures import MAX_RETRY_AFTER_SECONDS, Failure, FailureKind
from llm_protocol.requests import LLMProvider
from llm_protocol.vendors import VENDORS
from support.attempts import answer, status, world

YEAR = 365 * 86_400.0


@pytest.mark.parametrize("code", [500, 503])
async def test_a_vendor_that_forbids_another_attempt_gets_none(autojump_clock: MockClock, code: int) -> None:
    async with world(a=[status(code, x_should_retry="false"), answer]) as w:
        alone = await w.ask(candidates=("a/m-a",))
        assert alone.failure is not None
        assert w["a"].calls == 1

    async with world(a=[status(code, x_should_retry="false"), answer], b=[answer]) as w:
        backed = await w.ask()
        assert backed.response.provider == "b"
        assert (w["a"].calls, w["b"].calls) == (1, 1)


@pytest.mark.parametrize("code", [400, 409])
async def test_a_vendor_that_asks_for_another_attempt_gets_it(autojump_clock: MockClock, code: int) -> None:
    async with world(a=[status(code, x_should_retry="true"), answer]) as w:
        asked = await w.ask(candidates=("a/m-a",))

    assert asked.failure is None
    assert asked.calls == 2


async def test_another_hint_is_none(autojump_clock: MockClock) -> None:
    async with world(a=[status(400, x_should_retry="perhaps"), answer]) as w:
        asked = await w.ask(candidates=("a/m-a",))

    assert asked.failure is not None
    assert asked.calls == 1


@pytest.mark.parametrize("kind", [kind for kind in LLMProvider if kind is not LLMProvider.LOCAL])
def test_a_client_is_never_told_to_stay_away_for_a_year(kind: LLMProvider) -> None:
    failure = Failure(kind=FailureKind.RATE_LIMITED, message="no", retry_after=YEAR)
    told = VENDORS[kind].server().encode_error(failure)

    hour = str(int(MAX_RETRY_AFTER_SECONDS))
    assert told.header("retry-after") == hour or f'"{hour}s"'.encode() in told.body  # Google says it in the body
    assert str(int(YEAR)).encode() not in told.body
