"""Convert citations between the formats of the five wires and `llm_protocol.content.Citation`.

A client that uses the provider's own wire gets the provider's own format back, from ``extra``. These conversions serve
clients of other wires. Providers may send any shape: unknown shapes are left out, and no function of this module
raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llm_protocol.content import Citation, JsonObject

NOTHING = Citation()


def from_annotations(annotations: Any, text: str, offset: int = 0) -> tuple[Citation, ...]:
    """Read OpenAI's annotations, of Chat Completions and of Responses. Their positions count the characters of the
    whole text, in which ``text`` begins at ``offset``.
    """
    found: list[Citation] = []
    for each in _objects(annotations):
        inner = each.get("url_citation")
        given = inner if isinstance(inner, dict) else each
        if url := _text(given.get("url")):
            start, end = _range(given.get("start_index"), given.get("end_index"), offset, len(text))
            found.append(Citation(url=url, title=_text(given.get("title")), start=start, end=end))
    return tuple(found)


def from_urls(urls: Any) -> tuple[Citation, ...]:
    """Read Perplexity's list of sources."""
    return tuple(Citation(url=url) for url in urls if isinstance(url, str)) if isinstance(urls, list) else ()


def from_anthropic(citations: Any) -> tuple[Citation, ...]:
    """Read the citations of a text block. They refer to web pages, or to documents in the prompt, which have no URL."""
    found = (
        Citation(
            url=_text(each.get("url")) or _text(each.get("source")),
            title=_text(each.get("title")) or _text(each.get("document_title")),
            quote=_text(each.get("cited_text")),
        )
        for each in _objects(citations)
    )
    return tuple(each for each in found if each != NOTHING)


def from_cohere(citations: Any, text: str) -> tuple[Citation, ...]:
    """Read the citations of a message: each has a piece of the text, and the documents that support it."""
    found: list[Citation] = []
    for each in _objects(citations):
        start, end = _range(each.get("start"), each.get("end"), 0, len(text))
        for source in _objects(each.get("sources")):
            document = source.get("document")
            fields = document if isinstance(document, dict) else {}
            title, quote = _text(fields.get("title")), _text(fields.get("snippet"))
            if (url := _text(fields.get("url"))) or title:
                found.append(Citation(url=url, title=title, start=start, end=end, quote=quote))
    return tuple(found)


def from_gemini(candidate: JsonObject, text: str) -> tuple[Citation, ...]:
    """Read a candidate's grounding and its citations, whose positions count bytes of UTF-8."""
    places = _Places(text)
    found: list[Citation] = []
    grounding = _object(candidate.get("groundingMetadata"))
    chunks = _list(grounding.get("groundingChunks"))
    pages = [_object(_object(each).get("web")) or _object(_object(each).get("retrievedContext")) for each in chunks]
    supported: set[int] = set()
    for support in _objects(grounding.get("groundingSupports")):
        segment = _object(support.get("segment"))
        start, end = places.range(segment.get("startIndex") or 0, segment.get("endIndex"))
        for at in _list(support.get("groundingChunkIndices")):
            if isinstance(at, int) and 0 <= at < len(pages):
                supported.add(at)
                found.append(_page(pages[at], start, end))
    found += [_page(page, None, None) for at, page in enumerate(pages) if at not in supported]
    metadata = _object(candidate.get("citationMetadata"))
    for source in _objects(metadata.get("citationSources") or metadata.get("citations")):
        found.append(_page(source, *places.range(source.get("startIndex") or 0, source.get("endIndex"))))
    return tuple(each for each in found if each.url or each.title)


def _page(page: JsonObject, start: int | None, end: int | None) -> Citation:
    return Citation(url=_text(page.get("uri")), title=_text(page.get("title")), start=start, end=end)


# ---------------------------------------------------------------- to the wires


