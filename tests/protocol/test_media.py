"""Documents, audio and pictures: made by a program, read from every wire, and put as each vendor takes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from llm_protocol.codec.json import WireError
from llm_protocol.codec.media import standard_base64, text_of_document
from llm_protocol.content import Audio, Document, Image, Message, Part, Text, ToolCall, ToolResult
from llm_protocol.dialect import ClientDialect, ServerDialect
from llm_protocol.errors import BadRequestError, UnsupportedError
from llm_protocol.estimate import request_length
from llm_protocol.model_rules import ModelRules
from llm_protocol.requests import ChatRequest
from llm_protocol.wires.anthropic import Anthropic, AnthropicServer
from llm_protocol.wires.cohere import Cohere, CohereServer
from llm_protocol.wires.gemini import Gemini, GeminiServer
from llm_protocol.wires.openai_chat import CEREBRAS, COMPATIBLE, OPENAI, OpenAIChat, OpenAIChatServer
from llm_protocol.wires.responses import OpenAIResponses, OpenAIResponsesServer
from llm_runtime.tools import result_of
from support.adapting import adjusted, encoded

PDF_BYTES = b"%PDF-1.7\n\xff\xfe>>?"
PDF64 = base64.b64encode(PDF_BYTES).decode()
PDF_URI = f"data:application/pdf;base64,{PDF64}"
WAV64 = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVE").decode()
PDF = Document(data=PDF_BYTES, title="report.pdf")
PNG = Image(data=b"\x89PNG", media_type="image/png")

CLIENTS: dict[str, tuple[ClientDialect, str]] = {
    "openai": (OpenAIChat(OPENAI), "gpt-5.5"),
    "responses": (OpenAIResponses(), "gpt-5.5"),
    "compatible": (OpenAIChat(COMPATIBLE), "m"),
    "cerebras": (OpenAIChat(CEREBRAS), "gemma-4-31b"),
    "anthropic": (Anthropic(), "claude-sonnet-5-5"),
    "gemini": (Gemini(), "gemini-3.6-flash"),
    "cohere": (Cohere(), "command-a-plus"),
}


def chat(model: str, *parts: Part) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message("user", (*parts, Text("read it"))),))


def turn_of(vendor: str, *parts: Part) -> list[Any]:
    """The parts of the user's turn, as ``vendor`` is sent them."""
    dialect, model = CLIENTS[vendor]
    body = json.loads(encoded(dialect, chat(model, *parts), stream=False).body)
    [turn] = body.get("messages") or body.get("input") or body["contents"]
    found = turn.get("parts") or turn["content"]
    return list(found[:-1])


# ---------------------------------------------------------------- made by a program


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "exactly one of data, base64, text, url, file_id, but none was given"),
        ({"data": b"%PDF-", "url": "https://x"}, "not data and url"),
        ({"data": b"hello"}, "media_type is missing"),
        ({"data": b"x", "media_type": "image/png"}, "image/png is not the type of a document; use Image"),
        ({"data": b"x", "media_type": "audio/wav"}, "audio/wav is not the type of a document; use Audio"),
        ({"data": b"x", "media_type": "video/mp4"}, "video/mp4 is not the type of a document"),
        ({"text": "x", "media_type": "application/pdf"}, "text cannot have the media_type application/pdf"),
        ({"file_id": "f"}, "needs vendor"),
        ({"url": "https://x", "vendor": "openai"}, "needs vendor"),
        ({"text": "x", "pages": 0}, "pages must be at least 1"),
    ],
)
def test_a_document_that_contradicts_itself_is_not_made(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Document(**fields)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "exactly one of"),
        ({"data": b"??"}, "media_type is missing"),
        ({"data": b"x", "media_type": "image/png"}, "image/png is not a type of audio"),
        ({"url": "https://x/a", "data": b"RIFF"}, "not data and url"),
    ],
)
def test_audio_that_contradicts_itself_is_not_made(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Audio(**fields)


def test_what_the_bytes_are_need_not_be_said() -> None:
    assert Document(data=b"%PDF-1.4").media_type == "application/pdf"
    assert Document(base64=PDF64).media_type == "application/pdf"
    assert Document(text="x").media_type == "text/plain"
    assert Audio(data=b"RIFFxxxx").media_type == "audio/wav"
    assert Audio(data=b"ID3x").media_type == "audio/mpeg"
    assert Audio(data=b"x", media_type="audio/mp3").media_type == "audio/mpeg", "one name for one format"


def test_base64_in_other_letters_is_put_right_without_being_decoded() -> None:
    raw = bytes(range(250, 256)) * 2 + b"x"
    standard = base64.b64encode(raw).decode()
    for spelling in (standard, standard.rstrip("="), base64.urlsafe_b64encode(raw).decode()):
        assert standard_base64(spelling) == standard
    for wrong in ("a", "ab*c", "äöü0", "ab=c"):
        with pytest.raises(WireError):
            standard_base64(wrong)


def test_the_text_of_a_document() -> None:
    encoded_text = base64.b64encode("\ufeffgrün".encode()).decode()
    assert text_of_document(Document(base64=encoded_text, media_type="text/markdown")) == "grün"
    assert text_of_document(Document(data=b"\xff\xff", media_type="text/plain")) is None
    assert text_of_document(PDF) is None


# ---------------------------------------------------------------- to every vendor


SENT: dict[str, dict[str, Any]] = {
    "openai": {"type": "file", "file": {"filename": "report.pdf", "file_data": PDF_URI}},
    "compatible": {"type": "file", "file": {"filename": "report.pdf", "file_data": PDF_URI}},
    "responses": {"type": "input_file", "filename": "report.pdf", "file_data": PDF_URI},
    "anthropic": {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF64},
        "title": "report.pdf",
    },
    "gemini": {"inlineData": {"mimeType": "application/pdf", "data": PDF64}},
}


