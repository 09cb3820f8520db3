"""A session with a Redis server: one connection, one command at a time, and a limit on every wait.

Every failure (the server is down, loading, frozen or read-only, rejects the password, or sends garbage) ends the
session with a reason and closes its connection, so a late reply is never read.

The client is coredis, an optional extra, imported on first use. The session works around these properties of it: it
resends a command by itself (which would charge twice), it logs a traceback for every failed connection, it raises an
ordinary exception out of a cancelled connect, it does not decode a percent-encoded password, and with TLS it accepts
a certificate of any host.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, NamedTuple, final
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec import Meta

from llm_protocol.secret import Secret

if TYPE_CHECKING:
    from coredis import Redis

CONNECT_SECONDS = 1.0
"""Seconds for connecting, including name lookup, TLS and login."""

REASON_CHARACTERS = 200

SCHEMES = ("redis", "rediss", "unix")

CHECK_HOST = "ssl_check_hostname"
"""A query parameter of the client's URL; by default the client does not check host names."""


class RedisServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address of the server, and the prefix of the runtime's keys. Processes with the same prefix share their
    limits.

    ``timeout_s`` limits each command. It is the longest time in seconds that a request waits for a server that has
    just stopped responding.
    """

    url: Secret
    """`redis://`, `rediss://` (TLS) or `unix://PATH`. An address that contains a password must be given as `env:NAME`
    or `file:PATH`.
    """
    prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,64}$")] = "llm-runtime"
    """The prefix of all keys in Redis. Processes with the same prefix share their limits and budgets. They also share
    cached responses, stored responses and vendor ids, if these are kept in Redis; a caller can use only those
    that belong to its name.
    """
    timeout_s: Annotated[float, Meta(gt=0, le=5)] = 0.1
    """The time limit of one command, in seconds: the longest that a request waits for a server that has just stopped
    responding.
    """

    @property
    def name(self) -> str:
        """The address without secrets, for messages."""
        parts = urlsplit(self.url.reveal())
        return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


class RedisProblem(NamedTuple):
    """Why a session ended. ``sort`` identifies the kind of problem; ``detail`` is a readable message."""

    sort: str
    detail: str


UNREACHABLE = "unreachable"


@cache
def script_of(package: str, file: str) -> str:
    """Return the Lua script in a file of ``package``."""
    return files(package).joinpath(file).read_text()


class RedisAwayError(Exception):
    """A call to Redis gave no usable result: Redis is unreachable, too many calls wait for it, its reply is invalid, or
    data is missing. It may be unknown whether the call had an effect. ``problem`` says why.
    """

    def __init__(self, problem: RedisProblem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@final
class RedisScript:
    """A Lua script on the server of this session, sent once and then called by its digest."""

    def __init__(self, client: Redis[bytes], source: str, timeout_s: float) -> None:
        self._script = client.register_script(source)
        self._timeout_s = timeout_s

    async def run(self, keys: Sequence[str], argument: bytes) -> bytes:
        """Call the script. Raises `RedisAwayError`, at the latest after the server's ``timeout_s``; then it is
        unknown whether the script has run.
        """
        answer = await _within(self._timeout_s, lambda: self._script(keys=keys, args=[argument]))
        if not isinstance(answer, bytes):
            raise _unexpected(answer)
        return answer

    async def run_list(self, keys: Sequence[str], arguments: Sequence[str | bytes | int | float]) -> list[bytes]:
        """Call a script that takes several arguments and returns a list of strings. Raises as `run` does."""
        answer = await _within(self._timeout_s, lambda: self._script(keys=keys, args=list(arguments)))
        if not isinstance(answer, list):
            raise _unexpected(answer)
        found = [each for each in answer if isinstance(each, bytes)]
        if len(found) != len(answer):
            raise _unexpected(answer)
        return found


async def run_session(server: RedisServer, source: str, use: Callable[[RedisScript], Awaitable[None]]) -> RedisProblem:
    """Connect, load the script ``source`` and run ``use`` with it. Returns why the session ended.

    Cancelling it closes the connection without a further command. Raises only what ``use`` raises.
    """
    import coredis
    from coredis.exceptions import RedisError
    from coredis.retry import NoRetryPolicy

    logging.getLogger("coredis").addFilter(_of_others)
    _ours.set(True)
    problem: RedisProblem | None = None
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
                problem = exc.problem
            except Exception as exc:  # the client would wrap it in an exception group, like its own errors
                bug = exc
    except (OSError, RedisError, ExceptionGroup) as exc:
        problem = problem or _problem(exc)  # it can only report again that the connection is closed
    await trio.lowlevel.checkpoint_if_cancelled()
    if bug is not None:
        raise bug
    return problem or RedisProblem(UNREACHABLE, "the connection has ended")


def _address(server: RedisServer) -> str:
    url = server.url.reveal()
    parts = urlsplit(url)
    if parts.scheme != "rediss" or CHECK_HOST in parts.query:
        return url
    return parts._replace(query="&".join(filter(None, (parts.query, f"{CHECK_HOST}=true")))).geturl()


async def _within(seconds: float, ask: Callable[[], Awaitable[object]]) -> object:
    answer: object = None
    limit = trio.move_on_after(seconds)
    try:
        with limit:
            answer = await ask()
    except Exception as exc:  # its parser raises arbitrary exceptions when the server sends garbage
        if not limit.cancel_called:
            raise RedisAwayError(_problem(exc)) from None
    if limit.cancel_called and answer is None:
        raise RedisAwayError(RedisProblem(UNREACHABLE, f"no reply within {seconds * 1000:.0f} ms"))
    return answer


def _unexpected(answer: object) -> RedisAwayError:
    return RedisAwayError(RedisProblem("answer", f"an unexpected reply of type {type(answer).__name__}"))


def _problem(exc: BaseException) -> RedisProblem:
    """Return the innermost error that has a message, as one line."""
    from coredis.exceptions import ConnectionError as LostError

    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[-1]
    sort = UNREACHABLE if type(exc) is LostError or isinstance(exc, OSError) else type(exc).__name__
    inner: BaseException | None = exc
    while inner is not None:
        exc = inner if str(inner) else exc
        inner = inner.exceptions[-1] if isinstance(inner, BaseExceptionGroup) else inner.__cause__
    reason = "".join(c if c.isprintable() else " " for c in str(exc))[:REASON_CHARACTERS].strip()
    return RedisProblem(sort, f"{type(exc).__name__}: {reason}" if reason else type(exc).__name__)


_ours: ContextVar[bool] = ContextVar("_ours", default=False)


def _of_others(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a filter is given the record
    """A filter for the client's log records. Drops the records about our sessions, and keeps those about other sessions
    of the host program.
    """
    return not _ours.get()
