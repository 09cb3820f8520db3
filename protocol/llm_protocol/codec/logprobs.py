"""Log probabilities of tokens in the forms of the wires that have them.

`Text.logprobs` has OpenAI's form, which Chat Completions and Responses share: ``token``, ``logprob``, ``bytes``, and
``top_logprobs``. A provider may send any shape: unknown shapes are left out, and no function of this module raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_protocol.content import JsonObject


def from_openai(value: Any) -> tuple[JsonObject, ...]:
    """Return the entries of a list in OpenAI's form."""
    entries = value if isinstance(value, list) else ()
    return tuple(
        each for each in entries if isinstance(each, dict) and _is_token(each.get("token"), each.get("logprob"))
    )


def from_gemini(result: Any) -> tuple[JsonObject, ...]:
    """Read a candidate's ``logprobsResult``."""
    if not isinstance(result, dict):
        return ()
    chosen, tops = result.get("chosenCandidates"), result.get("topCandidates")
    found: list[JsonObject] = []
    for at, each in enumerate(chosen if isinstance(chosen, list) else ()):
        if (entry := _entry(each)) is None:
            return ()  # if one is missing, the others do not match their tokens
        top = tops[at] if isinstance(tops, list) and at < len(tops) else None
        others = top.get("candidates") if isinstance(top, dict) else None
        entries = map(_entry, others if isinstance(others, list) else ())
        found.append(entry | {"top_logprobs": [one for one in entries if one is not None]})
    return tuple(found)


def to_gemini(logprobs: Iterable[JsonObject]) -> JsonObject:
    """Return a candidate's ``logprobsResult``."""
    entries = tuple(logprobs)
    chosen = [_candidate(each) for each in entries]
    tops = [{"candidates": [_candidate(one) for one in from_openai(each.get("top_logprobs"))]} for each in entries]
    return {"topCandidates": tops, "chosenCandidates": chosen}


def _entry(candidate: Any) -> JsonObject | None:
    if not isinstance(candidate, dict):
        return None
    token, logprob = candidate.get("token"), candidate.get("logProbability")
    if not _is_token(token, logprob):
        return None
    return {"token": token, "logprob": logprob, "bytes": list(str(token).encode("utf-8", "replace"))}


def _candidate(entry: JsonObject) -> JsonObject:
    return {"token": entry["token"], "logProbability": entry["logprob"]}


def _is_token(token: Any, logprob: Any) -> bool:
    return isinstance(token, str) and isinstance(logprob, int | float) and not isinstance(logprob, bool)