@pytest.mark.parametrize("vendor", CLIENTS)
def test_a_pdf(vendor: str) -> None:
    if vendor in SENT:
        assert turn_of(vendor, PDF) == [SENT[vendor]]
        assert turn_of(vendor, Document(base64=PDF64, title="report.pdf")) == [SENT[vendor]]
        return
    with pytest.raises(
        UnsupportedError, match=r"messages\[0\]\.content\[0\]: \w+ does not accept PDF documents"
    ) as caught:
        turn_of(vendor, PDF)
    assert caught.value.failure.param == "messages[0].content[0]"


@pytest.mark.parametrize("vendor", CLIENTS)
def test_a_document_of_text_is_put_as_text_where_there_are_no_documents(vendor: str) -> None:
    document = Document(text="a < b", title='"x".txt', context="a draft")
    [sent] = turn_of(vendor, document)
    dialect, model = CLIENTS[vendor]
    told = adjusted(dialect, chat(model, document))
    if vendor == "anthropic":
        source = {"type": "text", "media_type": "text/plain", "data": "a < b"}
        assert sent == {"type": "document", "source": source, "title": '"x".txt', "context": "a draft"}
        assert told == []
        return
    assert sent["text"] == '<document title="&quot;x&quot;.txt">\na draft\na < b\n</document>'
    assert told == [("messages[0].content[0]", "rewritten", "the text of the document")]


@pytest.mark.parametrize("vendor", CLIENTS)
def test_audio(vendor: str) -> None:
    sound = Audio(base64=WAV64, media_type="audio/x-wav")
    said = {"type": "input_audio", "input_audio": {"data": WAV64, "format": "wav"}}
    known = {"openai": said, "compatible": said, "gemini": {"inlineData": {"mimeType": "audio/wav", "data": WAV64}}}
    if vendor in known:
        assert turn_of(vendor, sound) == [known[vendor]]
        return
    with pytest.raises(UnsupportedError, match="does not accept audio"):
        turn_of(vendor, sound)


