"""Parameters that a client sent in ``extra``, under its wire's own names.

A parameter that is set, and is also in ``extra``, could reach the vendor twice: as two output limits, or as a ``top_p``
under an API version that refuses it. Therefore a value in ``extra`` becomes the parameter itself before the request is
adapted and encoded. If the parameter is set as well, the set value is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from llm_protocol.codec.fields import typed
from llm_protocol.content import JsonObject
from llm_protocol.parameters.requested import CANONICAL
from llm_protocol.parameters.table import ANTHROPIC, CHAT, COHERE, GEMINI, RESPONSES
from llm_protocol.requests import AnyRequest, ChatRequest, CompletionRequest, Parameters

R = TypeVar("R", bound=AnyRequest)

_OTHER_NAMES: Final = {CHAT: {"max_completion_tokens": "max_output_tokens"}}
"""Names that wires use in addition to those in the table."""


def _names(wire: str, inside: str = "") -> Mapping[str, str]:
    """The wire's own names of the fields of `Parameters`, as the table has them. Only names at the top of the body, or
    at the top of the object ``inside``.
    """
    paths = {row.wires[wire]: row.name for row in CANONICAL if wire in row.wires}
    found = {path.removeprefix(inside): name for path, name in paths.items() if path.startswith(inside)}
    return {path: name for path, name in found.items() if "." not in path} | _OTHER_NAMES.get(wire, {})


NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    **{wire: _names(wire) for wire in (CHAT, RESPONSES, ANTHROPIC, COHERE)},
    "cerebras": _names(CHAT),
}
"""By dialect: the wire's own name of a parameter, and the field of `Parameters`. Gemini has no entry, because its
parameters are inside ``generationConfig``.
"""

_GEMINI: Final = _names(GEMINI, "generationConfig.")
_THINKING: Final = (("thinkingLevel", "reasoning_effort"), ("thinkingBudget", "reasoning_budget"))


def with_own_parameters(request: R, dialect: str) -> R:
    """The request with the parameters in ``extra[dialect]`` moved to the fields of `Parameters`. Raises
    `BadRequestError` for an invalid value.
    """
    parameters = request.parameters
    extra = parameters.extra.get(dialect)
    if not extra or not isinstance(request, ChatRequest | CompletionRequest):
        return request
    if dialect == "gemini":
        found, rest = _of_gemini(extra, parameters)
    else:
        names = NAMES.get(dialect, {})
        found = {names[name]: value for name, value in extra.items() if name in names}
        rest = {name: value for name, value in extra.items() if name not in names}
    if len(rest) == len(extra) and not found:
        return request
    return msgspec.structs.replace(request, parameters=_with(parameters, found, dialect, rest))


def _with(parameters: Parameters, found: JsonObject, dialect: str, rest: JsonObject) -> Parameters:
    unset = {
        name: value for name, value in found.items() if value is not None and getattr(parameters, name) in (None, ())
    }
    if isinstance(unset.get("stop"), str):
        unset["stop"] = [unset["stop"]]
    values = typed(unset, Parameters, f"parameters.extra.{dialect}")
    changes: dict[str, Any] = {name: getattr(values, name) for name in unset}
    return msgspec.structs.replace(parameters, **changes, extra={**parameters.extra, dialect: rest})


def _of_gemini(extra: JsonObject, parameters: Parameters) -> tuple[JsonObject, JsonObject]:
    """Move Gemini's parameters, most of which are inside ``generationConfig``. A thinking level and a thinking budget
    exclude each other.
    """
    config = extra.get("generationConfig")
    if not isinstance(config, dict):
        return {}, extra
    found = {ours: config[name] for name, ours in _GEMINI.items() if name in config}
    rest = {name: value for name, value in config.items() if name not in _GEMINI}
    thinking = rest.get("thinkingConfig")
    if isinstance(thinking, dict) and any(getattr(parameters, ours) is not None for _, ours in _THINKING):
        rest["thinkingConfig"] = {name: value for name, value in thinking.items() if name not in dict(_THINKING)}
    return found, {**extra, "generationConfig": rest} if rest != config else extra