def to_responses(citations: Iterable[Citation], text: str, offset: int = 0) -> list[JsonObject]:
    """Return ``citations`` as annotations of the Responses wire. Their positions count the characters of the whole
    text, in which ``text`` begins at ``offset``. Citations without a URL are left out.
    """
    return [
        {
            "type": "url_citation",
            "url": each.url,
            "title": each.title,
            "start_index": offset + (each.start or 0),
            "end_index": offset + (len(text) if each.end is None else each.end),
        }
        for each in citations
        if each.url
    ]


def to_chat(citations: Iterable[Citation], text: str, offset: int = 0) -> list[JsonObject]:
    """Return ``citations`` as annotations of the chat wire. For ``text`` and ``offset`` see `to_responses`."""
    flat = to_responses(citations, text, offset)
    return [{"type": each.pop("type"), "url_citation": each} for each in flat]


UNSEALED: JsonObject = {"type": "web_search_result_location", "encrypted_index": ""}
"""The fields that mark a citation as made by the runtime on Anthropic's wire: in the vendor's own citations,
``encrypted_index`` is never empty.
"""


def to_anthropic(citations: Iterable[Citation]) -> list[JsonObject]:
    """Return the citations of a text block, each source once: the wire has no positions within the block."""
    sources = {each.url: each for each in reversed(tuple(citations)) if each.url}
    return [
        {**UNSEALED, "url": each.url, "title": each.title or None, "cited_text": each.quote}
        for each in reversed(sources.values())
    ]


def to_cohere(citations: Iterable[Citation], text: str, content_index: int) -> list[JsonObject]:
    """Return ``citations`` as the citations of a message on Cohere's wire. ``text`` is in the content block with the
    number ``content_index``.
    """
    found: list[JsonObject] = []
    for each in citations:
        start, end = each.start or 0, len(text) if each.end is None else each.end
        ident = each.url or each.title
        document = {"id": ident, "url": each.url, "title": each.title, "snippet": each.quote}
        known = {name: value for name, value in document.items() if value}
        source = {"type": "document", "id": ident, "document": known}
        found.append({
            "start": start, "end": end, "text": text[start:end], "sources": [source],
            "content_index": content_index, "type": "TEXT_CONTENT",
        })  # fmt: skip
    return found


def to_gemini(texts: Sequence[tuple[str, Sequence[Citation]]]) -> JsonObject | None:
    """The grounding of a candidate with these texts and their citations; ``None`` if there are none."""
    pages: dict[tuple[str, str], int] = {}
    supports: list[JsonObject] = []
    before = 0
    for text, citations in texts:
        for each in citations:
            at = pages.setdefault((each.url, each.title), len(pages))
            if each.end is not None:
                start = before + len(text[: each.start or 0].encode("utf-8", "replace"))
                quoted = text[each.start or 0 : each.end]
                end = start + len(quoted.encode("utf-8", "replace"))
                segment = {"startIndex": start, "endIndex": end, "text": quoted}
                supports.append({"segment": segment, "groundingChunkIndices": [at]})
        before += len(text.encode("utf-8", "replace"))
    if not pages:
        return None
    chunks = [{"web": {"uri": url, "title": title}} for url, title in pages]
    return {"groundingChunks": chunks, **({"groundingSupports": supports} if supports else {})}


# ---------------------------------------------------------------- positions


class _Places:
    """Converts positions in a text from bytes to characters."""

    def __init__(self, text: str) -> None:
        self._bytes = text.encode("utf-8", "replace")
        self._characters = len(text)

    def range(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        """The same range in characters; ``None`` if the range does not exist."""
        first, last = _range(start, end, 0, len(self._bytes))
        if first is None or last is None:
            return None, None
        if len(self._bytes) == self._characters:
            return first, last
        begin = len(self._bytes[:first].decode("utf-8", "ignore"))
        return begin, begin + len(self._bytes[first:last].decode("utf-8", "ignore"))


def _range(start: Any, end: Any, offset: int, length: int) -> tuple[int | None, int | None]:
    if not (isinstance(start, int) and isinstance(end, int)):
        return None, None
    start, end = start - offset, end - offset
    return (start, end) if 0 <= start < end <= length else (None, None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> Iterator[JsonObject]:
    return (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))
