"""Read a JSON object field by field. The error of a reader names the field at fault and the value that it should have.

The server side of every wire reads client bodies with `Body`. Fields that are never read belong to the vendor and are
forwarded. Call `Body.rest` last: it returns them. `ResponseObject` reads the parts of a vendor's response that have the
same form in requests. `is_form` and `checked_body` judge a body before it is decoded.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar, cast

import msgspec

from llm_protocol.codec.fields import bad_request, refuse_transport, unsupported
from llm_protocol.codec.json import CheckedJson, JsonLimits, WireError, check_json, decode_object, encode_json
from llm_protocol.content import JsonObject
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.requests import AUTO

Word = TypeVar("Word", bound=str)

POLICY = "llm_runtime"
"""The field for options of the runtime itself, which no vendor receives."""


def is_form(body: bytes) -> bool:
    """Whether a body is a form and not JSON. The first bytes decide, because clients' content types are not always
    right.
    """
    return body.startswith(b"--")


def json_body(data: bytes | str) -> JsonObject:
    """Decode a client's body. Raises `BadRequestError` if it is not a JSON object."""
    try:
        return decode_object(data)
    except WireError as exc:
        raise _not_an_object(exc) from None


def checked_body(data: bytes | str, limits: JsonLimits) -> CheckedJson:
    """Check a client's body against ``limits``, without decoding it. Raises `BadRequestError`."""
    try:
        check_json(data, limits)
    except WireError as exc:
        raise _not_an_object(exc) from None
    return CheckedJson(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))


def _not_an_object(exc: WireError) -> BadRequestError:
    return bad_request(None, f"the body must be a JSON object: {exc}")


