"""Read and write images on the wire: base64 and data URIs."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress

import msgspec

from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import Image

_SLICE = 3 * 4 * 64 * 1024
"""How much is encoded or decoded in one step: without a rest in either direction."""

_STANDARD = bytes.maketrans(b"-_", b"+/")


def data_uri(media_type: str, data: bytes) -> str:
    """``data:image/png;base64,…``."""
    return f"data:{media_type};base64,{base64_text(data)}"


def parse_data_uri(url: str) -> tuple[str, bytes]:
    """Media type and bytes of a base64 data URI. Raises `WireError` when it is not one."""
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise WireError("not a base64 data URI")
    return head[5:-7].partition(";")[0] or "text/plain", unbase64(payload)


def unbase64(text: str) -> bytes:
    """The bytes of base64 text, standard or URL-safe, padded or not. Raises `WireError`."""
    try:
        raw = text.rstrip("=").encode("ascii")
        if len(raw) <= _SLICE:
            return _unbase64(raw)
        return b"".join([_unbase64(raw[at : at + _SLICE]) for at in range(0, len(raw), _SLICE)])
    except (ValueError, binascii.Error):
        raise WireError("not valid base64") from None


def _unbase64(raw: bytes) -> bytes:
    return base64.b64decode(raw.translate(_STANDARD) + b"=" * (-len(raw) % 4), validate=True)


def unbase64_json(raw: msgspec.Raw) -> bytes | None:
    """The bytes of a JSON string of base64 that was not decoded; ``None`` for null. Raises `WireError`."""
    text = memoryview(raw)
    if len(text) > _SLICE and text[0] == text[-1] == ord('"'):
        end = len(text) - 1
        while text[end - 1] == ord("="):
            end -= 1
        with suppress(ValueError):  # binascii.Error is one; what is escaped is read below
            return b"".join([_unbase64(bytes(text[at : min(at + _SLICE, end)])) for at in range(1, end, _SLICE)])
    value = decode_json(bytes(text))
    if not isinstance(value, str | None):
        raise WireError("expected base64 in a text")
    return None if value is None else unbase64(value)


def base64_pieces(data: bytes) -> list[bytes]:
    """Standard base64 of ``data``, in pieces that are each made in a short time."""
    return [base64.b64encode(data[at : at + _SLICE]) for at in range(0, len(data), _SLICE)]


def base64_text(data: bytes) -> str:
    """Standard base64 of ``data``."""
    return b"".join(base64_pieces(data)).decode()


def image_url(image: Image) -> str:
    """The image as a URL: its own, or a data URI."""
    if image.url is not None:
        return image.url
    return data_uri(image.media_type or sniff_media_type(image.data or b""), image.data or b"")


def image_from_url(url: str, detail: str | None = None) -> Image:
    """The image behind a URL, with its bytes where the URL carries them. Raises `WireError`."""
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
    """The media type of an image by its first bytes; PNG if they are unknown."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "image/png")
