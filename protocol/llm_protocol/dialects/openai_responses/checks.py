"""Checking what a client sent, so that a mistake is told with the path of the field at fault."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from llm_protocol.fields import bad_request

T = TypeVar("T")

_MISSING = re.compile(r"missing required field `(\w+)`")


def typed(value: Any, type_: type[T], where: str = "") -> T:
    """``value`` as ``type_``. Raises `BadRequestError` with the path of the field at fault, below ``where``."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        reason, _, path = str(exc).partition(" - at `$")
        param = f"{where}{path.rstrip('`')}".lstrip(".")
        if missing := _MISSING.search(reason):
            param = f"{param}.{missing[1]}".lstrip(".")
            raise bad_request(param, f"{param} is missing") from None
        name = param or "the body"
        raise bad_request(param or "body", f"{name}: {reason[0].lower()}{reason[1:]}") from None
