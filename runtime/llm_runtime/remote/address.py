"""The address of a daemon, and the requests to it that do not make runs."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeVar, final

import msgspec
import trio

from llm_actors.transport import HttpRequest, Origin, TlsTrust, Transport, TransportError, parse_url
from llm_actors.transport.errors import ConnectTimeout, TlsFailed
from llm_protocol.errors import LLMClientError, LLMTimeoutError, error_for
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.native import Refused
from llm_protocol.secret import Secret
from llm_protocol.version import VERSION

T = TypeVar("T")

HTTP_SECONDS: Final = 60.0
"""The time limit, in seconds, for a request that makes no run. A daemon may have to ask a vendor first."""

WORDS_BYTES: Final = 200
"""The most bytes of a response that the error message quotes, if a server other than a daemon has responded."""


@final
class Address:
    """A daemon's address. Its `repr` and `str` do not contain the key."""

    def __init__(self, url: str, key: str | Secret | None, ca_file: str | None) -> None:
        """Parse the URL of a daemon. Raises `ValueError` if it is invalid."""
        self.origin, base = parse_url(url)
        self._base = base.removesuffix("/v1")
        secret = key.reveal() if isinstance(key, Secret) else key
        self.headers: Mapping[str, str] = {
            "user-agent": f"llm-runtime/{VERSION}",
            **({} if secret is None else {"authorization": f"Bearer {secret}"}),
        }
        self._trust = TlsTrust(ca_file)
        self._transport = Transport(self._trust)

    def __str__(self) -> str:
        return f"{self.origin}{self._base}"

    def target(self, path: str) -> str:
        """Return the path to request, for a ``path`` of the daemon's API: the base path of the URL is put before it."""
        return self._base + path

    async def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that verifies the daemon's certificate; ``None`` without TLS."""
        if self.origin.scheme != "https":
            return None
        return await trio.to_thread.run_sync(self._trust.context)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        accept: tuple[int, ...] = (200,),
        seconds: float = HTTP_SECONDS,
    ) -> bytes:
        """Send a request, and return the body of the response, which may take ``seconds``. Raises `LLMClientError`;
        if the daemon refuses, its failure has the status as ``upstream_status``.
        """
        headers = {**self.headers, **({"content-type": "application/json"} if body else {})}
        request = HttpRequest(method, self.origin, self.target(path), headers, body)
        try:
            with trio.fail_after(seconds):
                async with self._transport.send(request) as response:
                    status, data = response.status, await response.read()
        except trio.TooSlowError:
            words = f"{self}: no response within {seconds:g} s"
            raise LLMTimeoutError(Failure(kind=FailureKind.TIMEOUT_TOTAL, message=words)) from None
        except TransportError as exc:
            raise _failed(exc) from exc
        if status not in accept:
            raise error_for(msgspec.structs.replace(self._refusal(status, data).reason(), upstream_status=status))
        return data

    def _refusal(self, status: int, data: bytes) -> Refused:
        try:
            return msgspec.structs.replace(msgspec.json.decode(data, type=_Body).refused(), status=status)
        except msgspec.MsgspecError:  # the server is not a daemon, or the port expects TLS
            line = data[:WORDS_BYTES].decode(errors="replace").strip().partition("\n")[0]
            words = line if line.isprintable() and not line.startswith("<") else ""
            return Refused(status=status, error={"message": f"{self} responded with status {status}. {words}".strip()})

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._transport.aclose()


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a daemon's JSON as a ``kind``. Raises `LLMClientError`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as exc:
        words = f"the daemon's response cannot be decoded; its version may differ: {exc}"
        raise error_for(Failure(kind=FailureKind.PROTOCOL, message=words)) from None


class _Body(msgspec.Struct):
    """The body of an error response: a daemon's, or that of any OpenAI-compatible server."""

    error: dict[str, Any] = {}
    failure: Failure | None = None

    def refused(self) -> Refused:
        return Refused(error=self.error, failure=self.failure)


def _failed(exc: TransportError) -> LLMClientError:
    kind = FailureKind.NETWORK
    if isinstance(exc, ConnectTimeout):
        kind = FailureKind.TIMEOUT_CONNECT
    elif isinstance(exc, TlsFailed):
        kind = FailureKind.TLS
    return error_for(Failure(kind=kind, message=str(exc)))


__all__ = ["Address", "Origin", "decode"]
