"""Messages, their parts, and tools.

All vendors' formats are converted to and from this canonical form. Data that a vendor must receive unchanged in the
next turn is in ``signature`` (a token on a part) or in `Opaque` (a whole block that only that vendor understands).
Fields of a message, part or tool that only one dialect understands, such as marks for its prompt cache, are in
``extra`` under the name of that dialect, as in ``Parameters.extra``. Other dialects leave them out.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias

import msgspec

JsonObject: TypeAlias = dict[str, Any]
"""A decoded JSON object whose shape belongs to a vendor or to the caller."""


class Citation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A source of a text. If the provider says which characters it supports, these are the characters from ``start`` to
    ``end``.

    ``quote`` is the cited text of the source. A source that is a document of the prompt has a ``title`` and no ``url``.
    """

    url: str = ""
    title: str = ""
    start: int | None = None
    end: int | None = None
    quote: str = ""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Plain text. In a response, it may have the sources that it cites and, if requested, the log probabilities of its
    tokens, in OpenAI's form.
    """

    text: str
    signature: str | None = None
    extra: dict[str, JsonObject] | None = None
    citations: tuple[Citation, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """An image, given by ``url``, or as ``data`` bytes with their ``media_type``. Raises `ValueError` if both are
    given.
    """

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None
    detail: str | None = None
    signature: str | None = None
    extra: dict[str, JsonObject] | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.data is not None:
            raise ValueError("Image: give url or data, not both")


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """The common fields of documents and audio. Exactly one field contains the content.

    ``data`` contains the bytes. ``base64`` contains them in standard base64, which is passed on without decoding. A
    ``url`` is fetched by the vendor. ``file_id`` is the id of a file that ``vendor`` (``"openai"``, ``"anthropic"`` or
    ``"gemini"``) stores; no other vendor can read it. Raises `ValueError` for no or several contents, and for a
    ``media_type`` of another kind of part.
    """

    data: bytes | None = None
    base64: str | None = None
    url: str | None = None
    file_id: str | None = None
    vendor: str | None = None
    media_type: str | None = None
    title: str | None = None
    """The title, or the name of the file."""
    extra: dict[str, JsonObject] | None = None

    def _check(self, kind: str, more: tuple[str, ...] = ()) -> None:
        sources = ("data", "base64", *more, "url", "file_id")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"not {' and '.join(given)}" if given else "but none was given"
            raise ValueError(f"{kind}: give exactly one of {', '.join(sources)}, {found}")
        if (self.vendor is None) is not (self.file_id is None):
            raise ValueError(f"{kind}: file_id needs vendor, the vendor that stores the file, and vendor needs file_id")


_PDF = "application/pdf"


class Document(Media, frozen=True, kw_only=True, tag="document"):
    """A document: a PDF or a text document. A text document can be given as ``text``; its type is ``text/plain`` unless
    ``media_type`` says otherwise. The type of ``data`` may be left out if the data begins as a PDF does.

    ``context`` is what the model is told about the document in addition to its content. ``pages`` is the number of
    pages, if known. Raises `ValueError` as `Media` does, for a missing type of ``data`` or ``base64``, for ``text``
    with a type that is not text, and for ``pages`` below 1.
    """

    text: str | None = None
    context: str | None = None
    pages: int | None = None

    def __post_init__(self) -> None:
        self._check("Document", ("text",))
        kind = self.media_type
        if kind is None and (self.data is not None or self.base64 is not None):
            if not ((self.data or b"").startswith(b"%PDF-") or (self.base64 or "").startswith("JVBERi")):
                raise ValueError('Document: media_type is missing, for example "application/pdf" or "text/plain"')
            msgspec.structs.force_setattr(self, "media_type", _PDF)
        elif kind is not None and kind.partition("/")[0] in ("image", "audio", "video"):
            other = {"image": "; use Image", "audio": "; use Audio"}.get(kind.partition("/")[0], "")
            raise ValueError(f"Document: media_type {kind} is not the type of a document{other}")
        elif self.text is not None and kind is None:
            msgspec.structs.force_setattr(self, "media_type", "text/plain")
        if self.text is not None and not self.is_text:
            raise ValueError(
                f"Document: text cannot have the media_type {kind}: give data or base64 instead, or omit media_type"
            )
        if self.pages is not None and self.pages < 1:
            raise ValueError("Document: pages must be at least 1")

    @property
    def is_text(self) -> bool:
        """Whether the bytes of the document are text."""
        kind = (self.media_type or _PDF).partition(";")[0]
        return kind.startswith("text/") or kind.endswith(("+json", "+xml")) or kind in _TEXT_TYPES


_TEXT_TYPES = frozenset(
    f"application/{name}"
    for name in ("json", "xml", "yaml", "x-yaml", "toml", "javascript", "x-javascript", "sql", "x-sh", "csv")
)


class Audio(Media, frozen=True, kw_only=True, tag="audio"):
    """A recording. ``media_type`` may be left out if ``data`` begins as WAV, MP3, FLAC or Ogg does. Raises `ValueError`
    as `Media` does, and for a missing type.
    """

    def __post_init__(self) -> None:
        self._check("Audio")
        kind = self.media_type
        if kind is None and self.data is not None:
            kind = next((named for magic, named in _SOUNDS if self.data.startswith(magic)), None)
        if kind is None and self.file_id is None:
            raise ValueError('Audio: media_type is missing, for example "audio/wav"')
        if kind is not None and not kind.startswith("audio/"):
            raise ValueError(f"Audio: media_type {kind} is not a type of audio")
        if kind is not None:
            msgspec.structs.force_setattr(self, "media_type", _SAME_SOUND.get(kind, kind))


_SOUNDS = (
    (b"RIFF", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_SAME_SOUND = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
}
"""Other names of the same format."""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning before its response.

    ``text`` is readable (it may be a summary, or empty). ``encrypted`` is a payload that only the vendor reads.
    ``signature`` proves to the vendor that the vendor itself made the text. These three and ``extra`` are sent back
    unchanged in the next turn, to the vendor that made them. ``dialect`` names this vendor's dialect; ``None`` if it is
    unknown.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    dialect: str | None = None
    extra: dict[str, JsonObject] | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="tool_call"):
    """A call the model asks for. ``arguments`` is the JSON text as the model wrote it; it may not be valid JSON."""

    id: str
    name: str
    arguments: str = "{}"
    signature: str | None = None
    extra: dict[str, JsonObject] | None = None

    def parsed(self) -> JsonObject:
        """The arguments as an object: empty for ``""`` and ``"null"``. NaN and Infinity, which JSON does not have,
        become ``None``.

        Raises `ValueError` if the model wrote something that is not a JSON object.
        """
        text = self.arguments.strip()
        if text in ("", "null"):
            return {}
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            value = json.loads(text, parse_constant=lambda _: None)  # models write NaN, and characters cut in two
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of tool call {self.name!r} are not a JSON object")  # noqa: TRY004
        return value

    def result(self, text: str, *, is_error: bool = False) -> ToolResult:
        """The result of this call, to be sent back in a message of role ``tool``."""
        return ToolResult(call_id=self.id, name=self.name, content=(Text(text),), is_error=is_error)


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, tag="tool_result"):
    """The result of the call with the id ``call_id``."""

    call_id: str
    content: tuple[Text | Image | Document | Audio, ...] = ()
    name: str | None = None
    is_error: bool = False
    extra: dict[str, JsonObject] | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


FAILED = "The tool failed without a message."
"""The text of a tool result that is an error and has no text."""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The model's explanation of why it refuses."""

    text: str


