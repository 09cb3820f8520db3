"""What the commands ask a running daemon over HTTP."""

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
"""How long a daemon may take to answer."""


Body = TypeVar("Body")


class _Problem(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Problem


@final
class DaemonClient:
    """Asks one daemon. Made by `daemon_client`."""

    def __init__(self, running: Daemon, transport: Transport) -> None:
        provider = Provider(kind="openai_compatible", base_url=running.base_url, api_key=running.key)
        self._spec = provider_spec("daemon", provider)
        self._transport = transport

    async def get(self, path: str) -> bytes:
        """The body at ``path``, which follows the base URL; see `ask`."""
        return await self.ask("GET", path)

    async def ask(self, method: str, path: str) -> bytes:
        """The body of the answer at ``path``, which follows the base URL. Waits for `ANSWER_SECONDS` at most.

        Raises `NetworkError` for a daemon that does not answer, `LLMClientError` with its own words for one that
        refuses.
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
            text = str(exc) or f"{request.origin} does not answer"
            raise NetworkError(Failure(kind=FailureKind.NETWORK, message=text)) from exc
        raise LLMClientError(message + WRONG_KEY if response.status == 401 else message)


@asynccontextmanager
async def daemon_client(running: Daemon) -> AsyncIterator[DaemonClient]:
    """A client of that daemon, whose connections are closed at the end of the block."""
    transport = Transport()
    try:
        yield DaemonClient(running, transport)
    finally:
        await transport.aclose()


def decoded(body: bytes, kind: type[Body]) -> Body:
    """The JSON ``body`` as a ``kind``. Raises `LLMClientError` for one of another version than ours."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise LLMClientError(f"the daemon's answer is not understood, is it another version? {exc}") from exc
    except msgspec.DecodeError as exc:
        raise LLMClientError("what answers at this address is not a daemon") from exc
