"""What every wire needs: a peer's JSON, its times and durations, its headers, data URIs, and texts without keys.

Everything here takes a peer's bytes or strings and either understands them or says so with one error, `WireError`
(or ``None``, where absence is normal). Nothing here raises anything else, however odd the input.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from llm_protocol.content import Image, JsonObject
from llm_protocol.dialect import Headers
from llm_protocol.failures import MESSAGE_LIMIT, FailureKind

T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A whole JSON body may have this many bytes (pictures travel in base64)."""


class WireError(ValueError):
    """A peer's bytes could not be understood. The text says why and where, and holds none of the bytes."""


# ---------------------------------------------------------------- JSON


class JsonDecoder(Generic[T]):
    r"""Decodes JSON text into ``T``; make one per shape and keep it.

    Lone surrogates (``"\ud83d"`` cut from its other half, as tokenisers produce) become U+FFFD. NaN, Infinity, too
    deep nesting, and the wrong types raise `WireError`.
    """

    __slots__ = ("_fast", "_limit", "_type")

    def __init__(self, type_: type[T], *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._fast = msgspec.json.Decoder(type_)
        self._type = type_
        self._limit = max_bytes

    def decode(self, data: bytes | str) -> T:
        """The value. Raises `WireError`."""
        if len(data) > self._limit:
            raise WireError(f"the JSON text is longer than {self._limit} bytes")
        try:
            return self._fast.decode(data)
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError("the JSON text is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeError):
            return self._decode_tolerantly(data)

    def _decode_tolerantly(self, data: bytes | str) -> T:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return msgspec.convert(scrub(value), self._type)
        except msgspec.ValidationError as exc:
            raise WireError(_without_values(str(exc))) from None
        except RecursionError:
            raise WireError("the JSON text is nested too deeply") from None
        except ValueError:
            raise WireError("the text is not JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _without_values(message: str) -> str:
    """The error text of msgspec with quoted values taken out: they may be a prompt's."""
    return re.sub(r"'[^']*'", "'…'", message)[:300]


_ANY: JsonDecoder[Any] = JsonDecoder(object)
_OBJECT: JsonDecoder[JsonObject] = JsonDecoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()


def decode_json(data: bytes | str) -> Any:
    """Any JSON value. Raises `WireError`."""
    return _ANY.decode(data)


def decode_object(data: bytes | str) -> JsonObject:
    """A JSON object. Raises `WireError`."""
    return _OBJECT.decode(data)


def encode_json(value: object) -> bytes:
    """The JSON bytes of structs, dicts and lists. Lone surrogates become U+FFFD."""
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(scrub(msgspec.to_builtins(value)))


def scrub(value: Any) -> Any:
    """A decoded JSON value without lone surrogates."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list() | tuple():
            return [scrub(item) for item in value]
        case dict():
            return {scrub(key): scrub(item) for key, item in value.items()}
        case _:
            return value


def json_text(value: JsonObject) -> str:
    """A JSON object as text, for the wires that carry JSON inside strings."""
    return encode_json(value).decode()


# ---------------------------------------------------------------- headers


def header(headers: Headers, name: str) -> str | None:
    """The first field called ``name`` (lower case), if any."""
    return next((value for key, value in headers if key == name), None)


def int_header(headers: Headers, name: str) -> int | None:
    """A field that is a whole number, if it is one. Negative counts (some vendors overdraw) are 0."""
    number = _number(header(headers, name))
    return None if number is None else max(0, int(number))


def wall_clock(headers: Headers) -> float:
    """Now, in seconds since the epoch, by the peer's own ``date`` if it gave one: then its times need no equal
    clocks.
    """
    stamp = http_date(header(headers, "date"))
    return time.time() if stamp is None else stamp


def retry_after(headers: Headers, *, now: float | None = None) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after`` (a number, a duration, or a date); never negative."""
    ms = _number(header(headers, "retry-after-ms"))
    if ms is not None:
        return max(0.0, ms / 1000)
    value = header(headers, "retry-after")
    seconds = duration(value)
    if seconds is not None:
        return seconds
    stamp = http_date(value)
    if stamp is None:
        return None
    return max(0.0, stamp - (wall_clock(headers) if now is None else now))


def seconds_until(stamp: str | None, headers: Headers, *, now: float | None = None) -> float | None:
    """Seconds from now to an RFC 3339 time; never negative."""
    at = rfc3339(stamp)
    if at is None:
        return None
    return max(0.0, at - (wall_clock(headers) if now is None else now))


# ---------------------------------------------------------------- times

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)


def _number(text: str | None) -> float | None:
    if text is None or len(text) > 32:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def duration(text: str | None) -> float | None:
    """Seconds in ``"12ms"``, ``"6m0s"``, ``"1m26.4s"``, ``"34.4s"``, ``"4.69"``; ``None`` for anything else."""
    number = _number(text)
    if number is not None:
        return max(0.0, number)
    if text is None or len(text) > 64:
        return None
    text = text.strip().lower()
    total, at = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != at:
            return None
        total, at = total + float(part[1]) * _UNITS[part[2]], part.end()
    return total if text and at == len(text) else None


def http_date(text: str | None) -> float | None:
    """An HTTP date as seconds since the epoch."""
    if text is None or len(text) > 64:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def rfc3339(text: str | None) -> float | None:
    """An RFC 3339 time as seconds since the epoch; without a zone it is taken as UTC."""
    if text is None or len(text) > 64:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# ---------------------------------------------------------------- pictures


def data_uri(media_type: str, data: bytes) -> str:
    """``data:image/png;base64,…``."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def parse_data_uri(url: str) -> tuple[str, bytes]:
    """Media type and bytes of a base64 data URI. Raises `WireError` when it is not one."""
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise WireError("not a base64 data URI")
    return head[5:-7].partition(";")[0] or "text/plain", unbase64(payload)


def unbase64(text: str) -> bytes:
    """The bytes of base64 text, standard or URL-safe, padded or not. Raises `WireError`."""
    try:
        raw = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise WireError("not valid base64") from None


def image_url(image: Image) -> str:
    """The picture as a URL: its own, or a data URI."""
    if image.url is not None:
        return image.url
    return data_uri(image.media_type or sniff_media_type(image.data or b""), image.data or b"")


def image_from_url(url: str, detail: str | None = None) -> Image:
    """The picture behind a URL, with its bytes where the URL carries them. Raises `WireError`."""
    if not url.startswith("data:"):
        return Image(url=url, detail=detail)
    media_type, data = parse_data_uri(url)
    return Image(data=data, media_type=media_type, detail=detail)


_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def sniff_media_type(data: bytes) -> str:
    """The media type that the first bytes of a picture tell; PNG if they tell nothing."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "image/png")


# ---------------------------------------------------------------- errors

_KEYS = re.compile(
    r"""(?ix)
      (?<=bearer\s) [^\s"',;]+
    | \b (?: sk | csk | pk | rk | gsk | xai | hf ) [-_] [a-z0-9_\-*.]{8,}
    | \b AIza [a-z0-9_\-*]{10,}
    | \b (?=[a-z]*\d)(?=\d*[a-z]) [a-z0-9]{32,} \b
    | [a-z0-9_\-]{0,64} \*{4,} [a-z0-9_\-*]*
    """
)


def redact(text: str) -> str:
    """``text`` with everything that looks like a key, or the remains of one, replaced."""
    return _KEYS.sub("[redacted]", text)


def error_message(text: str | None, fallback: str) -> str:
    """A vendor's error text as we keep it: one line, redacted, bounded; ``fallback`` if there is none."""
    line = " ".join((text or "")[: 2 * MESSAGE_LIMIT].split())
    return redact(line)[:MESSAGE_LIMIT] or fallback


_STATUS_KINDS = {
    400: FailureKind.BAD_REQUEST,
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA,
    403: FailureKind.AUTH,
    404: FailureKind.MODEL_NOT_FOUND,
    408: FailureKind.SERVER_ERROR,
    409: FailureKind.OVERLOADED,
    425: FailureKind.OVERLOADED,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.SERVER_ERROR,
    503: FailureKind.OVERLOADED,
    504: FailureKind.SERVER_ERROR,
    529: FailureKind.OVERLOADED,
}


def kind_of_status(status: int) -> FailureKind:
    """What a status alone says; a dialect knows more from the body."""
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if status >= 500:
        return FailureKind.SERVER_ERROR
    return FailureKind.BAD_REQUEST if status >= 400 else FailureKind.PROTOCOL