@pytest.mark.parametrize("vendor", CLIENTS)
def test_a_document_by_url(vendor: str) -> None:
    there = Document(url="https://x/a.pdf")
    known = {
        "responses": {"type": "input_file", "file_url": "https://x/a.pdf"},
        "anthropic": {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
        "gemini": {"fileData": {"fileUri": "https://x/a.pdf"}},
    }
    if vendor in known:
        assert turn_of(vendor, there) == [known[vendor]]
        return
    with pytest.raises(UnsupportedError, match=r"content\[0\]"):
        turn_of(vendor, there)


@pytest.mark.parametrize("vendor", CLIENTS)
def test_a_file_is_known_to_who_keeps_it(vendor: str) -> None:
    kept = Document(file_id="file-1", vendor="openai")
    known = {
        "openai": {"type": "file", "file": {"file_id": "file-1"}},
        "compatible": {"type": "file", "file": {"file_id": "file-1"}},
        "responses": {"type": "input_file", "file_id": "file-1"},
    }
    if vendor in known:
        assert turn_of(vendor, kept) == [known[vendor]]
        return
    with pytest.raises(UnsupportedError, match="the file file-1 is stored at openai"):
        turn_of(vendor, kept)


def test_a_model_that_reads_no_documents_is_given_their_text() -> None:
    rules = ModelRules("anthropic")
    request = chat("claude-2.1", Document(text="plain"))
    body = json.loads(encoded(Anthropic(rules), request, stream=False).body)
    assert body["messages"][0]["content"][0] == {"type": "text", "text": "<document>\nplain\n</document>"}


# ---------------------------------------------------------------- in a tool's result


def after_a_call(model: str, *parts: Text | Image | Document | Audio) -> ChatRequest:
    call = ToolCall(id="c1", name="look")
    return ChatRequest(
        model=model,
        messages=(
            Message.of("user", "look"),
            Message("assistant", (call,)),
            Message("tool", (ToolResult(call_id="c1", content=parts, name="look"),)),
        ),
    )


@pytest.mark.parametrize("vendor", ["openai", "compatible", "cerebras", "cohere"])
def test_what_a_result_cannot_hold_follows_in_a_users_turn(vendor: str) -> None:
    dialect, model = CLIENTS[vendor]
    body = json.loads(encoded(dialect, after_a_call(model, Text("done"), PNG), stream=False).body)
    result, turn = body["messages"][2:]
    assert result["role"] == "tool"
    assert "[The picture is in the next user message.]" in json.dumps(result["content"])
    assert turn["role"] == "user"
    assert turn["content"][0]["text"] == "The picture in the result of tool call c1:"
    assert turn["content"][1]["type"] == "image_url"


def test_a_pdf_in_a_result() -> None:
    for vendor in ("anthropic", "gemini", "responses"):
        dialect, model = CLIENTS[vendor]
        sent = encoded(dialect, after_a_call(model, PDF), stream=False).body.decode()
        assert PDF64 in sent
        assert "next user message" not in sent, vendor
    body = json.loads(encoded(*_of("openai", PDF), stream=False).body)
    assert body["messages"][3]["content"][1] == SENT["openai"]
    with pytest.raises(UnsupportedError, match=r"messages\[2\]\.content\[0\]\.content\[0\]: Cohere"):
        encoded(*_of("cohere", PDF), stream=False)


def test_audio_in_a_result_is_in_a_users_turn_everywhere() -> None:
    sound = Audio(base64=WAV64, media_type="audio/wav")
    body = json.loads(encoded(*_of("gemini", sound), stream=False).body)
    assert body["contents"][-1]["parts"][1] == {"inlineData": {"mimeType": "audio/wav", "data": WAV64}}


def _of(vendor: str, part: Document | Audio) -> tuple[ClientDialect, ChatRequest]:
    dialect, model = CLIENTS[vendor]
    return dialect, after_a_call(model, part)


# ---------------------------------------------------------------- from every wire


def read(server: ServerDialect, path: str, body: dict[str, Any]) -> tuple[Part, ...]:
    inbound = server.decode_request(path, json.dumps(body).encode())
    assert isinstance(inbound.request, ChatRequest)
    return inbound.request.messages[-1].content


def from_chat(*parts: dict[str, Any]) -> tuple[Part, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}
    return read(OpenAIChatServer(), "/v1/chat/completions", body)


def from_responses(*parts: dict[str, Any]) -> tuple[Part, ...]:
    made = OpenAIResponsesServer().decode_create(
        json.dumps({"model": "m", "input": [{"role": "user", "content": parts}]})
    )
    return made.input[-1].content


def from_anthropic(*parts: dict[str, Any]) -> tuple[Part, ...]:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": list(parts)}]}
    return read(AnthropicServer(), "/v1/messages", body)


def from_gemini(*parts: dict[str, Any]) -> tuple[Part, ...]:
    return read(GeminiServer(), "/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": parts}]})


NAMED = Document(base64=PDF64, media_type="application/pdf", title="report.pdf")


def test_chat_clients() -> None:
    kept = {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}
    text = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}}
    bare = {"type": "file", "file": {"filename": "report.pdf", "file_data": PDF64}}
    drawn = {"type": "file", "file": {"file_data": "data:image/png;base64,AAAA"}}
    sound = {"type": "input_audio", "input_audio": {"data": WAV64, "format": "mp3"}}
    found = from_chat(SENT["openai"], kept, text, bare, drawn, sound)
    assert found[0] == found[3] == NAMED
    assert found[1] == Document(file_id="file-1", vendor="openai", title="a.pdf")
    assert found[2] == Document(base64="aGk=", media_type="text/plain", title="a.txt")
    assert found[4] == Image(data=b"\0\0\0", media_type="image/png")
    assert found[5] == Audio(base64=WAV64, media_type="audio/mpeg")
    with pytest.raises(BadRequestError, match=r"messages\[0\]\.content\[0\]\.file\.file_data must be a base64"):
        from_chat({"type": "file", "file": {"file_data": "data:application/pdf;base64,*"}})
    with pytest.raises(BadRequestError, match=r"messages\[0\]\.content\[0\]\.input_audio\.data"):
        from_chat({"type": "input_audio", "input_audio": {"data": "*", "format": "wav"}})


