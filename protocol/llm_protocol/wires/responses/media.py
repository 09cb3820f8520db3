"""Documents and audio as parts of items: ``input_file`` and ``input_audio``."""

from __future__ import annotations

from msgspec import structs

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import bad_request
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import content_base64, content_uri, standard_base64, type_of_name
from llm_protocol.content import Audio, Document, Image, JsonObject, Opaque
from llm_protocol.wires.openai_chat.media import FILES, audio_format, audio_type, file_content, file_name
from llm_protocol.wires.responses.shapes import NAME, own


def encode_file(part: Document) -> JsonObject:
    """Encode an ``input_file`` part."""
    found: JsonObject = {**own(part), "type": "input_file"}
    if part.file_id is None and part.url is None:
        return found | {"filename": file_name(part), "file_data": content_uri(part)}
    if part.title is not None:
        found["filename"] = part.title
    return found | ({"file_url": part.url} if part.file_id is None else {"file_id": part.file_id})


def encode_audio(part: Audio) -> JsonObject:
    """Encode an ``input_audio`` part."""
    recording = {"data": content_base64(part), "format": audio_format(part.media_type or "")}
    return own(part) | {"type": "input_audio", "input_audio": recording}


def decode_file(part: Body) -> Image | Document | Audio | Opaque:
    """Decode an ``input_file`` part. Raises `BadRequestError`."""
    title, file_id, url = part.string("filename"), part.string("file_id"), part.string("file_url")
    data = part.string("file_data")
    if file_id is not None:
        return Document(file_id=file_id, vendor=FILES, title=title, extra=part.rest_for(NAME))
    if url is not None:
        kind = type_of_name(title) or type_of_name(url.partition("?")[0])
        return Document(url=url, media_type=kind, title=title, extra=part.rest_for(NAME))
    if data is None:
        raise bad_request(part.path("file_data"), f"{part.where} needs file_data, file_url or file_id")
    read = file_content(data, title, part.path("file_data"))
    return Opaque(dialect=NAME, value=part.raw) if read is None else structs.replace(read, extra=part.rest_for(NAME))


def decode_audio(part: Body) -> Audio:
    """Decode an ``input_audio`` part. Raises `BadRequestError`."""
    found = part.required_object("input_audio")
    data, form = found.required_string("data"), found.required_string("format")
    try:
        return Audio(base64=standard_base64(data), media_type=audio_type(form), extra=part.rest_for(NAME))
    except WireError:
        raise found.wrong("data", "base64") from None
