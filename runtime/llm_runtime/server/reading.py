"""Reading what clients send, and writing large answers, without holding up anybody else."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import TypeVar

from llm_actors.threads import run_large
from llm_protocol.codec.fields import bad_request, checked_body
from llm_protocol.codec.json_limits import CheckedJson, JsonLimits
from llm_protocol.content import Image
from llm_protocol.dialect import Inbound, ServerDialect
from llm_protocol.response import LLMResponse

T = TypeVar("T")

SLICE_BYTES = 64 * 1024

NUMBER_BYTES = 20
"""About what a number of a vector takes as JSON."""


async def read_body(limits: JsonLimits, body: bytes | str, decode: Callable[[CheckedJson], T]) -> T:
    """What ``decode`` makes of a client's JSON, which must be within ``limits``. Raises `BadRequestError`, and what
    ``decode`` raises. A large body is decoded in a thread.
    """
    return await run_large(len(body), _decoded, body, limits, decode)


def _decoded(body: bytes | str, limits: JsonLimits, decode: Callable[[CheckedJson], T]) -> T:
    if isinstance(body, bytes) and not is_utf8(body):  # what reads JSON looks only at the strings it needs
        raise bad_request(None, "the body is not UTF-8")
    return decode(checked_body(body, limits))


def is_utf8(data: bytes) -> bool:
    """Whether ``data`` is UTF-8; in slices, so that no second copy of it is made."""
    if data.isascii():
        return True
    decoder = getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), SLICE_BYTES):
            decoder.decode(data[start : start + SLICE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


async def encode_body(dialect: ServerDialect, inbound: Inbound, response: LLMResponse) -> bytes:
    """The body of a whole answer; a large one is made in a thread."""
    return await run_large(_size_of(response), dialect.encode_response, inbound, response)


def _size_of(response: LLMResponse) -> int:
    """About how large it is."""
    numbers = sum(map(len, response.embeddings))
    pictures = sum(len(part.data or b"") for part in response.output if isinstance(part, Image))
    return len(response.content) + NUMBER_BYTES * numbers + pictures
