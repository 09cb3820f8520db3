"""What tests of the selector need: candidates, prices, observations."""

from __future__ import annotations

from llm_actors.catalog import Candidate
from llm_actors.selector import Observed, Selector
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import RequestType
from llm_protocol.response import Usage

A = Candidate("a", "m")
B = Candidate("b", "m")
C = Candidate("c", "m")


def cost_of(provider: str, model: str, usage: Usage) -> float | None:
    """A provider named `b` is cheap, `dear` is dear, `free` costs nothing; others have no known price."""
    dollars = {"b": 1.0, "dear": 10.0, "free": 0.0}.get(provider)
    return None if dollars is None else dollars * usage.total_tokens / 1e6


def failed(kind: FailureKind, retry_after: float | None = None, *, partial: bool = False) -> Failure:
    return Failure(kind=kind, message="x", retry_after=retry_after, partial=partial)


def success(
    candidate: Candidate,
    at: float,
    *,
    took: float = 1.0,
    first: float | None = None,
    tokens: int = 300,
    prompt: int = 1_000,
    cached: int = 0,
    cost: float | None = None,
    request_type: RequestType = RequestType.CHAT,
) -> Observed:
    """An answer that was complete at ``at``; streamed if ``first``, the time to its first token, is given."""
    return Observed(
        candidate=candidate,
        request_type=request_type,
        began=at - took,
        ended=at,
        stream=first is not None,
        first_token_s=first,
        usage=Usage(input_tokens=prompt, output_tokens=tokens, cached_tokens=cached),
        cost=cost,
    )


def failure(
    candidate: Candidate,
    at: float,
    kind: FailureKind = FailureKind.SERVER_ERROR,
    *,
    took: float = 0.0,
    retry_after: float | None = None,
    stream: bool = True,
    first: float | None = None,
    partial: bool = False,
) -> Observed:
    """A failure of ``kind`` at ``at``."""
    return Observed(
        candidate=candidate,
        request_type=RequestType.CHAT,
        began=at - took,
        ended=at,
        stream=stream,
        failure=failed(kind, retry_after, partial=partial),
        first_token_s=first,
    )


def selector(*seen: Observed) -> Selector:
    """A selector that has seen this."""
    made = Selector(cost_of)
    for each in seen:
        made.observe(each, 0.5)
    return made
