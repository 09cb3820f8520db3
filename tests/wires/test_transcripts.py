"""The project's own transcripts: every wire has one of each thing that it can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.transcripts import OWN, Recording

CHAT = {
    "chat",
    "chat-tools",
    "chat-tools-parallel",
    "chat-tools-result",
    "chat-length",
    "chat-structured",
    "chat-vision",
}
STREAMS = {"chat-stream", "chat-tools-stream", "chat-tools-parallel-stream", "chat-length-stream"}
THINKING = {"chat-thinking", "chat-thinking-stream"}
RESPONSES = {
    f"responses{what}{how}"
    for what in ("", "-tools", "-tools-parallel", "-thinking", "-refusal", "-incomplete")
    for how in ("", "-stream")
}


def errors(*statuses: int) -> set[str]:
    return {f"error-{status}" for status in statuses}


HAS = {
    "openai": CHAT
    | STREAMS
    | RESPONSES
    | {"chat-reasoning", "chat-refusal", "chat-refusal-stream", "chat-filtered", "responses-search"}
    | {"failed-responses", "failed-responses-stream", "embedding", "embedding-base64", "image", "image-url", "models"}
    | errors(400, 401, 403, 404, 429, 500, 503),
    "cerebras": THINKING
    | {"chat", "chat-stream", "chat-tools", "chat-tools-parallel-stream", "chat-length", "models"}
    | errors(400, 401, 404, 429),
    "anthropic": CHAT
    | STREAMS
    | THINKING
    | {"chat-redacted-thinking", "chat-refusal", "chat-refusal-stream", "chat-stopseq", "midstream-error-stream"}
    | {"models"}
    | errors(400, 401, 402, 403, 404, 413, 429, 500, 504, 529),
    "gemini": CHAT
    | STREAMS
    | THINKING
    | {"chat-blocked", "chat-blocked-prompt", "chat-midstream-error", "chat-stream-jsonarray"}
    | {"image", "embedding", "models"}
    | errors(400, 403, 404, 429, 500, 503, 504),
    "cohere": CHAT
    | STREAMS
    | THINKING
    | {"chat-stopseq", "chat-citations-stream", "chat-midstream-error", "embedding", "models"}
    | errors(400, 401, 402, 404, 422, 429, 498, 500, 503),
}


@pytest.mark.parametrize("vendor", HAS)
def test_every_wire_has_one_of_each(vendor: str) -> None:
    names = {path.stem for path in (OWN / vendor).glob("*.http")}
    errors_of = {"-".join(name.split("-")[:2]) for name in names if name.startswith("error-")}
    assert {want for want in HAS[vendor] if f"{want}-1" not in names} - errors_of == set()


@pytest.mark.parametrize("path", sorted(OWN.rglob("*.http")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_transcript_can_be_read(path: Path) -> None:
    """It has a request, a status and a body; an error's name bears its status."""
    recording = Recording(path)
    assert recording.path.startswith("/v")
    assert recording.body.strip()
    assert recording.asked is not None or recording.name.startswith("models-")
    if recording.name.startswith("error-"):
        assert recording.name.split("-")[1] == str(recording.status)
    else:
        assert recording.status == 200
