"""TLS of the server, without I/O: a context that is renewed when its files change, and a layer for each connection.

The layer takes the bytes from the socket and returns the bytes to send, including during the handshake, so it needs no
task. Received plaintext is passed on at once.
"""

from __future__ import annotations

import logging
import os
import ssl
from contextlib import suppress
from typing import Final, final

import trio

from llm_runtime.config import ConfigError, ServerTls
from llm_runtime.config.certificate import server_context

WATCH_SECONDS: Final = 5.0
"""Seconds between two checks of the certificate's files."""

PLAINTEXT_BYTES: Final = 64 * 1024
_NO_TLS: Final = b"This port speaks TLS: write https:// (or wss://).\n"
SPEAK_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_NO_TLS), _NO_TLS)
)
"""The response to a client that uses plain HTTP."""

log = logging.getLogger("llm_runtime.server")


class TlsBroken(Exception):  # noqa: N818  (it says what happened)
    """TLS with the peer has failed. ``farewell``: bytes that should still be sent to the peer."""

    def __init__(self, farewell: bytes = b"") -> None:
        super().__init__("TLS")
        self.farewell = farewell


@final
class TlsLayer:
    """TLS of one accepted connection."""

    __slots__ = ("_incoming", "_is_open", "_outgoing", "_tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False

    def open(self, data: bytes) -> bytes | None:
        """Return the plaintext of received bytes: ``b""`` at the end, ``None`` if there is none yet. Empty ``data``
        means that the socket delivers no more bytes. Raises `TlsBroken`.
        """
        if not data:
            return b""  # also without a close notification: the length of a request is in its head
        self._incoming.write(data)
        try:
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            return self._read()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as exc:
            is_plain = exc.reason == "HTTP_REQUEST"
            raise TlsBroken(SPEAK_TLS if is_plain else self._outgoing.read()) from None

    def _read(self) -> bytes | None:
        found = bytearray()
        try:
            while piece := self._tls.read(PLAINTEXT_BYTES):
                found += piece
        except ssl.SSLWantReadError:
            return bytes(found) or None
        except ssl.SSLZeroReturnError:
            pass
        return bytes(found)

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return the bytes to send for ``data``, after those that TLS itself has to send. They must be sent in the
        order of the calls. Raises `TlsBroken` before the end of the handshake.
        """
        if not self._is_open:
            raise TlsBroken
        try:
            self._tls.write(data)
        except ssl.SSLError:
            raise TlsBroken from None
        return self._outgoing.read()

    def own_words(self) -> bytes:
        """Return the bytes that TLS itself has to send, such as the handshake."""
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return the close notification."""
        if self._is_open:
            with suppress(ssl.SSLError):  # it waits for the peer's close notification; ours is written
                self._tls.unwrap()
        return self._outgoing.read()


@final
class TlsContext:
    """The TLS context for new connections. Raises `ConfigError` if the files cannot be used."""

    def __init__(self, config: ServerTls) -> None:
        self._config = config
        self._seen = _stamps(config)
        self._unusable: object = None
        """The last files that could not be used."""
        self._context = server_context(config)

    def layer(self) -> TlsLayer:
        return TlsLayer(self._context)

    async def watch(self) -> None:
        """Apply changes of the files, until cancelled. If new files cannot be used, an error is logged once, and the
        old certificate is kept until they can. Open connections are not affected.
        """
        while True:
            await trio.sleep(WATCH_SECONDS)
            await trio.to_thread.run_sync(self.refresh, abandon_on_cancel=True)

    def refresh(self) -> None:
        """Read the files again if they have changed. Files that cannot be used now are read again each time, because
        the reason may pass, such as a missing permission. Blocks the thread.
        """
        found = _stamps(self._config)
        if found == self._seen:
            return
        try:
            self._context = server_context(self._config)
        except (ConfigError, OSError) as exc:
            if found != self._unusable:
                log.error("the certificate has changed and cannot be used; the old one is kept: %s", exc)  # noqa: TRY400
            self._unusable = found
        else:
            self._seen = found
            log.info("the certificate has changed: new connections use the new one")


def _stamps(config: ServerTls) -> tuple[object, ...]:
    return tuple(_stamp(path) for path in (config.certificate, config.key, config.client_ca) if path)


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
