"""TLS over a wire, with two memory buffers.

Trio's SSLStream is not used for two reasons. It may contain whole records that were received but not yet read, which
only private attributes show; a reused connection with such surplus would take it for the next response. And it is
unusable after a cancelled send, but an early error response has to be read exactly then.
"""

from __future__ import annotations

import ssl
from typing import Final

from llm_actors.transport.connection import CHUNK_BYTES, Wire

_TLS_SLICE_BYTES: Final = 64 * 1024  # how much plaintext is encrypted ahead of the socket


class TlsWire:
    """TLS over another wire, which may be TLS itself (to a proxy), through two memory buffers."""

    def __init__(self, plain: Wire, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._sending = False

    async def handshake(self) -> None:
        """Do the handshake. Raises ``WIRE_ERRORS``. If the handshake fails, the TLS alert with the reason is sent to
        the server first.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()
                raise
            else:
                return await self._flush()

    @property
    def protocol(self) -> str | None:
        """The protocol that both sides have agreed on (ALPN), after the handshake; ``None`` if there is none."""
        return self._tls.selected_alpn_protocol()

    async def send_all(self, data: bytes) -> None:
        self._sending = True
        try:
            view = memoryview(data)
            for start in range(0, len(view), _TLS_SLICE_BYTES):
                self._tls.write(view[start : start + _TLS_SLICE_BYTES])
                await self._flush()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int) -> bytes:
        while True:
            try:
                data = self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                # A key update may need a reply; a sender that is already writing sends it along.
                if self._outgoing.pending and not self._sending:
                    await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            else:
                return data

    def is_quiet(self) -> bool:
        return not (self._tls.pending() or self._incoming.pending or not self._plain.is_quiet())

    def close(self) -> None:
        self._plain.close()

    async def _flush(self) -> None:
        while self._outgoing.pending:
            await self._plain.send_all(self._outgoing.read())

    async def _fill(self) -> None:
        data = await self._plain.receive_some(CHUNK_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
