"""A unix socket instead of an address: who may connect, what is left of others, and what is left of us."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from llm_runtime.server import CannotListenError
from llm_runtime.server.listener import bind_unix, removed_after
from support.server import HttpClient, Reply, open_server


async def ask(path: str, **headers: str) -> Reply:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.connect(path)
    async with HttpClient(trio.SocketStream(sock)) as client:
        return await client.request("GET", "/v1/models", **headers)


async def test_it_is_served_whatever_the_host_is_called(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with open_server(unix=path) as server:
        assert server.address.url == f"unix:{path}"
        assert (await ask(path, host="api.example")).status == 200
        assert (await ask(path, origin="https://page.example")).status == 403, "a page cannot, and who says so is none"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == [], "nothing is left"


async def test_the_file_has_the_permissions_that_are_configured(tmp_path: Path) -> None:
    async with open_server(unix=str(tmp_path / "s"), unix_mode="0666"):
        assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o666


async def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listener = await bind_unix(path, 0o600)
    with listener:
        with pytest.raises(CannotListenError, match=r"is in use: stop the program that listens there"):
            await bind_unix(path, 0o600)
    assert os.listdir(tmp_path) == ["s"]


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(CannotListenError, match="exists and is not a socket"):
        await bind_unix(str(tmp_path / "s"), 0o600)
    assert (tmp_path / "s").read_text() == "mine"
    with pytest.raises(CannotListenError, match="No such file or directory"):
        await bind_unix(str(tmp_path / "absent" / "s"), 0o600)
    with pytest.raises(CannotListenError, match="path too long"):
        await bind_unix(str(tmp_path / ("s" * 200)), 0o600)


async def test_another_process_socket_is_not_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with await bind_unix(path, 0o600) as mine:
        with removed_after(path):
            mine.close()
            with await bind_unix(path, 0o600):
                pass
        assert os.listdir(tmp_path) == ["s"]
