"""A scenario of three actors, cancelled at each of its checkpoints and broken at each of its awaits.

A client asks a front actor, which reserves with a limiter (one at a time) and then works with a provider (concurrently)
over a stream. Whatever happens, the limiter's books end balanced and nothing is left.
"""

# ruff: noqa: ASYNC105  (awaits go through a fuse)

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeAlias, TypeVar, assert_never

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from llm_actors.kernel import (
    Backoff,
    Call,
    Cast,
    ChildSpec,
    Delivery,
    Inbox,
    Intensity,
    KernelError,
    Previous,
    Ref,
    Supervisor,
    running,
    serve,
    serve_concurrently,
    task_child,
)
from llm_actors.testing import Fuse, alone, cancel_at_every_checkpoint, nothing_left, raise_at_every_await, run_virtual
from support.actors import Ask

T = TypeVar("T")


class Reserve(Call[int], frozen=True):
    pass


class Settle(Cast, frozen=True):
    lease: int


class Audit(Call[int], frozen=True):
    """How many leases are out."""


class Fetch(Call[bytes], frozen=True):
    pass


class Work(Call[bytes], frozen=True):
    number: int


async def sound(awaitable: Awaitable[T]) -> T:
    """Let every await pass."""
    return await awaitable


LimiterMessage: TypeAlias = "Reserve | Settle | Audit"


