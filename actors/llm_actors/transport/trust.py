"""The certificates to trust: the system's authorities, else certifi's, or one given file and nothing else.

There is no switch that turns verification off. For a server with a certificate of its own, name that certificate (or
its authority) in ``ca_file``.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

OP_IGNORE_UNEXPECTED_EOF: Final = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # 0: OpenSSL before 3 has no such option


class TlsTrust:
    """Makes the one SSL context of a transport on first use; making one costs tens of milliseconds.

    ``ca_file`` is a PEM file that replaces the system's authorities. The constructor reads nothing.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        self.ca_file = ca_file
        self._context: ssl.SSLContext | None = None

    @property
    def loaded(self) -> bool:
        return self._context is not None

    def context(self) -> ssl.SSLContext:
        """The shared context: TLS 1.2 or newer, certificate and host name checked, HTTP/1.1 only.

        Reads files on the first call. Raises OSError when ``ca_file`` is missing or holds no certificate.
        """
        if self._context is None:
            self._context = self._make()
        return self._context

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.ca_file is None and not _system_has_authorities(context):
            import certifi  # imported here because it is slow, and most machines have authorities of their own

            context.load_verify_locations(certifi.where())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # With renegotiation, a write could have to wait for a read; it is not needed.
        context.options |= ssl.OP_NO_RENEGOTIATION
        # Some builds of Python (Debian 12's 3.11.2) set this option by default. A FIN without close_notify then looks
        # like a proper end, and a body that ends with its connection would count as complete though it can be cut by
        # anyone.
        context.options &= ~OP_IGNORE_UNEXPECTED_EOF
        context.set_alpn_protocols(["http/1.1"])
        return context


def _system_has_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    # A directory of authorities is read certificate by certificate when needed, so it does not show in the statistics.
    folder = ssl.get_default_verify_paths().capath
    return bool(folder and os.path.isdir(folder) and os.listdir(folder))
