"""Scripts of Redis, run in this process, so that their clock is ours. What they need of Redis is a dict. The shared
ledger's is taken if no other is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

import msgspec
import pytest
import trio
from lupa import lua51  # type: ignore[import-untyped]

from llm_actors.redis import RedisAwayError, RedisProblem, RedisServer
from llm_protocol.secret import Secret

SOURCE = files("llm_actors.limiter.shared").joinpath("ledger.lua").read_text()

EPOCH = 1_700_000_000.0
"""What clocks show these days: large enough for the rounding of real ones."""

SERVER = RedisServer(url=Secret("redis://nowhere"))


class VirtualRedis:
    """Hashes that one script works on. ``now``: what its clock shows, in seconds."""

    def __init__(self, now: Callable[[], float], source: str = SOURCE) -> None:
        self.now = now
        self.hashes: dict[str, dict[str, str]] = {}
        self.ends: dict[str, float] = {}
        self.runs = 0
        self._lua = lua51.LuaRuntime(encoding=None)
        names: Any = self._lua.globals()
        names.redis = self._lua.table_from({b"call": self._call})
        names.cmsgpack = self._lua.table_from({b"unpack": self._unpack, b"pack": self._pack})
        self._names = names
        self._script: Any = self._lua.compile(source.encode())

    def run(self, keys: Sequence[str], argument: bytes) -> bytes:
        self.runs += 1
        for key in [key for key, end in self.ends.items() if end <= self.now()]:
            del self.hashes[key], self.ends[key]
        self._names.KEYS = self._lua.table(*(key.encode() for key in keys))
        self._names.ARGV = self._lua.table(argument)
        answer: bytes = self._script()
        return answer

    def used(self, key: str, field: str) -> int:
        """What counts in a window, ``r`` or ``t``, as it was when the script last ran; debts included."""
        return used(self.hashes[key][field])

    def slots(self, key: str) -> int:
        """What all processes hold, those included that are forgotten at the next run."""
        return sum(int(value.split()[0]) for field, value in self.hashes[key].items() if field.startswith("s:"))

    def _call(self, command: bytes, key: bytes = b"", *words: Any) -> object:
        name = key.decode()
        if command == b"TIME":
            seconds, micros = divmod(round(self.now() * 1e6), 1_000_000)
            return self._lua.table(str(seconds).encode(), str(micros).encode())
        if command == b"HGETALL":
            found = self.hashes.get(name, {})
            return self._lua.table(*(word.encode() for pair in found.items() for word in pair))
        if command == b"HMGET":
            found = self.hashes.get(name, {})
            kept = [found.get(word.decode()) for word in words]
            return self._lua.table(*(False if word is None else word.encode() for word in kept))
        if command == b"HSET":
            texts = [word.decode() for word in words]
            self.hashes.setdefault(name, {}).update(zip(texts[::2], texts[1::2], strict=True))
        elif command == b"HDEL":
            for word in words:
                self.hashes[name].pop(word.decode(), None)
        else:
            assert command == b"PEXPIRE"
            self.ends[name] = self.now() + words[0] / 1000
        return 1

    def _unpack(self, data: bytes) -> object:
        return self._to_lua(msgspec.msgpack.decode(data))

    def _to_lua(self, value: Any) -> object:
        if isinstance(value, list):
            return self._lua.table(*map(self._to_lua, value))
        return value.encode() if isinstance(value, str) else value

    def _pack(self, value: object) -> bytes:
        return msgspec.msgpack.encode(_from_lua(value))


def _from_lua(value: Any) -> object:
    if lua51.lua_type(value) == "table":
        return [_from_lua(value[place + 1]) for place in range(len(value))]
    return value.decode() if isinstance(value, bytes) else value


def used(window: str) -> int:
    """What a window holds, debts included, as the script writes it down."""
    owed, _, _, *counters = map(int, window.split())
    return owed + sum(counters[1::2])


class VirtualScript:
    """The script over a wire that takes ``latency_s`` both ways together, and may be cut."""

    def __init__(self, redis: VirtualRedis, latency_s: float) -> None:
        self.redis = redis
        self.latency_s = latency_s
        self.is_up = True
        self.loses_answers = False
        self.crashes_every = 0
        """So many runs end in an exception that nobody foresaw; 0: none."""

    async def run(self, keys: Sequence[str], argument: bytes) -> bytes:
        await trio.sleep(self.latency_s / 2)
        if not self.is_up:
            raise RedisAwayError(RedisProblem("unreachable", "cut"))
        answer = self.redis.run(keys, argument)
        if self.crashes_every and self.redis.runs % self.crashes_every == 0:
            raise LookupError("CANARY")
        await trio.sleep(self.latency_s / 2)
        if self.loses_answers:
            raise RedisAwayError(RedisProblem("unreachable", "cut"))
        return answer


def virtual_ledger(monkeypatch: pytest.MonkeyPatch, *, latency_s: float = 0.001) -> VirtualScript:
    """From now on every limiter with a server shares this one, on Trio's clock, whatever its address."""
    script = VirtualScript(VirtualRedis(lambda: EPOCH + trio.current_time()), latency_s)

    async def session(server: RedisServer, source: str, use: Callable[[Any], Awaitable[None]]) -> RedisProblem:
        assert source == SOURCE
        try:
            await use(script)
        except RedisAwayError as exc:
            return exc.problem
        raise AssertionError("it ends in trouble only")

    monkeypatch.setattr("llm_actors.redis_link.run_session", session)
    return script
