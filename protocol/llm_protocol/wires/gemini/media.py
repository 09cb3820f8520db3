"""``inlineData`` and ``fileData``: images, documents and audio, as bytes or by URI."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_protocol.codec.fields import bad_request, own_fields
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import content_base64, media_part, parse_data_uri, sniff_media_type, type_of_name
from llm_protocol.content import Audio, Document, Image, JsonObject
from llm_protocol.wires.gemini.shapes import NAME, GeminiBody, needed

FILES: Final = "gemini"
"""The vendor that stores the files which requests refer to by URI."""

_KEPT: Final = "https://generativelanguage.googleapis.com/"
"""The prefix of the URIs of files that Gemini stores. Such a URI may instead have a scheme of Google's own, or be only
a name.
"""


def encode_image(image: Image, where: str) -> JsonObject:
    """Encode an image without its signature. Raises `BadRequestError` if it has neither data nor a URL."""
    own = own_fields(image.extra, NAME)
    if image.data is not None:
        return _inline(own, image.media_type or sniff_media_type(image.data), image.data)
    url = image.url or ""
    if url.startswith("data:"):
        try:
            return _inline(own, *parse_data_uri(url))
        except WireError as exc:
            raise bad_request(where, f"{where}: {exc}") from None
    if not url:
        raise bad_request(where, f"{where}: the image has neither data nor a URL")
    return _file(own, image.media_type, url)


def encode_media(part: Document | Audio) -> JsonObject:
    """Encode a document or audio."""
    own = own_fields(part.extra, NAME)
    address = part.file_id or part.url
    if address is not None:
        return {**own, **_file(own, part.media_type, address)}
    return {**own, **_inline(own, part.media_type, content_base64(part))}


def _inline(own: JsonObject, media_type: str | None, data: str | bytes) -> JsonObject:
    return {"inlineData": {**own.get("inlineData", {}), "mimeType": media_type, "data": data}}


def _file(own: JsonObject, media_type: str | None, url: str) -> JsonObject:
    mime = {} if media_type is None else {"mimeType": media_type}
    return {"fileData": {**own.get("fileData", {}), **mime, "fileUri": url}}


def decode_media(part: GeminiBody, signature: str | None) -> Image | Document | Audio | None:
    """Decode the media in ``part``; ``None`` if it is something else, such as video. Raises `BadRequestError`."""
    for name in ("inlineData", "fileData"):
        blob = part.object(name) if isinstance(part.raw.get(name), dict) else None
        if blob is not None:
            found = _inline_part(blob) if blob.raw.get("fileUri") is None else _file_part(blob)
            if found is None or (signature is not None and not isinstance(found, Image)):
                return None
            return _whole(found, part, name, blob, signature)
    return None


def _whole(
    found: Image | Document | Audio, part: GeminiBody, name: str, blob: GeminiBody, signature: str | None
) -> Image | Document | Audio:
    """The part with its other fields as ``extra``."""
    more = blob.rest()
    extra: JsonObject = {**part.rest(), **({name: more} if more else {})}
    changes: dict[str, Any] = {"extra": {NAME: extra} if extra else None}
    if isinstance(found, Image):
        changes["signature"] = signature
    return msgspec.structs.replace(found, **changes)


def _file_part(blob: GeminiBody) -> Image | Document | Audio | None:
    url, media_type = needed(blob, "fileUri"), blob.string("mimeType")
    kind = media_type or type_of_name(url.partition("?")[0])
    if kind is None or kind.startswith("image/"):
        return Image(url=url, media_type=media_type)
    if kind.startswith("video/"):
        return None
    title = blob.raw.get("displayName")
    where: dict[str, Any] = {"file_id": url, "vendor": FILES} if _is_kept(url) else {"url": url}
    made = Audio if kind.startswith("audio/") else Document
    return made(media_type=media_type, title=title if isinstance(title, str) else None, **where)


def _is_kept(url: str) -> bool:
    return url.startswith(_KEPT) or not url.startswith(("https://", "http://"))


def _inline_part(blob: GeminiBody) -> Image | Document | Audio | None:
    media_type, title = blob.string("mimeType"), blob.raw.get("displayName")
    data = needed(blob, "data")
    try:
        found = media_part(media_type or "image/", data, title=title if isinstance(title, str) else None)
    except WireError as exc:
        raise bad_request(blob.path("data"), f"{blob.path('data')} is {exc}") from None
    return msgspec.structs.replace(found, media_type=None) if isinstance(found, Image) and not media_type else found