def test_responses_clients() -> None:
    there = {"type": "input_file", "file_url": "https://x/a.pdf?x=1", "detail": "low"}
    found = from_responses(SENT["responses"], there, {"type": "input_file", "file_id": "file-1"})
    own = {"openai_responses": {"detail": "low"}}
    assert found[0] == NAMED
    assert found[1] == Document(url="https://x/a.pdf?x=1", media_type="application/pdf", extra=own)
    assert found[2] == Document(file_id="file-1", vendor="openai")
    with pytest.raises(BadRequestError, match="needs file_data, file_url or file_id"):
        from_responses({"type": "input_file"})


def test_anthropic_clients() -> None:
    cited = {"citations": {"enabled": True}, "cache_control": {"type": "ephemeral"}}
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}, **cited}
    blocks = {"type": "content", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    found = from_anthropic(
        SENT["anthropic"],
        text,
        {"type": "document", "source": blocks, "context": "c"},
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
    )
    assert found[0] == NAMED
    assert found[1] == Document(text="hi", extra={"anthropic": cited})
    assert found[2] == Document(text="one\n\ntwo", context="c", extra={"anthropic": {"source": blocks}})
    assert found[3] == Document(file_id="f", vendor="anthropic")
    assert found[4] == Document(url="https://x/a.pdf", media_type="application/pdf")


@pytest.mark.parametrize(
    "block",
    [
        SENT["anthropic"],
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "title": "t"},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "one"}]}},
        {"type": "document", "source": {"type": "content", "content": "one"}, "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "f"}, "cache_control": {"type": "ephemeral"}},
    ],
)
def test_anthropics_documents_come_out_as_they_went_in(block: dict[str, Any]) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": [block, {"type": "text", "text": "x"}]}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    messages = [
        {"role": "user", "content": [block]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": messages}
    inbound = AnthropicServer().decode_request("/v1/messages", json.dumps(body).encode())
    sent = json.loads(encoded(Anthropic(), inbound.request, stream=False).body)
    assert sent["messages"] == messages


def test_gemini_clients() -> None:
    file = {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/1", "mimeType": "application/pdf"}
    parts = (
        {"inlineData": {"mimeType": "application/pdf", "data": PDF64.replace("/", "_"), "displayName": "report.pdf"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": WAV64}},
        {"fileData": file},
        {"fileData": {"fileUri": "https://x/a.pdf"}},
        {"inlineData": {"mimeType": "text/csv", "data": "aGk="}, "mediaResolution": {"level": "LOW"}},
    )
    found = from_gemini(*parts)
    assert found[0] == Document(
        base64=PDF64, title="report.pdf", extra={"gemini": {"inlineData": {"displayName": "report.pdf"}}}
    )
    assert found[1] == Audio(base64=WAV64, media_type="audio/mpeg")
    assert found[2] == Document(file_id=file["fileUri"], vendor="gemini", media_type="application/pdf")
    assert found[3] == Document(url="https://x/a.pdf")
    assert found[4] == Document(
        base64="aGk=", media_type="text/csv", extra={"gemini": {"mediaResolution": {"level": "LOW"}}}
    )
    request = (
        GeminiServer()
        .decode_request(
            "/v1beta/models/gemini-3.6-flash:generateContent",
            json.dumps({"contents": [{"role": "user", "parts": parts}]}).encode(),
        )
        .request
    )
    sent = json.loads(encoded(Gemini(), request, stream=False).body)["contents"][0]["parts"]
    assert sent[0]["inlineData"] == {"mimeType": "application/pdf", "data": PDF64, "displayName": "report.pdf"}
    assert sent[2:] == list(parts[2:])


def test_a_cohere_client_shows_a_picture() -> None:
    block = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [block]}]}
    assert read(CohereServer(), "/v2/chat", body) == (Image(data=b"\0\0\0", media_type="image/png"),)


def test_a_tool_may_return_what_is_no_text() -> None:
    call = ToolCall(id="c", name="f")
    assert result_of(call, PNG).content == (PNG,)
    assert result_of(call, [Text("a"), PDF]).content == (Text("a"), PDF)
    assert result_of(call, []).content == (Text("[]"),)


# ---------------------------------------------------------------- how much they are


def test_the_size_of_a_document_is_guessed() -> None:
    def length(part: Part) -> int:
        return request_length(ChatRequest(model="m", messages=(Message("user", (part,)),)))

    assert length(Document(data=b"%PDF-", pages=30)) == pytest.approx(60_000, abs=10)
    assert length(Document(data=b"%PDF-" + b"x" * 640 * 1024)) == pytest.approx(20_000, abs=10)
    assert length(Document(text="x" * 4_000)) == pytest.approx(1_000, abs=10)
    assert length(Document(url="https://x")) > 1_000
    minute_of_wav = b"RIFF" + b"x" * 60 * 48_000
    assert length(Audio(data=minute_of_wav)) == pytest.approx(60 * 32, abs=10)
