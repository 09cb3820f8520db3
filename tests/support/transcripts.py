"""Transcripts of vendors' wires: the project's own, and recorded traffic where it is present.

The project's own stand in ``tests/wires/transcripts``, and are written after the vendors' documentation. Recorded
traffic is in ``shared/recorded`` beside the repository, where most clones have nothing. Both run through the same
tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_protocol.dialect import WireResponse

OWN = Path(__file__).parents[1] / "wires" / "transcripts"
FOLDER = Path(__file__).parents[2].parent / "shared" / "recorded"


class Recording:
    """One exchange. ``body`` is the response's text; ``asked`` the request's body, ``None`` where it was not kept."""

    def __init__(self, path: Path) -> None:
        raw = _read_own(path) if path.suffix == ".http" else json.loads(path.read_text(encoding="utf-8"))
        self.name = path.stem
        self.path: str = raw["request"]["path"]
        self.asked: Any = _parsed(raw["request"]["body"])
        self.status: int = raw["response"]["status"]
        self.headers = tuple((key.lower(), str(value)) for key, value in raw["response"]["headers"].items())
        body = raw["response"]["body"]
        self.body: str = body if isinstance(body, str) else json.dumps(body)

    def response(self) -> WireResponse:
        """The response as the transport would give it."""
        return WireResponse(self.status, self.headers, self.body.encode())

    def sse(self) -> list[Any]:
        """The decoded ``data:`` lines of a streamed response, read independently of the code under test."""
        return read_sse(self.body)


def read_sse(body: str) -> list[Any]:
    """The decoded ``data:`` lines of ``body``, read independently of the code under test."""
    lines = (line[5:].strip() for line in body.splitlines() if line.startswith("data:"))
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _read_own(path: Path) -> dict[str, Any]:
    """``METHOD PATH`` and the request's body, ``HTTP STATUS`` and the response's headers, a blank line, its body."""
    text = path.read_text(encoding="utf-8")
    request, _, response = text.partition("\nHTTP ")
    line, _, asked = request.partition("\n")
    head, _, body = response.partition("\n\n")
    status, *fields = head.split("\n")
    if body.startswith(("data:", "event:")) and not body.rstrip().endswith("\n}"):
        body = body.rstrip("\n") + "\n\n"
        if path.parent.name == "gemini":  # its streams have the line ends of HTTP
            body = body.replace("\n", "\r\n")
    return {
        "request": {"path": line.partition(" ")[2], "body": asked.strip() or None},
        "response": {"status": int(status), "headers": dict(field.split(": ", 1) for field in fields), "body": body},
    }


def _parsed(body: Any) -> Any:
    if isinstance(body, str):
        try:
            return json.loads(body)
        except ValueError:
            return None
    return body


def recordings(vendor: str, *prefixes: str, stream: bool | None = None) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: the transcripts of ``vendor`` whose names start with a prefix."""
    own = [(f"own-{path.stem}", path) for path in sorted((OWN / vendor).glob("*.http"))]
    recorded = [(path.stem, path) for path in sorted((FOLDER / vendor).glob("*.json"))]
    found = [
        pytest.param(Recording(path), id=name)
        for name, path in own + recorded
        if path.stem.startswith(prefixes) and stream in (None, "-stream" in path.stem or "midstream" in path.stem)
    ]
    assert found, f"no transcript of {vendor} is called {' or '.join(prefixes)}"
    return found


def with_request(params: list[Any]) -> list[Any]:
    """Those of ``params`` of which the request's body was kept. The recording is the last value of each."""
    return [param for param in params if param.values[-1].asked is not None]
