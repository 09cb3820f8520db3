"""Encode and decode images, documents and audio: base64 and data URIs."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress

import msgspec

from llm_protocol.codec.json import WireError, decode_json
from llm_protocol.content import Audio, Document, Image, JsonObject

_SLICE = 3 * 4 * 64 * 1024
"""The bytes that are encoded or decoded in one step: a multiple of 3 and of 4."""

_STANDARD = bytes.maketrans(b"-_", b"+/")


def data_uri(media_type: str, data: bytes) -> str:
    """Return ``data`` as a data URI such as ``data:image/png;base64,…``."""
    return f"data:{media_type};base64,{base64_text(data)}"


def parse_data_uri(url: str) -> tuple[str, bytes]:
    """Media type and bytes of a base64 data URI. Raises `WireError` if it is malformed."""
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
    """The bytes of an undecoded JSON string with base64; ``None`` for null. Raises `WireError`."""
    text = memoryview(raw)
    if len(text) > _SLICE and text[0] == text[-1] == ord('"'):
        end = len(text) - 1
        while text[end - 1] == ord("="):
            end -= 1
        with suppress(ValueError):  # binascii.Error is a ValueError; escapes are handled below
            return b"".join([_unbase64(bytes(text[at : min(at + _SLICE, end)])) for at in range(1, end, _SLICE)])
    value = decode_json(bytes(text))
    if not isinstance(value, str | None):
        raise WireError("expected a JSON string with base64")
    return None if value is None else unbase64(value)


def base64_pieces(data: bytes) -> list[bytes]:
    """Standard base64 of ``data``, in pieces that each take little time."""
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
    """The image for a URL, with its bytes if it is a data URI. Raises `WireError`."""
    if not url.startswith("data:"):
        return Image(url=url, detail=detail)
    media_type, data = parse_data_uri(url)
    return Image(data=data, media_type=media_type, detail=detail)


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def standard_base64(text: str) -> str:
    """Return base64 text in its standard form: standard alphabet, padded. It is not decoded. Raises `WireError`."""
    bare = text.rstrip("=")
    if "-" in bare or "_" in bare:
        bare = bare.replace("-", "+").replace("_", "/")
    if not bare.isascii() or bare.encode().translate(None, _ALPHABET) or len(bare) % 4 == 1:
        raise WireError("not valid base64")
    padded = -len(bare) % 4
    return text if len(bare) + padded == len(text) and text.startswith(bare) else bare + "=" * padded


def content_base64(part: Document | Audio) -> str | bytes:
    """Return the content of the part as a value for JSON: text in base64, or bytes, which the JSON encoder writes as
    base64.
    """
    if part.base64 is not None:
        return part.base64
    if isinstance(part, Document) and part.text is not None:
        return part.text.encode("utf-8", "replace")
    return part.data or b""


def content_uri(part: Document | Audio) -> str:
    """Return the content of the part as a data URI."""
    content = content_base64(part)
    text = content if isinstance(content, str) else base64_text(content)
    return f"data:{part.media_type};base64,{text}"


def split_data_uri(url: str) -> tuple[str, str]:
    """Media type and standard base64 of a base64 data URI, without decoding. Raises `WireError` if it is malformed."""
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise WireError("not a base64 data URI")
    return head[5:-7].partition(";")[0].strip().lower() or "text/plain", standard_base64(payload)


def media_part(
    media_type: str, content: str, *, title: str | None = None, extra: dict[str, JsonObject] | None = None
) -> Image | Document | Audio | None:
    """The part for base64 ``content`` of this media type; ``None`` for video. Raises `WireError` for invalid base64."""
    match media_type.partition("/")[0]:
        case "image":
            return Image(data=unbase64(content), media_type=media_type, extra=extra)
        case "audio":
            return Audio(base64=standard_base64(content), media_type=media_type, title=title, extra=extra)
        case "video":
            return None
        case _:
            return Document(base64=standard_base64(content), media_type=media_type, title=title, extra=extra)


def text_of_document(part: Document) -> str | None:
    """The text of a document; ``None`` if the document is not text, has no content, or is not UTF-8."""
    if part.text is not None:
        return part.text
    if not part.is_text:
        return None
    try:
        data = part.data if part.base64 is None else unbase64(part.base64)
        return None if data is None else data.decode("utf-8-sig")
    except (UnicodeDecodeError, WireError):
        return None


TYPES_BY_SUFFIX = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "xml": "application/xml",
}


def type_of_name(name: str | None) -> str | None:
    """The media type of a document by its file name; ``None`` if the name has no known extension."""
    return TYPES_BY_SUFFIX.get((name or "").rpartition(".")[2].lower())


_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def sniff_media_type(data: bytes) -> str:
    """The media type of an image by its first bytes; PNG if they are unknown."""
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "image/png")