class Limiter:
    """Hands out leases; `books` is what is out, kept by the test over all incarnations."""

    def __init__(self, books: set[int], fuse: Fuse) -> None:
        self._books = books
        self._fuse = fuse

    async def run(self, inbox: Inbox[LimiterMessage], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve(inbox, self._handle)

    async def _handle(self, delivery: Delivery[LimiterMessage]) -> None:
        match delivery.message:
            case Reserve() as message:
                await self._fuse(trio.sleep(0.1))
                lease = max(self._books, default=0) + 1
                if delivery.reply(message, lease):
                    self._books.add(lease)
            case Settle(lease):
                self._books.discard(lease)
            case Audit() as message:
                delivery.reply(message, len(self._books))
            case _ as never:
                assert_never(never)


class Provider:
    """Reads one answer from a stream, several calls at once."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse

    async def run(self, inbox: Inbox[Fetch], *, task_status: trio.TaskStatus[None]) -> None:
        await self._fuse(trio.lowlevel.checkpoint())
        task_status.started()
        await serve_concurrently(inbox, self._handle, slots=2)

    async def _handle(self, delivery: Delivery[Fetch]) -> None:
        ours, theirs = memory_stream_pair()
        async with ours, trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, theirs)
            data = await self._fuse(ours.receive_some())
        delivery.reply(delivery.message, bytes(data))

    async def _answer(self, stream: trio.abc.Stream) -> None:
        async with stream:
            await self._fuse(trio.sleep(0.1))
            await self._fuse(stream.send_all(b"answer"))


class Front:
    def __init__(self, limiter: Ref[LimiterMessage], provider: Ref[Fetch], fuse: Fuse) -> None:
        self._limiter, self._provider, self._fuse = limiter, provider, fuse

    async def run(self, inbox: Inbox[Work], *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await serve_concurrently(inbox, self._handle, slots=2)

    async def _handle(self, delivery: Delivery[Work]) -> None:
        lease = await self._fuse(self._limiter.call(Reserve()))
        try:
            answer = await self._fuse(self._provider.call(Fetch()))
        finally:
            self._limiter.cast(Settle(lease))
        delivery.reply(delivery.message, answer)


class Books:
    """One run of the scenario: three clients, three actors."""

    def __init__(self) -> None:
        self.out: set[int] = set()
        self.still_out: int | None = None
        self.answers: list[bytes] = []
        self.errors: list[Exception] = []

    async def play(self, fuse: Fuse, clients: trio.CancelScope) -> None:
        """Run the tree, and in `clients` those who ask; then count what is out."""
        limiter = ChildSpec("limiter", lambda _: Limiter(self.out, fuse))
        provider = ChildSpec("provider", lambda _: Provider(fuse))
        root: Supervisor

        def make_front(_: Previous) -> Front:
            return Front(root.ref(limiter), root.ref(provider), fuse)

        front = ChildSpec("front", make_front)
        root = Supervisor([limiter, provider, front], intensity=Intensity(20, 30.0), backoff=Backoff.none())
        async with running(root):
            with clients:
                async with trio.open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(self._ask, root.ref(front), number)
            await wait_all_tasks_blocked()  # a worker whose caller has gone may still be cleaning up
            self.still_out = await root.ref(limiter).call(Audit())

    async def _ask(self, front: Ref[Work], number: int) -> None:
        try:
            self.answers.append(await front.call(Work(number)))
        except KernelError as exc:
            self.errors.append(exc)


def test_a_tree_cancelled_at_every_checkpoint_leaves_nothing() -> None:
    """For every k: all tasks end, within their bounds, and no answer is half an answer."""
    runs: list[Books] = []

    async def scenario(scope: trio.CancelScope) -> None:
        runs.append(Books())
        with scope:
            await runs[-1].play(sound, trio.CancelScope())

    steps = cancel_at_every_checkpoint(scenario)
    whole, *cut = runs
    assert whole.answers == [b"answer"] * 3
    assert whole.still_out == 0
    assert len(cut) == steps > 50
    assert all(set(run.answers) <= {b"answer"} for run in cut)


def test_clients_cancelled_at_every_checkpoint_leave_balanced_books() -> None:
    """For every k: the tree lives on, nothing is answered after the cancel, and no lease stays out."""
    runs: list[Books] = []

    async def scenario(scope: trio.CancelScope) -> None:
        runs.append(Books())
        await runs[-1].play(sound, scope)

    steps = cancel_at_every_checkpoint(scenario)
    assert len(runs) == steps + 1
    assert {run.still_out for run in runs} == {0}
    assert min(len(run.answers) for run in runs) == 0


def test_an_exception_at_every_await_is_a_typed_error_and_leaves_nothing() -> None:
    """Whatever await of whatever actor breaks: each caller has an answer or a typed error, and the books balance."""
    runs: list[Books] = []

    async def scenario(fuse: Fuse) -> None:
        runs.append(Books())
        try:
            await runs[-1].play(fuse, trio.CancelScope())
        except* KernelError as group:  # a provider that does not come up is an error of the tree's starter
            runs[-1].errors.extend(exc for exc in group.exceptions if isinstance(exc, KernelError))

    awaits = raise_at_every_await(scenario)
    assert awaits > 15
    for run in runs[1:]:
        assert run.errors
        assert run.still_out in {0, None}
        assert len(run.answers) + len(run.errors) == 3 or run.still_out is None
        assert set(run.answers) <= {b"answer"}


async def test_every_public_coroutine_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Also when there is nothing to wait for."""

    class Quick:
        async def run(self, inbox: Inbox[Ask], *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await serve(inbox, self._handle)

        async def _handle(self, delivery: Delivery[Ask]) -> None:
            delivery.reply(delivery.message, 1)

    async def brief(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async with alone(Quick()) as lone:
        with assert_checkpoints():
            await lone.ref.call(Ask())
    async with running(Supervisor(max_children=1)) as root:
        with assert_checkpoints():
            await root.start_child(task_child("a", brief))
        with assert_checkpoints():
            await root.stop_child("a")
        with root.bus.subscribe() as events:
            await root.start_child(task_child("a", brief))
            with assert_checkpoints():
                await anext(aiter(events))


@pytest.mark.parametrize("seed", range(10))
def test_the_scenario_runs_in_any_order_of_tasks(seed: int) -> None:
    async def scenario() -> Books:
        books = Books()
        async with nothing_left():
            await books.play(sound, trio.CancelScope())
        return books

    books = run_virtual(scenario, seed=seed)
    assert books.answers == [b"answer"] * 3
    assert books.still_out == 0
