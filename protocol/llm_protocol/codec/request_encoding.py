"""The parts of request encoding that the client sides of all wires share.

``dialect`` is the name of the wire, the key of its fields in ``extra``. ``vendor`` is the recipient's name in
messages. `codec.fields` checks the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.content import HostedTool, JsonObject, Opaque, Part, ToolResult
from llm_protocol.requests import Parameters


def own_fields(extra: Mapping[str, JsonObject] | None, dialect: str) -> JsonObject:
    """Return the ``extra`` fields of a part, tool or message for ``dialect``. The result is not a copy."""
    return extra.get(dialect, {}) if extra else {}


def own_value(block: Opaque | HostedTool, where: str, dialect: str, vendor: str) -> JsonObject:
    """Return a block or hosted tool unchanged. Raises `UnsupportedError` if it belongs to another dialect."""
    if block.dialect == dialect:
        return block.value
    what = "a hosted tool" if isinstance(block, HostedTool) else "a block"
    raise unsupported(where, f"{where}: {what} of {block.dialect} cannot be sent to {vendor}")


def only_result(part: Part, where: str) -> ToolResult:
    """A part of a message with the role ``tool``. Raises `BadRequestError` if it is not a tool result."""
    if not isinstance(part, ToolResult):
        raise bad_request(where, f"{where}: a message of role tool may contain only tool results")
    return part


def set_parameters(parameters: Parameters, names: Mapping[str, str]) -> JsonObject:
    """The parameters that are set, under the wire's names. ``names`` has the wire's name for each of ours."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for ours, name in names.items()
        if (value := getattr(parameters, ours)) not in (None, ())
    }
