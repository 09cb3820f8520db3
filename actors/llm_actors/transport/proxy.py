"""The proxy of a provider, and the requests that make it connect to an origin.

An HTTP proxy opens a tunnel to an https origin by CONNECT (RFC 9110, 9.3.6). A request to an http origin is sent to
the proxy in absolute form. A SOCKS5 proxy (RFC 1928, 1929) opens a tunnel to either. Names are always resolved by the
proxy. A proxy's messages are never quoted: they may contain the credentials.
"""

from __future__ import annotations

import base64
import ipaddress
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from llm_actors.transport.connection import CHUNK_BYTES, Wire
from llm_actors.transport.errors import WIRE_ERRORS, ConnectFailed, ProxyRefused
from llm_actors.transport.http1 import Origin
from llm_protocol.http1 import BadHttp, ResponseHead, find_head, read_response_head
from llm_protocol.secret import Secret

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
HEAD_BYTES: Final = 16 * 1024
"""The most bytes that a proxy may send before the tunnel begins."""

AUTHORIZATION: Final = "Proxy-Authorization"
"""The header with the credentials. Some proxies know it only in this spelling."""

_REFUSED: Final = "the proxy refuses the user or password"
_WANTS: Final = "the proxy wants a user and password (proxy_auth)"
_MORE: Final = "the proxy sent more than a response to CONNECT"

_SOCKS_FAILURES: Final = {
    1: "the proxy failed",
    3: "the proxy cannot reach the network",
    4: "the proxy cannot reach the host",
    5: "the proxy was refused by the host",
    6: "the proxy got no response from the host in time",
    8: "the proxy does not know this type of address",
}
_SOCKS_FORBIDDEN: Final = 2


class Proxy(NamedTuple):
    """The address of a proxy, and the ``user:password`` for it."""

    scheme: str
    """``http``, ``https`` (TLS to the proxy itself), ``socks5``, or ``socks5h``, which means the same as ``socks5``."""
    host: str
    port: int
    credentials: Secret | None = None

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks5")

    @property
    def url(self) -> str:
        """The address of the proxy, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization; ``None`` without credentials."""
        if self.credentials is None:
            return None
        return "Basic " + base64.b64encode(self.credentials.reveal().encode()).decode()

    def forwards(self, origin: Origin) -> bool:
        """Whether the proxy forwards requests to ``origin``, instead of opening a tunnel."""
        return origin.scheme == "http" and not self.is_socks


SOCKS_LOGIN: Final = "SOCKS5 needs a user of 1 to 255 bytes and a password of at most 255 bytes"
"""The error for credentials of which `is_socks_login` returns False."""


def is_user_and_password(credentials: Secret) -> bool:
    """Whether ``credentials`` have the form ``user:password``."""
    return ":" in credentials.reveal()


def is_socks_login(credentials: Secret) -> bool:
    """Whether SOCKS5 can send ``credentials``, which have the form ``user:password``."""
    user, _, password = credentials.reveal().encode().partition(b":")
    return 0 < len(user) < 256 and len(password) < 256


def parse_proxy(url: str) -> Proxy:
    """Parse ``http://[user:password@]host[:port]``, percent-encoded where necessary. The default scheme is http.

    Raises `ValueError`, whose message does not contain ``url``.
    """
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not an address like http://proxy.example:3128") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a proxy's address must start with http://, https:// or socks5://")
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment
    if not host or port == 0 or not plain or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("not an address like http://proxy.example:3128")
    credentials = None
    if parts.username is not None:
        credentials = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return Proxy(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], credentials)


async def open_tunnel(wire: Wire, proxy: Proxy, origin: Origin) -> None:
    """Make ``proxy``, at the other end of ``wire``, connect ``wire`` to ``origin``.

    Has no time limit. Raises `ConnectFailed` or `ProxyRefused`, and the exceptions of ``wire``.
    """
    if proxy.is_socks:
        await _socks5(wire, proxy, origin)
    else:
        await _connect(wire, proxy, origin)


