"""Ask a vendor how many tokens a request has. The body is that of the request itself, reduced to the fields that the
vendor counts.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec

from llm_protocol.dialect import WireRequest
from llm_protocol.errors import ProtocolError


def counted_fields(wire: WireRequest, names: Container[str]) -> dict[str, msgspec.Raw]:
    """Return the fields of ``wire``'s JSON body whose names are in ``names``: those that a vendor counts."""
    body = msgspec.json.decode(wire.body, type=dict[str, msgspec.Raw])
    return {name: value for name, value in body.items() if name in names}


def decoded_count(body: bytes, name: str) -> int:
    """The number in the field ``name`` of a JSON object. Raises `ProtocolError` if there is none."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any]).get(name)
    except msgspec.MsgspecError:
        found = None
    if type(found) is not int or found < 0:
        raise ProtocolError(f"the vendor's token count cannot be decoded: it contains no {name}")
    return found
