"""What a call costs: the round trip of an actor, compared with a memory channel and a reply channel in the same run.

Rounds are interleaved, so that other load slows both alike. The result is the ratio of the medians.
"""

from __future__ import annotations

import time
from statistics import median

import trio

from llm_actors.kernel import Call, ChildSpec, Delivery, Inbox, Supervisor, running, serve, serve_concurrently

ROUNDS = 15
CALLS = 2000
BUDGET = 2.5
"""A call may cost so many bare round trips, served one at a time."""

Reply = trio.MemorySendChannel[int]


class Echo(Call[int], frozen=True):
    number: int


class Echoing:
    """Answers with the number; one at a time, or in up to `slots` tasks."""

    def __init__(self, slots: int) -> None:
        self._slots = slots

    async def run(self, inbox: Inbox[Echo], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._slots > 1:
            await serve_concurrently(inbox, self._handle, slots=self._slots)
        else:
            await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[Echo]) -> None:
        delivery.reply(delivery.message, delivery.message.number)


def _echoing(name: str, slots: int) -> ChildSpec[Echo]:
    return ChildSpec(name, lambda _: Echoing(slots))


async def _bare_server(requests: trio.MemoryReceiveChannel[tuple[int, Reply]]) -> None:
    async for number, reply in requests:
        await reply.send(number)


async def _bare_round(requests: trio.MemorySendChannel[tuple[int, Reply]]) -> float:
    begin = time.perf_counter()
    for number in range(CALLS):
        reply, answer = trio.open_memory_channel[int](1)
        await requests.send((number, reply))
        await answer.receive()
    return (time.perf_counter() - begin) / CALLS


async def _call_round(supervisor: Supervisor, name: str) -> float:
    ref = supervisor.ref(name)
    begin = time.perf_counter()
    with trio.fail_after(60):
        for number in range(CALLS):
            await ref.call(Echo(number))
    return (time.perf_counter() - begin) / CALLS


async def measure() -> dict[str, float]:
    """Return the median seconds per round trip of each kind."""
    kinds = {"one at a time": 1, "concurrent": 8}
    root = Supervisor([_echoing(name, slots) for name, slots in kinds.items()])
    times: dict[str, list[float]] = {"bare": [], **{name: [] for name in kinds}}
    requests, receive = trio.open_memory_channel[tuple[int, Reply]](64)
    async with trio.open_nursery() as nursery, running(root):
        nursery.start_soon(_bare_server, receive)
        for _ in range(ROUNDS):
            times["bare"].append(await _bare_round(requests))
            for name in kinds:
                times[name].append(await _call_round(root, name))
        requests.close()
    return {name: median(rounds) for name, rounds in times.items()}


def main() -> int:
    """Print the costs and the ratios; 1 when a call costs more than `BUDGET` bare round trips."""
    cost = trio.run(measure)
    for name, seconds in cost.items():
        print(f"{name:15} {seconds * 1e6:7.1f} us   {seconds / cost['bare']:5.2f} x")
    kept = cost["one at a time"] <= BUDGET * cost["bare"]
    print(f"budget {BUDGET} x: {'kept' if kept else 'exceeded'}")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
