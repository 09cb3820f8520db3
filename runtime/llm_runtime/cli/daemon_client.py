"""The requests of commands to a running daemon, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar, final

import msgspec
import trio

from llm_actors.transport import Transport, TransportError
from llm_protocol.dialect import WireRequest
from llm_protocol.errors import LLMClientError, NetworkError
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.cli.setup import WRONG_KEY, Daemon
from llm_runtime.config import Provider
from llm_runtime.providers import provider_spec

ANSWER_SECONDS = 15.0
"""The time limit for a daemon's response."""


Body = TypeVar("Body")


class _Problem(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Problem


@final
class DaemonClient:
    """Sends requests to one daemon. Created by `daemon_client`."""

    def __init__(self, running: Daemon, transport: Transport) -> None:
        provider = Provider(kind="openai_compatible", base_url=running.base_url, api_key=running.key)
        self._spec = provider_spec("daemon", provider)
        self._transport = transport

    async def get(self, path: str) -> bytes:
        """The body at ``path``, which is appended to the base URL; see `ask`."""
        return await self.ask("GET", path)

    async def ask(self, method: str, path: str) -> bytes:
        """The body of the response at ``path``, which is appended to the base URL. Waits at most `ANSWER_SECONDS`.
        Raises `NetworkError` if the daemon does not respond, and `LLMClientError` with its own message if it refuses.
        """
        request = self._spec.http_request(WireRequest(method, path))
        try:
            with trio.fail_after(ANSWER_SECONDS):
                async with self._transport.send(request) as response:
                    body = await response.read()
            if response.status == 200:
                return body
            message = msgspec.json.decode(body, type=_Refusal).error.message
        except (TransportError, trio.TooSlowError, msgspec.DecodeError) as exc:
            text = str(exc) or f"{request.origin} does not respond"
            raise NetworkError(Failure(kind=FailureKind.NETWORK, message=text)) from exc
        raise LLMClientError(message + WRONG_KEY if response.status == 401 else message)


@asynccontextmanager
async def daemon_client(running: Daemon) -> AsyncIterator[DaemonClient]:
    """A client for that daemon. Its connections are closed at the end of the block."""
    transport = Transport()
    try:
        yield DaemonClient(running, transport)
    finally:
        await transport.aclose()


def decoded(body: bytes, kind: type[Body]) -> Body:
    """Decode the JSON ``body`` as a ``kind``. Raises `LLMClientError` if it does not fit, as with another version."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise LLMClientError(f"the daemon's response cannot be decoded; it may be another version: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise LLMClientError("the server at this address is not an llm-runtime daemon") from exc
