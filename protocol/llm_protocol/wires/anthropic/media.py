"""``document`` blocks: PDFs, texts, and texts in several blocks, which Claude can cite one by one."""

from __future__ import annotations

from typing import Any, Final

from llm_protocol.codec.body import Body
from llm_protocol.codec.fields import bad_request, own_fields
from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import content_base64, standard_base64, text_of_document
from llm_protocol.content import Document, JsonObject, Opaque
from llm_protocol.wires.anthropic.shapes import NAME

FILES: Final = "anthropic"
"""The vendor that stores the files which requests refer to by id."""


def encode_document(part: Document) -> JsonObject:
    """The block for ``part``, whose media type the vendor accepts."""
    own = own_fields(part.extra, NAME)
    block: JsonObject = {"type": "document", "source": own.get("source") or _source(part)}
    if part.title is not None:
        block["title"] = part.title
    if part.context is not None:
        block["context"] = part.context
    return {**own, **block}


def _source(part: Document) -> JsonObject:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.is_text and (text := text_of_document(part)) is not None:
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": part.media_type, "data": content_base64(part)}


def decode_document(block: Body) -> Document | Opaque:
    """Decode a ``document`` block; an unknown source becomes `Opaque`. Raises `BadRequestError`."""
    source = block.required_object("source")
    more: dict[str, Any] = {"title": block.string("title"), "context": block.string("context")}
    kind = source.string("type")
    try:
        match kind:
            case "base64":
                data = standard_base64(source.required_string("data"))
                more |= {"base64": data, "media_type": source.required_string("media_type")}
            case "text":
                more |= {"text": source.required_string("data"), "media_type": source.string("media_type")}
            case "url":
                more |= {"url": source.required_string("url"), "media_type": "application/pdf"}
            case "file":
                more |= {"file_id": source.required_string("file_id"), "vendor": FILES}
            case "content" if (text := _text_of(source)) is not None:
                block.put_back("source", source.raw)  # Claude cites its blocks
                more["text"] = text
            case _:
                return Opaque(dialect=NAME, value=block.raw)
        return Document(**more, extra=block.rest_for(NAME))
    except WireError:
        raise source.wrong("data", "base64") from None
    except ValueError as exc:
        raise bad_request(source.where, f"{source.where}: {exc}") from None


def _text_of(source: Body) -> str | None:
    """The text of a document in blocks; ``None`` if the blocks contain more than text."""
    content = source.required_text_or_objects("content")
    if isinstance(content, str):
        return content
    texts = [each.required_string("text") for each in content if each.kind() == "text"]
    return "\n\n".join(texts) if len(texts) == len(content) else None