class Opaque(msgspec.Struct, frozen=True, kw_only=True, tag="opaque"):
    """A block that only ``dialect`` understands. It is sent back to that dialect unchanged; other dialects refuse it,
    with an error that names it.
    """

    dialect: str
    value: JsonObject


Part: TypeAlias = Text | Image | Document | Audio | Reasoning | ToolCall | ToolResult | Refusal | Opaque
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True):
    """One turn. Tool results are in messages of the role ``tool``, tool calls and reasoning in those of
    ``assistant``.
    """

    role: Role
    content: tuple[Part, ...]
    name: str | None = None
    extra: dict[str, JsonObject] | None = None

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        """Return a message with only a text."""
        return cls(role, (Text(text),))

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True, kw_only=True, tag="function"):
    """A function the model may call. ``parameters`` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: JsonObject = msgspec.field(default_factory=dict)
    strict: bool | None = None
    extra: dict[str, JsonObject] | None = None


class HostedTool(msgspec.Struct, frozen=True, kw_only=True, tag="hosted"):
    """A tool that runs at the vendor (web search and the like). ``value`` is sent to ``dialect`` unchanged, and to no
    other dialect.
    """

    dialect: str
    value: JsonObject


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the model may, must or must not call tools; with ``named``, which one. Raises `ValueError` for a name
    without ``named``, and for ``named`` without a name.
    """

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.mode == "named") is (self.name is None):
            problem = "needs a name" if self.name is None else f"takes no name, but {self.name!r} was given"
            raise ValueError(f'ToolChoice: mode "{self.mode}" {problem}')


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The required format of the response's text. Raises `ValueError` for a ``schema`` without ``json_schema``, and
    for ``json_schema`` without a schema.
    """

    type: Literal["text", "json", "json_schema"]
    name: str = "response"
    schema: JsonObject | None = None
    strict: bool | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        if (self.type == "json_schema") is (self.schema is None):
            problem = "needs a schema" if self.schema is None else "takes no schema, but one was given"
            raise ValueError(f'ResponseFormat: type "{self.type}" {problem}')
