"""A Redis, a cache file and an address that can be used, and such that cannot: what is said, and that nothing stays."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llm_runtime.config import Server
from llm_runtime.probes import CheckStatus
from llm_runtime.probes.places import try_address, try_file, try_folder, try_redis
from support.redis import redis

SHARED = "; until that works, limits are not shared"


async def test_a_redis_that_runs_scripts_is_fine_and_keeps_nothing() -> None:
    with redis("--requirepass", "right") as server:
        found = await try_redis(server.server(user=":right@", timeout_s=5))
        assert server.command("HELLO", "2", "AUTH", "default", "right").startswith(b"*")
        wrong = await try_redis(server.server(user=":CANARY@", timeout_s=5))
    assert found == (CheckStatus.OK, "runs the scripts for shared limits")
    assert wrong[0] is CheckStatus.FAILED
    assert "invalid username-password pair" in wrong[1]
    assert wrong[1].endswith(SHARED)
    assert "CANARY" not in wrong[1]


async def test_trying_redis_leaves_no_key_and_touches_no_other() -> None:
    with redis() as server:
        server.command("SET", "somebody:else", "1")
        assert (await try_redis(server.server(timeout_s=5)))[0] is CheckStatus.OK
        assert server.command("KEYS", "*") == b"*1\r\n$13\r\nsomebody:else\r\n"


async def test_a_redis_that_cannot_be_written_or_is_silent_is_told() -> None:
    with redis("--replicaof", "127.0.0.1", "1") as server:
        replica = await try_redis(server.server(timeout_s=5))
        server.freeze()
        frozen = await try_redis(server.server())
        server.thaw()
    for (status, detail), cause in ((replica, "replica"), (frozen, "no reply within")):
        assert status is CheckStatus.FAILED
        assert cause in detail
        assert detail.endswith(SHARED)


async def test_a_cache_file_can_be_made_in_a_folder_that_is_still_missing(tmp_path: Path) -> None:
    found = await try_file(f"{tmp_path}/one/two/cache.db")
    assert found == (CheckStatus.OK, f"can be created in {tmp_path}")
    assert os.listdir(tmp_path) == []


async def test_a_cache_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "cache.db"
    file.write_bytes(b"whatever it holds")
    before = os.stat(file)
    assert await try_file(str(file)) == (CheckStatus.OK, "can be written")
    after = os.stat(file)
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)
    assert os.listdir(tmp_path) == ["cache.db"]


@pytest.mark.parametrize("path", ["/proc/none/cache.db", "{0}/file/cache.db", "{0}"])
async def test_a_cache_that_cannot_be_written_is_told_with_the_place(tmp_path: Path, path: str) -> None:
    """A file system that refuses, a file where a folder would have to be, a folder where the file would."""
    (tmp_path / "file").touch()
    path = path.format(tmp_path)
    status, detail = await try_file(path)
    assert status is CheckStatus.FAILED
    said, place, reason = detail.split(": ")
    assert said == "cannot be written"
    assert path.startswith(place.rpartition("/")[0])
    assert reason in {os.strerror(number) for number in (2, 13, 20, 21, 30)}


async def test_a_folder_is_there_can_be_made_or_cannot_be_written(tmp_path: Path) -> None:
    assert await try_folder(str(tmp_path)) == (CheckStatus.OK, "can be written")
    assert await try_folder(f"{tmp_path}/one/two") == (CheckStatus.OK, f"can be created in {tmp_path}")
    (tmp_path / "file").touch()
    for path in ("/proc/none/requests", f"{tmp_path}/file/requests", f"{tmp_path}/file"):
        status, detail = await try_folder(path)
        assert (status, detail.partition(":")[0]) == (CheckStatus.FAILED, "cannot be written")
    assert os.listdir(tmp_path) == ["file"]


async def test_an_address_that_is_free_in_use_or_elsewhere() -> None:
    assert await try_address(Server(port=0)) == (CheckStatus.OK, "is free")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = await try_address(Server(port=taken.getsockname()[1]))
    assert in_use == (CheckStatus.WARNING, "in use; unless that is the daemon itself, serve will not start")
    status, detail = await try_address(Server(host="203.0.113.7"))
    assert status is CheckStatus.FAILED
    assert "203.0.113.7" in detail
