"""The ``llm_runtime`` object of a response: which provider, at what cost, and why."""

from __future__ import annotations

from llm_protocol.codec.json import encode_json
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest
from llm_protocol.failures import Failure
from llm_protocol.response import LLMResponse

_LIFTED = ("limit_owner", "members")
"""Entries of the decision record that are reported separately."""


def is_wanted(inbound: ClientRequest) -> bool:
    """Whether the client sent an ``llm_runtime`` object. Other clients may not accept fields that they do not know."""
    return inbound.policy is not None


def runtime_fields(body: bytes, response: LLMResponse | None, *, wanted: bool) -> bytes:
    """Return ``body``, a JSON object, with the ``llm_runtime`` object added if it is ``wanted``."""
    if not wanted or response is None:
        return body
    return b'%b,"llm_runtime":%b}' % (body[:-1], encode_json(runtime_object(response)))


def limit_fields(body: bytes, failure: Failure) -> bytes:
    """Return ``body``, the JSON object of an error, with the owner of the limit added, if a limit was the cause."""
    owner = failure.limited_by
    return body if owner is None else b'%b,"llm_runtime":{"limit_owner":"%b"}}' % (body[:-1], owner.encode())


def runtime_object(response: LLMResponse, *, answers: bool = False) -> JsonObject:
    """Return the ``llm_runtime`` object: deployment, cost and decision record; with ``answers``, also the members'
    responses.
    """
    owner = response.decision.get("limit_owner")
    return (
        ({} if owner is None else {"limit_owner": owner})
        | {
            "request_id": response.request_id,
            "provider": response.provider,
            "upstream_id": response.upstream_id,
            "cost": response.cost,
            "processing_time_ms": round(response.processing_time_ms, 3),
            "usage_estimated": response.usage is not None and response.usage.estimated,
            "adjusted": [each.to_json() for each in response.adjusted],
            "decision": {name: value for name, value in response.decision.items() if name not in _LIFTED},
        }
        | _members(response, answers=answers)
    )


def _members(response: LLMResponse, *, answers: bool) -> JsonObject:
    """Return the report on each member, with its response if that is part of this one."""
    runtime_fields: list[JsonObject] = response.decision.get("members", [])
    texts = {member.request_id: member.content for member in response.members if answers}
    given = [
        each | {"content": texts[each["request_id"]]} if each["request_id"] in texts else each
        for each in runtime_fields
    ]
    return {"members": given} if given else {}
