"""Images, documents and audio in a conversation, in the form and the place that a vendor accepts. Pure.

A text document becomes text if the vendor does not accept documents. Media that the vendor accepts only in a user's
turn are moved there from a tool's result. Any other media are refused, with an error that names them. A part that came
over the vendor's own wire is sent unchanged: the vendor decides whether to accept it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.codec.fields import unsupported
from llm_protocol.codec.media import text_of_document
from llm_protocol.content import Audio, Document, Image, Message, Part, Text, ToolResult
from llm_protocol.errors import UnsupportedError
from llm_protocol.parameters.targets import RequestTarget

_MEDIA = (Image, Document, Audio)


def has_media(message: Message) -> bool:
    """Whether ``message`` contains anything that `fit_media` may have to change."""
    for part in message.content:
        if isinstance(part, _MEDIA):
            return True
        if isinstance(part, ToolResult) and any(isinstance(each, _MEDIA) for each in part.content):
            return True
    return False


def fit_media(
    messages: Sequence[Message],
    target: RequestTarget,
    adjusted: list[Adjustment],
    *,
    is_own: bool,
    reads_documents: bool = True,
) -> tuple[Message, ...]:
    """The messages with media in the form that ``target`` accepts. ``is_own``: the messages came over the target's
    wire. ``reads_documents``: whether the model accepts documents at all. The changes are appended to ``adjusted``.
    Raises `UnsupportedError`.
    """
    fit = _Fit(target, adjusted, is_own=is_own, reads_documents=reads_documents)
    fitted = (fit.message(message, f"messages[{at}].content") for at, message in enumerate(messages))
    return tuple(_moved_behind(tuple(fitted), target, adjusted))


class _Fit:
    """One target, and the changes for it so far."""

    def __init__(
        self, target: RequestTarget, adjusted: list[Adjustment], *, is_own: bool, reads_documents: bool
    ) -> None:
        self._target = target
        self._adjusted = adjusted
        self._is_own = is_own
        self._reads_documents = reads_documents

    def message(self, message: Message, where: str) -> Message:
        if not has_media(message):
            return message
        content = tuple(self._part(part, f"{where}[{at}]") for at, part in enumerate(message.content))
        return msgspec.structs.replace(message, content=content)

    def _part(self, part: Part, where: str) -> Part:
        match part:
            case ToolResult():
                content = tuple(self._inner(each, f"{where}.content[{at}]") for at, each in enumerate(part.content))
                return msgspec.structs.replace(part, content=content)
            case Document() | Audio():
                return self._inner(part, where)
            case _:
                return part

    def _inner(self, part: Text | Image | Document | Audio, where: str) -> Text | Image | Document | Audio:
        match part:
            case Document():
                return self._document(part, where)
            case Audio():
                self._check_audio(part, where)
        return part

    def _document(self, part: Document, where: str) -> Document | Text:
        limits = self._target.limits
        if part.is_text and part.url is None and part.file_id is None:
            if self._reads_documents and (limits.text_documents or (self._is_own and limits.documents is not None)):
                return part
            self._adjusted.append(Adjustment(where, "rewritten", "the text of the document"))
            return as_text(part, where)
        self._check_file(part.file_id, part.vendor, where)
        if self._is_own or part.file_id is not None:
            return part
        if not self._takes(part, limits.documents):
            raise self._cannot(where, _kind(part, "PDF documents"))
        if part.url is not None and not limits.document_urls:
            raise self._cannot(where, "a document by its URL: send its content")
        return part

    def _check_audio(self, part: Audio, where: str) -> None:
        limits = self._target.limits
        self._check_file(part.file_id, part.vendor, where)
        if self._is_own or part.file_id is not None:
            return
        if not self._takes(part, limits.audio):
            raise self._cannot(where, _kind(part, "audio"))
        if part.url is not None and not limits.audio_urls:
            raise self._cannot(where, "audio by its URL: send its content")

    def _takes(self, part: Document | Audio, types: frozenset[str] | None) -> bool:
        return types is None or (part.media_type or "application/pdf").partition(";")[0] in types

    def _check_file(self, file_id: str | None, vendor: str | None, where: str) -> None:
        if file_id is not None and vendor != self._target.files:
            raise unsupported(where, f"{where}: the file {file_id[:64]} is stored at {vendor}; {self._target.who} has "
                              "no access to it. Send its content")  # fmt: skip

    def _cannot(self, where: str, what: str) -> UnsupportedError:
        return unsupported(where, f"{where}: {self._target.who} does not accept {what}")


def _kind(part: Document | Audio, plain: str) -> str:
    """Return the media type for an error message: ``plain`` for PDF and for an unknown type."""
    return plain if part.media_type in (None, "application/pdf") else f"{part.media_type}"


def as_text(document: Document, where: str) -> Text:
    """Convert a text document to a text with marks at its beginning and end. Raises `UnsupportedError` if its bytes
    are not text.
    """
    text = text_of_document(document)
    if text is None:
        raise unsupported(where, f"{where}: the document is not text in UTF-8")
    from html import escape  # takes long to import, and is rarely needed

    title = f' title="{escape(document.title)}"' if document.title else ""
    context = f"{document.context}\n" if document.context else ""
    return Text(f"<document{title}>\n{context}{text}\n</document>", extra=document.extra)


# ---------------------------------------------------------------- tool results

_NOUNS: tuple[tuple[type[Part], str], ...] = ((Image, "picture"), (Document, "document"), (Audio, "recording"))


def _moved_behind(messages: Sequence[Message], target: RequestTarget, adjusted: list[Adjustment]) -> Iterator[Message]:
    """The messages, with media that the target does not accept in tool results moved into a user's turn after them. A
    text before each names its call, and a text in its old place refers to it.
    """
    shown: list[Part] = []
    for at, message in enumerate(messages):
        if message.role != "tool":
            yield from _user_turn(shown)
            shown = []
            yield message
            continue
        content: list[Part] = []
        for part in message.content:
            moved = _unplaced(part, target)
            if not moved or not isinstance(part, ToolResult):
                content.append(part)
                continue
            noun = next(noun for kind, noun in _NOUNS if isinstance(moved[0], kind))
            rest = [each for each in part.content if not any(each is one for one in moved)]
            rest.append(Text(f"[The {noun} is in the next user message.]"))
            content.append(msgspec.structs.replace(part, content=tuple(rest)))
            shown += [Text(f"The {noun} in the result of tool call {part.call_id}:"), *moved]
            adjusted.append(Adjustment(f"messages[{at}].content", "rewritten", f"a user message with the {noun}"))
        yield msgspec.structs.replace(message, content=tuple(content)) if content != list(message.content) else message
    yield from _user_turn(shown)


def _unplaced(part: Part, target: RequestTarget) -> list[Part]:
    """The media in the result ``part`` that the target accepts elsewhere, but not in a result."""
    limits = target.limits
    kinds = tuple(
        kind
        for kind, has_place in (
            (Image, limits.pictures_in_results),
            (Document, limits.documents_in_results),
            (Audio, False),
        )
        if not has_place
    )
    return [each for each in part.content if isinstance(each, kinds)] if isinstance(part, ToolResult) else []


def _user_turn(shown: list[Part]) -> Iterator[Message]:
    if shown:
        yield Message("user", tuple(shown))
