"""The requests of commands to a running daemon, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar, final

import msgspec

from llm_protocol.errors import LLMClientError, error_for
from llm_protocol.failures import Failure, FailureKind
from llm_runtime.cli.setup import Daemon
from llm_runtime.remote.address import Address
from llm_runtime.remote.runtime import greet

ANSWER_SECONDS = 15.0
"""The time limit for a daemon's response, in seconds."""

RELOAD_SECONDS = 330.0
"""The time limit for a reload, in seconds: the workers of a daemon reload one after the other, for at most 300 s."""

WRONG_KEY = " (the key for a daemon is taken from LLM_RUNTIME_KEY)"
"""The text that is added to a daemon's message about a wrong or missing key."""

UNTRUSTED = "; --ca-file or LLM_RUNTIME_CA_FILE names the certificates to trust"
"""The text that is added to the reason why a daemon's certificate is refused."""


Body = TypeVar("Body")


@final
class DaemonClient:
    """Sends requests to one daemon. Created by `daemon_client`."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def get(self, path: str) -> bytes:
        """Return the body at ``path``, which is appended to the base URL; see `ask`."""
        return await self.ask("GET", path)

    async def reload(self) -> bytes:
        """Make the daemon reload its configuration, and return the body of the response. Waits at most
        `RELOAD_SECONDS`. Raises as `ask` does.
        """
        return await self.ask("POST", "/runtime/reload", RELOAD_SECONDS)

    async def ask(self, method: str, path: str, seconds: float = ANSWER_SECONDS) -> bytes:
        """Return the body of the response at ``path``, which is appended to the base URL. Waits at most ``seconds``.
        Raises `LLMClientError`, with the daemon's own message if it refuses.
        """
        try:
            return await self._address.request(method, f"/v1{path}", seconds=seconds)
        except LLMClientError as exc:
            if exc.failure.upstream_status == 404:
                await greet(self._address)  # raises if the server is not a daemon
            raise with_hint(exc) from None


def with_hint(exc: LLMClientError) -> LLMClientError:
    """Return the error with advice for the user of the command."""
    return error_for(msgspec.structs.replace(exc.failure, message=hinted(exc.failure)), exc.partial)


def hinted(failure: Failure) -> str:
    """Return the message of a failure at a daemon, with advice for the user of the command."""
    if failure.upstream_status == 401:
        return failure.message + WRONG_KEY
    if failure.kind is FailureKind.TLS and "certificate refused" in failure.message:
        return failure.message.rstrip(".") + UNTRUSTED
    return failure.message


@asynccontextmanager
async def daemon_client(running: Daemon) -> AsyncIterator[DaemonClient]:
    """Open a client for the daemon. Its connections are closed at the end of the block."""
    address = Address(running.base_url, running.key, running.ca_file)
    try:
        yield DaemonClient(address)
    finally:
        await address.aclose()


def decoded(body: bytes, kind: type[Body]) -> Body:
    """Decode the JSON ``body`` as a ``kind``. Raises `LLMClientError` if it does not fit, for example because the
    daemon has another version.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise LLMClientError(f"the daemon's response cannot be decoded; its version may differ: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise LLMClientError("the server at this address is not an llm-runtime daemon") from exc
