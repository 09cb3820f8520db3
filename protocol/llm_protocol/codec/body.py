"""Read a client's JSON body field by field. Each reader names the field at fault and says what would be right.

Fields that are never read belong to the vendor and are forwarded. Call `Body.rest` last: it returns them.
"""

from __future__ import annotations

import sys
from typing import Any, Self

import msgspec

from llm_protocol.codec.fields import bad_request, json_body, refuse_transport, undecoded, unsupported
from llm_protocol.content import JsonObject
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.requests import AUTO

POLICY = "llm_runtime"
"""The field in which a client says what the runtime, not the vendor, should do."""


class Body:
    """A JSON object from a client; ``null`` counts as absent. Readers raise `BadRequestError` naming the field."""

    def __init__(self, fields: JsonObject, where: str = "") -> None:
        self._fields = fields
        self._where = where
        self._known = {POLICY}

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The body in ``data``."""
        return cls(json_body(data))

    @property
    def where(self) -> str:
        """Where the object stands in the body; empty for the body itself."""
        return self._where

    def path(self, name: str) -> str:
        """The field's full name, as it stands in messages."""
        return f"{self._where}.{name}" if self._where else name

    def wrong(self, name: str, right: str) -> BadRequestError:
        """The error for a field that should have been ``right``."""
        where = self.path(name)
        return bad_request(where, f"{where} must be {right}")

    def cannot(self, name: str, message: str) -> UnsupportedError:
        """The error for a field that is understood but not possible here."""
        return unsupported(self.path(name), message)

    def take(self, name: str) -> Any:
        """The raw value, ``None`` if absent."""
        self._known.add(name)
        return self._fields.get(name)

    def string(self, name: str) -> str | None:
        """A string, if there."""
        value = self.take(name)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(name, "a string")

    def required_string(self, name: str) -> str:
        """A string that must be there."""
        value = self.string(name)
        if value is None:
            raise self.wrong(name, "a string; it is missing")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number, if there."""
        value = self.take(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise self.wrong(name, "a whole number")

    def number(self, name: str) -> float | None:
        """A number, if there."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return value
        raise self.wrong(name, "a number")

    def boolean(self, name: str) -> bool | None:
        """A boolean, if there."""
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(name, "true or false")

    def strings(self, name: str) -> tuple[str, ...]:
        """A string or a list of strings; empty if absent."""
        value = self.take(name)
        if value is None:
            return ()
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self.wrong(name, "a string or a list of strings")
        return tuple(values)

    def object(self, name: str) -> Self | None:
        """An object to be read in its turn, if there."""
        value = self.json_object(name)
        return None if value is None else type(self)(value, self.path(name))

    def json_object(self, name: str) -> JsonObject | None:
        """An object as it stands, if there."""
        value = self.take(name)
        if value is None or isinstance(value, dict):
            return value
        raise self.wrong(name, "an object")

    def objects(self, name: str) -> list[Self]:
        """A list of objects; empty if absent."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "a list of objects")
        if (odd := next((at for at, item in enumerate(value) if not isinstance(item, dict)), None)) is not None:
            raise self.wrong(f"{name}[{odd}]", "an object")
        return [type(self)(item, f"{self.path(name)}[{at}]") for at, item in enumerate(value)]

    def put_back(self, name: str, value: Any) -> None:
        """Count ``name`` as not read, with ``value``: what is left of the object that stood there."""
        self._fields = {**self._fields, name: value or None}
        self._known.discard(name)

    def model(self) -> str:
        """The field ``model``; without it the runtime chooses."""
        return self.string("model") or AUTO

    def policy(self) -> msgspec.Raw | None:
        """The field `POLICY`, undecoded."""
        return undecoded(self._fields.get(POLICY))

    def rest(self) -> JsonObject:
        """What was not read. Raises `BadRequestError` for a transport field anywhere in it."""
        unread = {name: value for name, value in self._fields.items() if value is not None and name not in self._known}
        refuse_transport(unread, self._where)
        return unread

    @property
    def raw(self) -> JsonObject:
        """The object itself."""
        return self._fields
