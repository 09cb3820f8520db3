"""The certificates to trust: the system's authorities, else certifi's, or one given file and nothing else.

There is no switch that turns verification off. For a server with a self-signed certificate, name that certificate (or
its authority) in ``ca_file``.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

OP_IGNORE_UNEXPECTED_EOF: Final = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # 0: OpenSSL before 3 has no such option


class TlsTrust:
    """Makes the SSL contexts of a transport on first use; making one costs tens of milliseconds.

    ``ca_file`` is a PEM file that replaces the system's authorities. The constructor reads nothing.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        self.ca_file = ca_file
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def is_loaded(self, *, http2: bool = False) -> bool:
        """Whether `context` would read no file."""
        return http2 in self._contexts

    def context(self, *, http2: bool = False) -> ssl.SSLContext:
        """Return the shared context: TLS 1.2 or newer, certificate and host name checked. It offers HTTP/1.1 to the
        server, and with ``http2`` HTTP/2 before it.

        Reads files on the first call. Raises OSError if ``ca_file`` is missing or contains no certificate.
        """
        if http2 not in self._contexts:
            self._contexts[http2] = self._make(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return self._contexts[http2]

    def _make(self, protocols: list[str]) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.ca_file is None and not _system_has_authorities(context):
            import certifi  # imported here because it is slow, and most machines have their own authorities

            context.load_verify_locations(certifi.where())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # With renegotiation, a write could have to wait for a read; it is not needed.
        context.options |= ssl.OP_NO_RENEGOTIATION
        # Some builds of Python (Debian 12's 3.11.2) set this option by default. A FIN without close_notify then looks
        # like a proper end, and a body that ends with its connection would count as complete though it can be cut by
        # anyone.
        context.options &= ~OP_IGNORE_UNEXPECTED_EOF
        context.set_alpn_protocols(protocols)
        return context


def _system_has_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    # A directory of authorities is read certificate by certificate when needed, so it does not show in the statistics.
    folder = ssl.get_default_verify_paths().capath
    return bool(folder and os.path.isdir(folder) and os.listdir(folder))
