"""What only threads have: Ctrl-C, several threads on one runtime, several cells, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hosts.conftest import Upstream
from llm_runtime import ConfigError, LLMClientError, sync


def test_a_runtime_is_kept_over_several_cells_and_closed(upstream: Upstream) -> None:
    rt = sync.open_runtime(upstream.config)
    assert rt.chat("One.", model="fake/m").content == "You said: One."
    assert rt.chat("Two.", model="fake/m").content == "You said: Two."
    rt.close()
    rt.close()
    with pytest.raises(LLMClientError, match="the runtime is not open"):
        rt.chat("Three.", model="fake/m")


def test_threads_share_one_runtime(upstream: Upstream) -> None:
    def ask(number: int) -> str:
        with rt.stream(f"{number}", model="fake/m") as stream:
            return "".join(stream.text())

    with sync.open_runtime(upstream.config) as rt, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(64))) == [f"You said: {number}" for number in range(64)]


def test_a_response_that_ended_in_the_drain_can_be_read_afterwards(upstream: Upstream) -> None:
    with sync.open_runtime(upstream.config) as rt:
        stream = rt.stream("Hi.", model="fake/slow")
        with stream:
            pieces = stream.text()
            text = next(pieces)
            rt.close()
            text += "".join(pieces)
    assert text.endswith("twelve")
    assert stream.response.content == text


def read(rt: sync.SyncRuntime) -> None:
    with rt.stream("Hi.", model="fake/silent") as stream:
        list(stream)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_interrupt_ends_the_call(upstream: Upstream, streamed: bool) -> None:
    with sync.open_runtime(upstream.config) as rt:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            read(rt) if streamed else rt.chat("Hi.", model="fake/silent")
        timer.join()
        signal.signal(signal.SIGINT, before)
        assert upstream.is_left()
        assert rt.chat("Hi.", model="fake/m").content == "You said: Hi."


def test_an_awaited_judge_is_refused_in_words(upstream: Upstream) -> None:
    async def judge(responses: object) -> int:
        return 0

    with sync.open_runtime(upstream.config) as rt, pytest.raises(TypeError, match="judge must be a plain function"):
        rt.collaborate("Hi.", members=["fake/m"], judge=judge)


def test_a_bad_configuration_is_its_own_error() -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        sync.open_runtime("none.toml")


FORK = """
import os, sys
from llm_runtime import Config, LLMProvider, Provider, sync
config = Config(providers={"a": Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url="http://127.0.0.1:9/v1")})
rt = sync.open_runtime(config)
pid = os.fork()
if pid == 0:
    try:
        rt.chat("Hi.", model="a/m")
    except RuntimeError as exc:
        print(exc, flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
rt.close()
print("parent")
"""


def test_a_fork_is_told_to_open_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, timeout=30, check=True, text=True)
    assert done.stdout == "a runtime does not survive a fork: open another one in this process\nparent\n"
