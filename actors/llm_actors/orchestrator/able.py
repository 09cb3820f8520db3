"""Which candidates can be told what a request asks. The others are passed over before anybody is called."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from llm_actors.catalog import Allowed, Candidate
from llm_actors.orchestrator.services import Services
from llm_actors.provider import Prepared, size_of
from llm_actors.threads import run_large
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure
from llm_protocol.parameters import refuse_lossy
from llm_protocol.requests import AUTO, AnyRequest

NAMES_SHOWN = 8
"""Models named in a refusal."""


class Able(NamedTuple):
    """``prepared``: the request as each can be told it. ``refused``: why each of the others cannot."""

    prepared: dict[Candidate, Prepared]
    refused: dict[Candidate, Failure]


async def find_able(services: Services, request: AnyRequest, candidates: Sequence[Candidate], *, strict: bool) -> Able:
    """Those of ``candidates``, in their order, that can keep ``request``; with ``strict`` without any loss.

    Works in a thread where the request is large.
    """
    return await run_large(size_of(request), _judge_all, services, request, candidates, strict)


def _judge_all(services: Services, request: AnyRequest, candidates: Sequence[Candidate], strict: bool) -> Able:
    able = Able({}, {})
    for each in candidates:
        try:
            prepared = services.adapt(each, request.to(each.model))
            if strict:
                refuse_lossy(prepared.adapted)
            able.prepared[each] = prepared
        except LLMClientError as exc:
            able.refused[each] = exc.failure.at(provider=each.provider, model=each.model, partial=False)
    return able


def unable(services: Services, request: AnyRequest, able: Able, allowed: Allowed | None, *, strict: bool) -> Failure:
    """Why nobody is asked, by the parameter's name, with models that can."""
    failure = next(iter(able.refused.values()))
    others: list[Candidate] = []
    with suppress(LLMClientError):
        others = services.catalog.resolve(msgspec.structs.replace(request, model=AUTO, provider=None), allowed)
    can = [str(each) for each in _judge_all(services, request, others, strict).prepared]
    tail = f"models that can: {', '.join(can[:NAMES_SHOWN])}" if can else "no configured provider's usual model can"
    return msgspec.structs.replace(failure, message=f"{failure.message}; {tail}")
