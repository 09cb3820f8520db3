"""Documents and audio as parts of chat messages: ``file`` and ``input_audio``. Cerebras uses the same names."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import bad_request, unsupported
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import (
    content_base64,
    content_uri,
    media_part,
    split_data_uri,
    standard_base64,
    type_of_name,
)
from llm_protocol.content import Audio, Document, Image, JsonObject, Opaque

FILES: Final = "openai"
"""The vendor that stores the files which requests refer to by id."""

_FORMATS: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_NAMES: Final = {media_type: name for name, media_type in _FORMATS.items()}


def encode_document(part: Document, where: str) -> JsonObject:
    """Encode a ``file`` part. Raises `UnsupportedError` for a document by URL, which this wire cannot express."""
    if part.file_id is not None:
        name = {} if part.title is None else {"filename": part.title}
        return {"type": "file", "file": {"file_id": part.file_id, **name}}
    if part.url is not None:
        raise unsupported(where, f"{where}: the chat API accepts documents as base64 data or by file_id, not by URL")
    return {"type": "file", "file": {"filename": file_name(part), "file_data": content_uri(part)}}


def file_name(part: Document) -> str:
    """The document's name. The vendor requires a name, and derives the type of the file from its suffix."""
    return part.title or ("document.pdf" if part.media_type == "application/pdf" else "document.txt")


def encode_audio(part: Audio, where: str) -> JsonObject:
    """Encode an ``input_audio`` part. Raises `UnsupportedError` for audio by URL or file_id."""
    if part.url is not None or part.file_id is not None:
        raise unsupported(where, f"{where}: the chat API accepts audio only as base64 data, not by URL or file_id")
    kind = part.media_type or ""
    return {"type": "input_audio", "input_audio": {"data": content_base64(part), "format": audio_format(kind)}}


def audio_format(media_type: str) -> str:
    """The format of a media type: ``mp3`` for ``audio/mpeg``."""
    return _NAMES.get(media_type, media_type.partition("/")[2].removeprefix("x-"))


def audio_type(form: str) -> str:
    """The media type of a format: ``audio/mpeg`` for ``mp3``."""
    return _FORMATS.get(form.lower(), f"audio/{form.lower()}")


def decode_document(part: Body, name: str) -> Image | Document | Audio | Opaque:
    """Decode a ``file``. It becomes `Opaque` if it has neither ``file_data`` nor ``file_id``, if its ``file_data`` is a
    video, or if there is an unknown field beside ``file_data``.
    """
    found = part.object("file")
    assert found is not None, "the part must have the field file"
    title, data, file_id = found.string("filename"), found.string("file_data"), found.string("file_id")
    if data is None and file_id is not None:
        return Document(file_id=file_id, vendor=FILES, title=title, extra=part.rest_for(name))
    if data is None or found.rest():
        return Opaque(dialect=name, value=part.raw)
    read = file_content(data, title, part.path("file.file_data"))
    if read is None:
        return Opaque(dialect=name, value=part.raw)
    return msgspec.structs.replace(read, extra=part.rest_for(name))


def file_content(data: str, title: str | None, where: str) -> Image | Document | Audio | None:
    """Decode ``data``: a data URI, or base64 whose type follows from the file's name. ``None`` if the type is unknown.

    Raises `BadRequestError`.
    """
    try:
        if data.startswith("data:"):
            return media_part(*split_data_uri(data), title=title)
        return Document(base64=standard_base64(data), media_type=type_of_name(title) or "application/pdf", title=title)
    except (WireError, ValueError) as exc:
        raise bad_request(where, f"{where} must be a base64 data URI: {exc}") from None


def decode_audio(part: Body, name: str) -> Audio | Opaque:
    """Decode an ``input_audio`` part."""
    found = part.object("input_audio")
    assert found is not None, "the part must have the field input_audio"
    data, form = found.required_string("data"), found.required_string("format")
    if found.rest():
        return Opaque(dialect=name, value=part.raw)
    try:
        return Audio(base64=standard_base64(data), media_type=audio_type(form), extra=part.rest_for(name))
    except WireError as exc:
        raise bad_request(found.path("data"), f"{found.path('data')}: {exc}") from None
