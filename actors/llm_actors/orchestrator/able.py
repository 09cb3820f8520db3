"""Which candidates can be told what a request asks. The others are passed over before anybody is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from llm_actors.catalog import Allowed, Candidate
from llm_actors.orchestrator.services import Services
from llm_actors.provider import size_of
from llm_actors.threads import run_large
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.parameters import refuse_lossy
from llm_protocol.requests import AUTO, AnyRequest

NAMES_SHOWN = 8
"""Models named in a refusal."""


class Able(NamedTuple):
    """``refused``: why each of the others cannot."""

    candidates: list[Candidate]
    refused: Mapping[Candidate, Failure]


async def find_able(services: Services, request: AnyRequest, candidates: Sequence[Candidate], *, strict: bool) -> Able:
    """Those of ``candidates``, in their order, that can keep ``request``; with ``strict`` without any loss.

    Works in a thread where the request is large.
    """
    return await run_large(size_of(request), _judge_all, services, request, candidates, strict)


def _judge_all(services: Services, request: AnyRequest, candidates: Sequence[Candidate], strict: bool) -> Able:
    found = {each: _refusal(services, request, each, strict) for each in candidates}
    return Able(
        [each for each in candidates if found[each] is None],
        {each: failure for each, failure in found.items() if failure is not None},
    )


def _refusal(services: Services, request: AnyRequest, candidate: Candidate, strict: bool) -> Failure | None:
    try:
        adapted = services.adapt(candidate, request.to(candidate.model))
        if strict:
            refuse_lossy(adapted)
    except LLMClientError as exc:
        return exc.failure.at(provider=candidate.provider, model=candidate.model, partial=False)
    return None


def unable(services: Services, request: AnyRequest, able: Able, allowed: Allowed | None, *, strict: bool) -> Failure:
    """Why nobody is asked, by the parameter's name, with models that can."""
    failure = next(iter(able.refused.values()))
    others: list[Candidate] = []
    with suppress(LLMClientError):
        others = services.catalog.resolve(msgspec.structs.replace(request, model=AUTO, provider=None), allowed)
    can = [str(each) for each in others if _refusal(services, request, each, strict) is None]
    tail = f"models that can: {', '.join(can[:NAMES_SHOWN])}" if can else "no configured provider's usual model can"
    return msgspec.structs.replace(failure, message=f"{failure.message}; {tail}")
