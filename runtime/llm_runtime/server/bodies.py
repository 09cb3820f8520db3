"""The bodies of requests and responses: how many bytes are in memory at once, and how large ones are decoded and
encoded without holding up anybody else.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import TypeVar, final

from llm_actors.threads import run_large
from llm_protocol.codec.fields import bad_request, checked_body
from llm_protocol.codec.json_limits import CheckedJson, JsonLimits
from llm_protocol.content import Image
from llm_protocol.dialect import Inbound, ServerDialect
from llm_protocol.response import LLMResponse
from llm_runtime.server.http_error import SERVER_ERROR, HttpError


@final
class BodyBudget:
    """Bytes of all bodies together, from their arrival until the answer to them is given: as long as they, or what
    was read from them, are in memory. ``limit`` is in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def hold(self, size: int) -> None:
        """Count ``size`` more bytes. Raises `HttpError` when there is no room, and counts nothing then."""
        if self.held + size > self._limit:
            message = "The requests that are being worked on take all the memory there is for them; try again soon."
            headers = (("retry-after", "1"),)
            raise HttpError(
                503, "body_memory_full", message, kind=SERVER_ERROR, headers=headers, close=True, is_limit=True
            )
        self.held += size

    def release(self, size: int) -> None:
        """Forget ``size`` bytes that were held."""
        self.held -= size


@final
class HeldBodies:
    """What one connection holds of the budget."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        """See `BodyBudget.hold`."""
        self._budget.hold(size)
        self.size += size

    def release(self, size: int) -> None:
        """Give ``size`` bytes back; nothing after `release_all`."""
        size = min(size, self.size)
        self._budget.release(size)
        self.size -= size

    def release_all(self) -> None:
        """Give back what is held."""
        self.release(self.size)


T = TypeVar("T")

_SLICE_BYTES = 64 * 1024

_NUMBER_BYTES = 20
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
        for start in range(0, len(data), _SLICE_BYTES):
            decoder.decode(data[start : start + _SLICE_BYTES])
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
    return len(response.content) + _NUMBER_BYTES * numbers + pictures
