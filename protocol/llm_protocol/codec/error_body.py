"""Find the error in a JSON body, whatever the server calls its fields.

Known forms: ``{"error": {...}}`` and ``{"error": "..."}`` (OpenAI and most others), FastAPI's ``detail``, ``errors``, a
bare ``message``, ``code`` + ``msg``, ``error_code`` + ``error_msg``, ``base_resp``. They arrive with an error status,
with status 200, and inside a stream.
"""

from __future__ import annotations

from typing import Any

from llm_protocol.content import JsonObject
from llm_protocol.dialect import Headers

TEXT_BYTES = 1000
"""The most bytes of a plain-text body that are searched for an error."""

_MESSAGES = ("message", "msg", "error_msg", "error_message", "status_msg", "detail", "title")
_CODES = ("code", "error_code", "status_code", "status")
_ANSWERS = frozenset(("choices", "candidates", "content", "output", "data", "embeddings", "message", "text"))
"""Fields that only a response has. A ``message`` that is a string occurs only in an error."""


def find_error(body: Any) -> JsonObject | None:
    """Return the error object in a decoded body, with ``message`` and ``code`` under these names; ``None`` if there is
    none. A response with an empty or null ``error`` is not an error.
    """
    if isinstance(body, list):  # one compatible server wraps its errors in a list
        body = body[0] if body else None
    if not isinstance(body, dict):
        return None
    for name in ("error", "errors"):
        if found := _named(body.get(name)):
            return {**_outside(body), **found}
    base = body.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return _renamed(base)
    if any(isinstance(body.get(name), list | dict) for name in _ANSWERS):
        return None
    if isinstance(body.get("detail"), list):  # FastAPI: a list of fields and problems
        return {"message": "; ".join(map(_sentence, body["detail"][:5]))}
    return _renamed(body) if any(isinstance(body.get(name), str) and body[name] for name in _MESSAGES) else None


def plain_text(headers: Headers, body: bytes) -> str | None:
    """The first line of a body that is plain text, as proxies send it; ``None`` if it is something else."""
    kind = next((value for name, value in headers if name.lower() == "content-type"), "")
    if not kind.lower().startswith("text/plain"):
        return None
    return body[:TEXT_BYTES].decode(errors="replace").strip().partition("\n")[0].strip() or None


def _named(error: Any) -> JsonObject | None:
    if isinstance(error, list):
        error = error[0] if error else None
    if isinstance(error, str):
        return {"message": error} if error else None
    return _renamed(error) if isinstance(error, dict) and error else None


def _outside(body: JsonObject) -> JsonObject:
    """Return the fields next to the error object: a code, type or status that the object itself may lack."""
    return {
        name: value for name, value in body.items() if isinstance(value, str | int) and name not in ("error", "object")
    }


def _renamed(error: JsonObject) -> JsonObject:
    found = dict(error)
    for name, names in (("message", _MESSAGES), ("code", _CODES)):
        if not isinstance(found.get(name), str | int):
            value = next((error[each] for each in names if isinstance(error.get(each), str | int)), None)
            if value is not None:
                found[name] = value
    return found


def _sentence(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)[:200]
    where = ".".join(map(str, item["loc"])) if isinstance(item.get("loc"), list) else ""
    return ": ".join(filter(None, (where, str(item.get("msg", "")))))[:200]
