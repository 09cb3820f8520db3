"""What only asyncio has: task cancellation, timeouts, loops that are blocked or closed, task groups, anyio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import llm_runtime
from hosts.conftest import Upstream
from llm_runtime import ConfigError, LLMClientError, Policy, aio
from llm_runtime.hosts.asyncio_loop import Waiters

PROMPT_SECONDS = 1.0
"""Well under the vendor's silence, on a machine that does other things."""


async def whole(rt: aio.AsyncioRuntime) -> object:
    return await rt.chat("Hi.", model="fake/silent")


async def opened(rt: aio.AsyncioRuntime) -> object:
    async with rt.stream("Hi.", model="fake/silent") as stream:
        async for _ in stream:
            pass
    return None


async def between(rt: aio.AsyncioRuntime) -> object:
    async with rt.stream("Hi.", model="fake/slow") as stream:
        async for _ in stream:
            await asyncio.sleep(0.01)
    return None


@pytest.mark.parametrize("ask", [whole, opened, between])
@pytest.mark.parametrize("after", [0, 0.001, 0.01, 0.1])
def test_a_cancelled_task_ends_its_call_at_the_vendor(
    upstream: Upstream, ask: Callable[[aio.AsyncioRuntime], Awaitable[object]], after: float
) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            task = asyncio.ensure_future(ask(rt))
            await asyncio.sleep(after)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < PROMPT_SECONDS
            assert upstream.is_left()

    asyncio.run(main())


