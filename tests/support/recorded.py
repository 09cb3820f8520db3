"""Recorded traffic, where it is present: the folder ``shared/recorded`` beside the repository. Tests skip without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_protocol.dialect import WireResponse

FOLDER = Path(__file__).parents[2].parent / "shared" / "recorded"


class Recording:
    """One exchange. ``body`` is the answer's text; ``asked`` the request's body, ``None`` where it was not kept."""

    def __init__(self, path: Path) -> None:
        raw = json.loads(path.read_text(encoding="utf-8"))
        self.name = path.stem
        self.path: str = raw["request"]["path"]
        self.asked: Any = _parsed(raw["request"]["body"])
        self.status: int = raw["response"]["status"]
        self.headers = tuple((key.lower(), str(value)) for key, value in raw["response"]["headers"].items())
        body = raw["response"]["body"]
        self.body: str = body if isinstance(body, str) else json.dumps(body)

    def response(self) -> WireResponse:
        """The answer as the transport would give it."""
        return WireResponse(self.status, self.headers, self.body.encode())

    def sse(self) -> list[Any]:
        """The decoded ``data:`` lines of a streamed answer, read independently of the code under test."""
        lines = (line[5:].strip() for line in self.body.splitlines() if line.startswith("data:"))
        return [json.loads(line) for line in lines if line != "[DONE]"]


def _parsed(body: Any) -> Any:
    if isinstance(body, str):
        try:
            return json.loads(body)
        except ValueError:
            return None
    return body


def recordings(vendor: str, *prefixes: str, stream: bool | None = None) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: the files of ``vendor`` whose names start with a prefix."""
    folder = FOLDER / vendor
    if not folder.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no recorded traffic here"))]
    return [
        pytest.param(Recording(path), id=path.stem)
        for path in sorted(folder.glob("*.json"))
        if path.stem.startswith(prefixes) and stream in (None, "-stream" in path.stem or "midstream" in path.stem)
    ]
