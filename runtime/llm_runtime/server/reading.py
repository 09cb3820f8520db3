"""Reading what clients send, and writing large answers, without holding up anybody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from llm_actors.threads import run_large
from llm_protocol.codec.fields import checked_body
from llm_protocol.codec.json_limits import CheckedJson, JsonLimits
from llm_protocol.content import Image
from llm_protocol.dialect import Inbound, ServerDialect
from llm_protocol.response import LLMResponse

if TYPE_CHECKING:
    from llm_runtime.server.state import ServerState

T = TypeVar("T")

NUMBER_BYTES = 20
"""About what a number of a vector takes as JSON."""


async def read_body(state: ServerState, body: bytes | str, decode: Callable[[CheckedJson], T]) -> T:
    """What ``decode`` makes of a client's JSON, within the configured limits. Raises `BadRequestError`, and what
    ``decode`` raises. A large body is decoded in a thread.
    """
    return await run_large(len(body), _decoded, body, state.json_limits, decode)


def _decoded(body: bytes | str, limits: JsonLimits, decode: Callable[[CheckedJson], T]) -> T:
    return decode(checked_body(body, limits))


async def encode_body(dialect: ServerDialect, inbound: Inbound, response: LLMResponse) -> bytes:
    """The body of a whole answer; a large one is made in a thread."""
    return await run_large(_size_of(response), dialect.encode_response, inbound, response)


def _size_of(response: LLMResponse) -> int:
    """About how large it is."""
    numbers = sum(map(len, response.embeddings))
    pictures = sum(len(part.data or b"") for part in response.output if isinstance(part, Image))
    return len(response.content) + NUMBER_BYTES * numbers + pictures