def test_a_timeout_is_a_timeout(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await whole(rt)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(opened(rt), 0.1)
            assert (await rt.chat("Hi.", model="fake/m")).content == "You said: Hi."

    asyncio.run(main())


def test_a_cancelled_block_ends_its_calls_at_once(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt, asyncio.timeout(0.2):
            await asyncio.gather(*(whole(rt) for _ in range(10)))

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - began < 5
    assert upstream.is_left()


def test_many_streams_at_once_are_whole(upstream: Upstream) -> None:
    async def main() -> None:
        async def one() -> str:
            async with rt.stream("Hi.", model="fake/slow") as stream:
                return "".join([piece async for piece in stream.text()])

        async with aio.open_runtime(upstream.config) as rt:
            texts = await asyncio.gather(*(one() for _ in range(50)))
        assert set(texts) == {"one two three four five six seven eight nine ten eleven twelve"}

    asyncio.run(main())


def test_a_blocked_loop_loses_nothing(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt, rt.stream("Hi.", model="fake/slow") as stream:
            pieces = []
            async for piece in stream.text():
                pieces.append(piece)
                if len(pieces) == 1:
                    time.sleep(1)  # noqa: ASYNC251 - the mistake that is tested
            assert "".join(pieces) == stream.response.content
            assert len(pieces) < len(stream.response.content) / 4, "what waited came joined"

    asyncio.run(main())


def test_a_loop_that_dies_leaves_no_call(upstream: Upstream) -> None:
    async def main() -> None:
        manager = aio.open_runtime(upstream.config)
        rt = await manager.__aenter__()
        kept.append((manager, rt))
        task = asyncio.get_running_loop().create_task(whole(rt))
        await asyncio.sleep(0.1)
        kept.append(task)

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.set_exception_handler(lambda *_: None)
    kept.pop().cancel()
    loop.close()
    portal = kept.pop()[1]._portal
    portal.stop(at_once=True)
    assert portal.join(10)
    assert upstream.is_left()


def test_an_awaited_judge_runs_in_the_loop(upstream: Upstream) -> None:
    async def judge(responses: Any) -> int:
        await asyncio.sleep(0)
        return len(responses) - 1

    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            policy = Policy(strategy="best_of", samples=2)
            assert len(await rt.collaborate("Hi.", members=["fake/m"], judge=judge, policy=policy)) == 1

    asyncio.run(main())


def test_a_runtime_belongs_to_its_loop(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            errors = []

            def elsewhere() -> None:
                try:
                    asyncio.run(rt.chat("Hi."))
                except RuntimeError as exc:
                    errors.append(str(exc))

            await asyncio.to_thread(elsewhere)
            assert errors == ["this runtime was opened in another event loop; open one per loop"]

    asyncio.run(main())


def test_a_bad_configuration_is_its_own_error(tmp_path: Any) -> None:
    async def main() -> None:
        async with aio.open_runtime(tmp_path / "none.toml"):
            raise AssertionError

    with pytest.raises(ConfigError, match=r"none\.toml"):
        asyncio.run(main())


def test_what_the_block_raises_comes_out(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())


def test_on_the_wrong_loop_the_error_names_the_right_module() -> None:
    async def main() -> None:
        async with llm_runtime.open_runtime():
            pass

    with pytest.raises(RuntimeError, match=r"runs on Trio; on asyncio, use llm_runtime\.aio\.open_runtime;"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match=r"without an event loop, llm_runtime\.sync\.open_runtime$"):
        main().send(None)

    async def on_trio() -> None:
        async with aio.open_runtime():
            pass

    with pytest.raises(RuntimeError, match=r"llm_runtime.aio runs on asyncio; on Trio, use llm_runtime.open_runtime"):
        trio.run(on_trio)


def test_closing_waits_for_what_is_in_hand(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            task = asyncio.create_task(rt.chat("Hi.", model="fake/slow"))
            await asyncio.sleep(0.05)
        assert (await task).content.startswith("one")
        with pytest.raises(LLMClientError, match="the runtime is not open"):
            await rt.chat("Hi.", model="fake/m")

    asyncio.run(main())


def test_nothing_is_left(upstream: Upstream) -> None:
    async def main() -> None:
        async with aio.open_runtime(upstream.config) as rt:
            await rt.chat("Hi.", model="fake/m")

    for _ in range(3):
        asyncio.run(main())
    assert [each.name for each in threading.enumerate() if each.name == "llm-runtime"] == []


UNCLOSED = """
import asyncio
from llm_runtime import Config, LLMProvider, Provider, aio, sync
provider = Provider(kind=LLMProvider.OPENAI_COMPATIBLE, base_url="http://127.0.0.1:9/v1", models=("m",))
config = Config(providers={"a": provider})
rt = sync.open_runtime(config)
async def main():
    global kept
    kept = aio.open_runtime(config)
    await kept.__aenter__()
asyncio.run(main())
print("ends")
"""


def test_a_program_that_closes_nothing_ends() -> None:
    done = subprocess.run([sys.executable, "-c", UNCLOSED], capture_output=True, timeout=30, check=True, text=True)
    assert done.stdout == "ends\n"
    assert done.stderr == ""


def test_a_function_of_the_host_whose_task_never_begins_fails_its_request(upstream: Upstream) -> None:
    """As when the program cancels all of its tasks."""

    async def careful(request: llm_runtime.AnyRequest, proceed: llm_runtime.Next) -> llm_runtime.LLMResponse:
        raise AssertionError

    def cancelled(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        if coro.__name__ == "act":
            task.cancel()
        return task

    async def main() -> None:
        async with aio.open_runtime(upstream.config, middleware=[careful]) as rt:
            asyncio.get_running_loop().set_task_factory(cancelled)
            with pytest.raises(RuntimeError, match="the event loop of the program cancelled the call"):
                await asyncio.wait_for(rt.chat("Hi.", model="fake/m"), 5)

    asyncio.run(main())


def test_a_task_that_gave_up_waiting_is_forgotten() -> None:
    async def main() -> None:
        waiters = Waiters(asyncio.get_running_loop())
        given_up = [weakref.ref(waiters.wait()) for _ in range(3)]
        for each in given_up:
            if (future := each()) is not None:
                future.cancel()
        future = waiters.wait()
        assert [each() for each in given_up] == [None] * 3
        waiters.wake()
        assert future.done()

    asyncio.run(main())
