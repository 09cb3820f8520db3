"""A stdin, a stdout or an argument that a command cannot use: one line and an exit code, no traceback."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from llm_runtime.cli import terminal
from support import commands
from support.peer import Peer, reply
from support.statistics import told

CONFIG = '[providers.p]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["m"]\n'
JSON = {"content-type": "application/json"}


@contextmanager
def opened(path: str | bytes | Path) -> Iterator[int]:
    """Open a file for writing; its descriptor."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        yield number
    finally:
        os.close(number)


async def code_and_errors(stdout: int, *arguments: str | bytes, stdin: int = subprocess.DEVNULL) -> tuple[int, str]:
    with trio.fail_after(commands.SECONDS):
        done = await trio.run_process(
            [*commands.COMMAND, *arguments],
            stdin=stdin,
            stdout=stdout,
            capture_stderr=True,
            check=False,
            env=commands.environment({}),
        )
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
@pytest.mark.parametrize("command", ["check --offline --config", "config schema", "--version"])
async def test_output_that_could_not_be_written_is_a_failure(command: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    arguments = [*command.split(), str(tmp_path / "c.toml")] if command.endswith("config") else command.split()
    with opened("/dev/full") as full:
        assert await code_and_errors(full, *arguments) == (
            1,
            "llm-runtime: cannot write the output: No space left on device\n",
        )
    ours, theirs = os.pipe()
    os.close(ours)
    assert await code_and_errors(theirs, *arguments) == (141, "")
    os.close(theirs)


@pytest.mark.parametrize("command", ["ask", "ask hi", "chat"])
async def test_a_stdin_that_cannot_be_read_is_told(command: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    with opened(tmp_path / "written") as written:
        code, errors = await code_and_errors(
            subprocess.DEVNULL, *command.split(), "--config", str(tmp_path / "c.toml"), stdin=written
        )
    assert (code, errors) == (2, "llm-runtime: stdin cannot be read: Bad file descriptor\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
async def test_arguments_that_are_not_unicode_are_no_traceback(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/\xff.toml"
    with opened(file) as config:
        os.write(config, CONFIG.encode())
    for arguments, expected in (
        ((b"check", b"--offline", b"--json", b"--config", file), 0),
        ((b"explain", b"--config", file, b"p/\xff"), 0),
        ((b"explain", b"--url", b"http://127.0.0.1:9", b"p/\xff"), 1),
    ):
        code, errors = await code_and_errors(subprocess.DEVNULL, *arguments)
        assert "Traceback" not in errors
        assert code == expected, errors


async def test_top_ends_when_its_terminal_has_gone() -> None:
    ours, theirs = pty.openpty()
    async with Peer(*[reply(msgspec.json.encode(told()), headers=JSON)] * 50) as peer:
        with trio.fail_after(commands.SECONDS):
            process = await trio.lowlevel.open_process(
                [*commands.COMMAND, "top", "--url", peer.url, "--interval", "0.1"],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.PIPE,
                env=commands.environment({}),
            )
            os.close(theirs)
            async with trio.lowlevel.FdStream(ours) as terminal:
                await terminal.receive_some()
            errors = await commands.rest(process.stderr)
            code = await process.wait()
            assert process.stderr
            await process.stderr.aclose()
    assert (code, errors) == (141, "")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_model_or_a_vendor_says_does_not_steer_the_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `ask`. A program gets it as it is."""
    written: list[tuple[int, bytes]] = []
    monkeypatch.setattr(os, "isatty", lambda _: is_terminal)
    monkeypatch.setattr(terminal, "write_all", lambda data, file=1: written.append((file, data)))
    terminal.print_out("a\x1b]0;title\x07b\tc")
    terminal.say("a\x1b[2Jb")
    plain = [(1, b"a]0;titleb\tc\n"), (2, b"a[2Jb\n")]
    assert written == (plain if is_terminal else [(1, b"a\x1b]0;title\x07b\tc\n"), (2, b"a\x1b[2Jb\n")])


async def test_a_host_that_cannot_be_a_name_is_told() -> None:
    code, errors = await code_and_errors(subprocess.DEVNULL, "fake-provider", "--host", "a..b")
    assert (code, errors) == (2, "llm-runtime: cannot listen on a..b: it is not a host name\n")


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "llm_runtime.cli.arguments":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from llm_runtime.cli import main
sys.exit(main(["models"]))
"""


def test_ctrl_c_while_a_command_is_imported_ends_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED_IMPORT], capture_output=True, check=False, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