def credentials_refused(proxy: Proxy, status: int) -> str:
    """Return the message for a status of 407."""
    return f"{_REFUSED if proxy.credentials else _WANTS} ({status}); only Basic authentication is supported"


async def _connect(wire: Wire, proxy: Proxy, origin: Origin) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization is not None:
        request += f"{AUTHORIZATION}: {proxy.authorization}\r\n"
    await wire.send_all(f"{request}\r\n".encode("ascii"))
    status = await _status(wire, origin)
    if status == 407:
        raise ProxyRefused(origin, credentials_refused(proxy, status))
    if 400 <= status < 500:
        raise ProxyRefused(origin, f"the proxy refuses the connection ({status})")
    if not 200 <= status < 300:
        raise ConnectFailed(origin, f"the proxy cannot connect ({status})")


async def _status(wire: Wire, origin: Origin) -> int:
    """Return the status of the final response. Bytes after a 2xx belong to the tunnel, so none may have arrived yet."""
    received = bytearray()
    try:
        while True:
            head: ResponseHead | None = None
            if end := find_head(received, limit=HEAD_BYTES):
                head = read_response_head(received[:end])
                del received[:end]
            if head is not None and head.status >= 200:
                break
            if head is None:
                received += await _some(wire, origin, CHUNK_BYTES)
    except BadHttp as exc:
        raise ConnectFailed(
            origin, f"the server at the proxy's address does not respond as an HTTP proxy ({exc.reason})"
        ) from None
    if received and 200 <= head.status < 300:  # the client speaks first, in TLS: these are not the origin's bytes
        raise ConnectFailed(origin, _MORE)
    return head.status


async def _socks5(wire: Wire, proxy: Proxy, origin: Origin) -> None:
    method = 0 if proxy.credentials is None else 2
    await wire.send_all(bytes((5, 1, method)))
    version, chosen = await _exactly(wire, origin, 2)
    if version != 5:
        raise ConnectFailed(origin, "the server at the proxy's address does not respond as a SOCKS5 proxy")
    if chosen != method:
        raise ProxyRefused(origin, _WANTS if method == 0 else "the proxy does not accept a user and password")
    if proxy.credentials is not None:
        user, _, password = proxy.credentials.reveal().encode().partition(b":")
        if not is_socks_login(proxy.credentials):
            raise ProxyRefused(origin, SOCKS_LOGIN)
        await wire.send_all(bytes((1, len(user))) + user + bytes((len(password),)) + password)
        try:
            _, failed = await _exactly(wire, origin, 2)
        except (ConnectFailed, *WIRE_ERRORS):
            failed = 1  # some close the connection instead of sending a refusal
        if failed:
            raise ProxyRefused(origin, _REFUSED)
    await wire.send_all(b"\x05\x01\x00" + _socks_address(origin))
    version, code, _, kind = await _exactly(wire, origin, 4)
    if version != 5 or kind not in (1, 3, 4):
        raise ConnectFailed(origin, "the server at the proxy's address does not respond as a SOCKS5 proxy")
    if code == _SOCKS_FORBIDDEN:
        raise ProxyRefused(origin, "the proxy does not allow this connection")
    if code:
        raise ConnectFailed(origin, _SOCKS_FAILURES.get(code, "the proxy failed"))
    # The proxy's own address: not needed, but it precedes the tunnel.
    size = {1: 4, 4: 16}.get(kind) or (await _exactly(wire, origin, 1))[0]
    await _exactly(wire, origin, size + 2)


def _socks_address(origin: Origin) -> bytes:
    port = origin.port.to_bytes(2, "big")
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        name = origin.host.encode("ascii")
        if len(name) > 255:
            raise ConnectFailed(origin, "the host's name is too long for SOCKS5") from None
        return bytes((3, len(name))) + name + port
    return bytes((1 if address.version == 4 else 4,)) + address.packed + port


async def _some(wire: Wire, origin: Origin, most: int) -> bytes:
    data = await wire.receive_some(most)
    if not data:
        raise ConnectFailed(origin, "the proxy closed the connection before the tunnel to the server was open")
    return data


async def _exactly(wire: Wire, origin: Origin, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await _some(wire, origin, size - len(data))
    return data
