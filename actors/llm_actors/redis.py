"""A session with a Redis server: one connection, one command at a time, and a bound on every wait.

Whatever goes wrong (nobody listens, a wrong password, a server that is loading, frozen, read-only, or speaks nonsense)
ends the session with a reason, and closes its connection: a reply that comes late is read by nobody.

The client is coredis, an optional extra, imported on first use. Of its habits these are guarded against here: it sends
a command again by itself (a charge would be made twice), it logs a traceback for each connection that fails, out of a
cancelled connect it raises a plain error, it takes a percent-encoded password as it is written, and with TLS any host's
certificate for the server's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, NamedTuple, final
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec import Meta

from llm_protocol.secret import Secret

if TYPE_CHECKING:
    from coredis import Redis

CONNECT_SECONDS = 1.0
"""The most that connecting may take, name lookup, TLS and login included."""

REASON_CHARACTERS = 200

SCHEMES = ("redis", "rediss", "unix")

CHECK_HOST = "ssl_check_hostname"
"""Part of an address that the client understands; its default is not to check."""


class RedisServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server is, and what of it is ours: keys that start with ``{prefix}``. Who uses the same prefix shares.

    ``timeout_s`` bounds each command. It is what a request may wait for a server that has just stopped answering.
    """

    url: Secret
    """`redis://`, `rediss://` (TLS) or `unix://PATH`; with a password in it, write `env:NAME` or `file:PATH`."""
    prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,64}$")] = "llm-runtime"
    """What all keys in Redis begin with. Processes with the same prefix share their limits."""
    timeout_s: Annotated[float, Meta(gt=0, le=5)] = 0.1
    """For one command; what a request may wait for a server that has just stopped answering."""

    @property
    def name(self) -> str:
        """Its address without what is secret, for people."""
        parts = urlsplit(self.url.reveal())
        return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


class RedisProblem(NamedTuple):
    """Why a session ended. ``sort`` stays the same for as long as the trouble does; ``detail`` is for people."""

    sort: str
    detail: str


UNREACHABLE = "unreachable"


class RedisAwayError(Exception):
    """The server did not do what it was asked for, as far as is known."""

    def __init__(self, trouble: RedisProblem) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


@final
class RedisScript:
    """A Lua script on the server of this session, sent once and then named by its digest."""

    def __init__(self, client: Redis[bytes], source: str, timeout_s: float) -> None:
        self._script = client.register_script(source)
        self._timeout_s = timeout_s

    async def run(self, keys: Sequence[str], argument: bytes) -> bytes:
        """Its answer. Raises `RedisAwayError` within the server's ``timeout_s``: it may have run, or not."""
        return await _within(self._timeout_s, lambda: self._script(keys=keys, args=[argument]))


async def session(server: RedisServer, source: str, use: Callable[[RedisScript], Awaitable[None]]) -> RedisProblem:
    """Connect and ``use`` the script with this source, until there is trouble. Return it.

    Cancelling it closes the connection, with nothing said to the server. Raises only what ``use`` does.
    """
    import coredis
    from coredis.exceptions import RedisError
    from coredis.retry import NoRetryPolicy

    logging.getLogger("coredis").addFilter(_of_others)
    _ours.set(True)
    trouble: RedisProblem | None = None
    bug: Exception | None = None
    try:
        client = coredis.Redis.from_url(
            _address(server), decode_components=True, retry_policy=NoRetryPolicy(), verify_version=False
        )
        async with client:
            try:
                await _within(CONNECT_SECONDS, client.ping)
                await use(RedisScript(client, source, server.timeout_s))
            except RedisAwayError as exc:
                trouble = exc.trouble
            except Exception as exc:  # the client would wrap it in a group, like what happens to itself
                bug = exc
    except (OSError, RedisError, ExceptionGroup) as exc:
        trouble = trouble or _trouble(exc)  # it may only tell once more, of the connection that is closed
    await trio.lowlevel.checkpoint_if_cancelled()
    if bug is not None:
        raise bug
    return trouble or RedisProblem(UNREACHABLE, "the connection has ended")


def _address(server: RedisServer) -> str:
    url = server.url.reveal()
    parts = urlsplit(url)
    if parts.scheme != "rediss" or CHECK_HOST in parts.query:
        return url
    return parts._replace(query="&".join(filter(None, (parts.query, f"{CHECK_HOST}=true")))).geturl()


async def _within(seconds: float, ask: Callable[[], Awaitable[object]]) -> bytes:
    answer: object = None
    limit = trio.move_on_after(seconds)
    try:
        with limit:
            answer = await ask()
    except Exception as exc:  # its parser raises what it likes when the server speaks nonsense
        if not limit.cancel_called:
            raise RedisAwayError(_trouble(exc)) from None
    if limit.cancel_called and answer is None:
        raise RedisAwayError(RedisProblem(UNREACHABLE, f"no answer within {seconds * 1000:.0f} ms"))
    if not isinstance(answer, bytes):
        raise RedisAwayError(RedisProblem("answer", f"an answer of type {type(answer).__name__}"))
    return answer


def _trouble(exc: BaseException) -> RedisProblem:
    """What the innermost error that says something says, in one line."""
    from coredis.exceptions import ConnectionError as LostError

    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[-1]
    sort = UNREACHABLE if type(exc) is LostError or isinstance(exc, OSError) else type(exc).__name__
    inner: BaseException | None = exc
    while inner is not None:
        exc = inner if str(inner) else exc
        inner = inner.exceptions[-1] if isinstance(inner, BaseExceptionGroup) else inner.__cause__
    said = "".join(c if c.isprintable() else " " for c in str(exc))[:REASON_CHARACTERS].strip()
    return RedisProblem(sort, f"{type(exc).__name__}: {said}" if said else type(exc).__name__)


_ours: ContextVar[bool] = ContextVar("_ours", default=False)


def _of_others(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a filter is given the record
    """Keeps what the client logs of our sessions out of the log, and nothing of a host program's own."""
    return not _ours.get()