class Body:
    """A JSON object from a client; ``null`` counts as absent. Methods that read a field raise `BadRequestError`, which
    names the field.
    """

    __slots__ = ("_at", "_fields", "_known", "_where")

    def __init__(self, fields: JsonObject, where: str = "", at: int | None = None) -> None:
        self._fields = fields
        self._where = where
        self._at = at
        self._known = {POLICY}

    @classmethod
    def parse(cls, data: bytes | str) -> Self:
        """Decode a client's body. Raises `BadRequestError` if it is not a JSON object."""
        return cls(json_body(data))

    @property
    def where(self) -> str:
        """The path of the object in the body; empty for the body itself."""
        return self._where if self._at is None else f"{self._where}[{self._at}]"

    def path(self, name: str) -> str:
        """The field's full path, for error messages."""
        return f"{self.where}.{name}" if self._where else name

    def wrong(self, name: str, right: str) -> BadRequestError:
        """Return the error for a field that should have been ``right``."""
        where = self.path(name)
        return bad_request(where, f"{where} must be {right}")

    def cannot(self, name: str, message: str) -> UnsupportedError:
        """The error for a field that is understood but not supported by this wire."""
        return unsupported(self.path(name), message)

    def take(self, name: str) -> Any:
        """The raw value, ``None`` if absent."""
        self._known.add(name)
        return self._fields.get(name)

    def string(self, name: str) -> str | None:
        """The field as a string; ``None`` if absent."""
        if (value := self._fields.get(name)) is None:
            return None
        self._known.add(name)
        if isinstance(value, str):
            return value
        raise self.wrong(name, "a string")

    def required_string(self, name: str) -> str:
        """Return the field as a string. Raises `BadRequestError` if it is missing."""
        value = self.string(name)
        if value is None:
            raise self.wrong(name, "a string; it is missing")
        return value

    def kind(self) -> str:
        """Return the field ``type``. Raises `BadRequestError` if it is missing."""
        value = self.string("type")
        if not value:
            raise self.wrong("type", "a string; it is missing")
        return value

    def word(self, name: str, words: Collection[Word]) -> Word | None:
        """The field as one of ``words``; ``None`` if absent."""
        return None if self.take(name) is None else self.required_word(name, words)

    def required_word(self, name: str, words: Collection[Word]) -> Word:
        """Return the field as one of ``words``. Raises `BadRequestError` if it is missing."""
        value: Any = self.take(name)
        if not isinstance(value, str) or value not in words:
            missing = "; it is missing" if value is None else ""
            raise self.wrong(name, f"one of {', '.join(words)}{missing}")
        return cast("Word", value)

    def integer(self, name: str, low: int | None = None) -> int | None:
        """The field as a whole number of at least ``low``; ``None`` if absent."""
        if (value := self._fields.get(name)) is None:
            return None
        self._known.add(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and (low is None or value >= low):
            return value
        raise self.wrong(name, "a whole number" if low is None else f"a whole number of at least {low}")

    def number(self, name: str, low: float | None = None, high: float | None = None) -> float | None:
        """The field as a number from ``low`` to ``high``; ``None`` if absent."""
        if (value := self._fields.get(name)) is None:
            return None
        self._known.add(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if is_number and (low is None or value >= low) and (high is None or value <= high):
            return value  # type: ignore[no-any-return]
        bounds = "" if low is None else f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"
        raise self.wrong(name, f"a number{bounds}")

    def boolean(self, name: str) -> bool | None:
        """The field as a boolean; ``None`` if absent."""
        if (value := self._fields.get(name)) is None:
            return None
        self._known.add(name)
        if isinstance(value, bool):
            return value
        raise self.wrong(name, "true or false")

    def strings(self, name: str) -> tuple[str, ...]:
        """The field as a list of strings; a single string counts as a list of one. Empty if absent."""
        if (value := self._fields.get(name)) is None:
            return ()
        self._known.add(name)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self.wrong(name, "a string or a list of strings")
        return tuple(values)

    def object(self, name: str) -> Self | None:
        """The field as an object to read field by field; ``None`` if absent."""
        if self._fields.get(name) is None:
            return None
        value = self.json_object(name)
        return None if value is None else type(self)(value, self.path(name))

    def required_object(self, name: str) -> Self:
        """Return the field as an object. Raises `BadRequestError` if it is missing."""
        value = self.object(name)
        if value is None:
            raise self.wrong(name, "an object; it is missing")
        return value

    def json_object(self, name: str) -> JsonObject | None:
        """The field as a plain object; ``None`` if absent."""
        value = self.take(name)
        if value is None or isinstance(value, dict):
            return value
        raise self.wrong(name, "an object")

    def objects(self, name: str) -> list[Self]:
        """The field as a list of objects; empty if absent."""
        if (value := self._fields.get(name)) is None:
            return []
        self._known.add(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list of objects")
        return self._members(name, value)

    def text_or_objects(self, name: str) -> str | list[Self]:
        """The field as a string or a list of objects; an empty list if absent."""
        return [] if self.take(name) is None else self.required_text_or_objects(name)

    def required_text_or_objects(self, name: str) -> str | list[Self]:
        """Return the field as a string or a list of objects. Raises `BadRequestError` if it is missing."""
        value = self.take(name)
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise self.wrong(name, f"a string or a list of objects{'; it is missing' if value is None else ''}")
        return self._members(name, value)

    def _members(self, name: str, value: list[Any]) -> list[Self]:
        path, kind = self.path(name), type(self)
        found: list[Self] = []
        for at, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.wrong(f"{name}[{at}]", "an object")
            found.append(kind(item, path, at))
        return found

    def put_back(self, name: str, value: Any) -> None:
        """Treat the field ``name`` as not read. Its value becomes ``value``: what was not read of the object in the
        field.
        """
        self._fields = {**self._fields, name: value or None}
        self._known.discard(name)

    def model(self) -> str:
        """Return the field ``model``. If it is missing, return `AUTO`: the runtime chooses the model."""
        return self.string("model") or AUTO

    def policy(self) -> msgspec.Raw | None:
        """The field `POLICY`, undecoded; ``None`` if it is absent."""
        policy = self._fields.get(POLICY)
        return None if policy is None else msgspec.Raw(encode_json(policy))

    def rest(self) -> JsonObject:
        """The fields that were not read. Raises `BadRequestError` for a transport field at any depth; see
        `llm_protocol.codec.fields.refuse_transport`.
        """
        unread = self._unread()
        if unread:
            refuse_transport(unread, self.where)
        return unread

    def _unread(self) -> JsonObject:
        return {name: value for name, value in self._fields.items() if value is not None and name not in self._known}

    def rest_for(self, name: str) -> dict[str, JsonObject] | None:
        """The fields that were not read, in the form of a part's ``extra``, as fields that only the dialect ``name``
        understands. ``None`` if there are none. Raises as `rest` does.
        """
        rest = self.rest()
        return {name: rest} if rest else None

    @property
    def raw(self) -> JsonObject:
        """The object itself."""
        return self._fields


class ResponseObject(Body):
    """An object within a vendor's response. It differs from a client's `Body` in two ways: a number in place of a
    string is converted to a string, and `rest` returns all fields that were not read, transport fields included.
    """

    __slots__ = ()

    def string(self, name: str) -> str | None:
        """The field as a string; ``None`` if absent. A number is converted to one."""
        value = self.take(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        return super().string(name)

    def rest(self) -> JsonObject:
        """The fields that were not read."""
        return self._unread()


@contextmanager
def reading_response() -> Iterator[None]:
    """Raise `WireError` instead of `BadRequestError` in the block: an invalid field of a response is not the client's
    fault.
    """
    try:
        yield
    except BadRequestError as exc:
        raise WireError(str(exc)) from None
