"""The inputs of ``ask`` other than text: attachments, a schema, options."""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llm_protocol.content import Audio, Document, Image, Part, ResponseFormat
from llm_runtime.config import ConfigError

ATTACHMENT_BYTES = 32 * 1024 * 1024
"""The largest attachment, in bytes."""

_IMAGES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "string": "string"}


def attachment(name: str) -> Part:
    """Return the part for a file or URL. Raises `ConfigError`."""
    kind = mimetypes.guess_type(name)[0] or ""
    if name.startswith(("http://", "https://")):
        if kind == "application/pdf":
            return Document(url=name, media_type=kind)
        if kind.startswith(("audio/", "text/", "video/")):
            raise ConfigError(f"-a {name}: only images and PDFs can be attached by URL; attach a file instead")
        return Image(url=name)  # the URL of an image often has no extension
    data = _read(name)
    kind = next((named for magic, named in _IMAGES if data.startswith(magic)), kind)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if data.startswith(b"%PDF-"):
        kind = "application/pdf"
    try:
        if kind.startswith("image/"):
            return Image(data=data, media_type=kind)
        if kind.startswith("audio/"):
            return Audio(data=data, media_type=kind)
        if kind == "application/pdf":
            return Document(data=data, media_type=kind, title=os.path.basename(name))
        return Document(text=data.decode(), title=os.path.basename(name))
    except UnicodeDecodeError:
        raise ConfigError(f"-a {name}: not an image, audio, PDF or text") from None
    except ValueError as exc:
        raise ConfigError(f"-a {name}: {exc}") from None


def _read(name: str) -> bytes:
    try:
        with open(os.path.expanduser(name), "rb") as file:
            data = file.read(ATTACHMENT_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a path"
        raise ConfigError(f"-a {name}: {reason}") from None
    if len(data) > ATTACHMENT_BYTES:
        raise ConfigError(f"-a {name}: larger than {ATTACHMENT_BYTES // 1024 // 1024} MiB")
    return data


def schema(text: str) -> ResponseFormat:
    """Return the format for ``--schema``: a JSON schema, a file with one, or ``"name, age int"``. Raises
    `ConfigError`.
    """
    if not text.lstrip().startswith("{"):
        if os.path.exists(text):
            try:
                with open(text, encoding="utf-8") as file:
                    text = file.read(1024 * 1024)
            except (OSError, ValueError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "it is not text in UTF-8"
                raise ConfigError(f"--schema: cannot read {text}: {reason}") from None
        elif text.endswith(".json") or os.sep in text:
            raise ConfigError(f"--schema: there is no file {text}")
        else:
            return ResponseFormat(type="json_schema", name="answer", schema=_of_words(text))
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise ConfigError("--schema is neither JSON, a file of JSON, nor fields such as: name, age int") from None
    return ResponseFormat(type="json_schema", name="answer", schema=found)


def _of_words(text: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in text.split(","):
        words, _, description = field.partition(":")
        name, *kind = words.split()[:2] or [""]
        if not name.isidentifier() or (kind and kind[0] not in _TYPES):
            known = ", ".join(_TYPES)
            raise ConfigError(f"--schema: {field.strip()!r} is not a field: write a name, or a name and one of {known}")
        properties[name] = {"type": _TYPES[kind[0]] if kind else "string"}
        if description.strip():
            properties[name]["description"] = description.strip()
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def options(pairs: Iterable[Sequence[str]]) -> dict[str, Any]:
    """The options of ``-o NAME VALUE``. A value is parsed as JSON if possible, else it is a string."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found
