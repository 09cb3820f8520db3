"""State that outlives an incarnation: handed over after a clean stop, the last checkpoint after a crash."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_actors.kernel import (
    Call,
    Cast,
    ChildSpec,
    Delivery,
    Inbox,
    Previous,
    Strategy,
    Supervisor,
    running,
    serve,
)
from llm_actors.testing import alone
from support.actors import NO_WAIT, Ask, Count, CrashCast, Leave, member


class Transfer(Cast, frozen=True):
    amount: int
    crash: bool = False


class Books(Call[tuple[int, int]], frozen=True):
    pass


class Accounts:
    """Two balances whose sum is zero; a transfer writes one, then the other."""

    def __init__(self, previous: Previous) -> None:
        self.left = self.right = 0
        if isinstance(previous, Count):
            self.left, self.right = previous.value, -previous.value

    async def run(self, inbox: Inbox[Transfer | Books | Leave], *, task_status: trio.TaskStatus[None]) -> Count | None:
        self.inbox = inbox
        task_status.started()
        async for delivery in inbox:
            match delivery.message:
                case Leave():
                    break
                case Books() as message:
                    delivery.reply(message, (self.left, self.right))
                case Transfer(amount, crash):
                    await self._transfer(amount, crash=crash)
        return Count(self.left)

    async def _transfer(self, amount: int, *, crash: bool) -> None:
        self.left += amount
        await trio.lowlevel.checkpoint()
        if crash:
            raise ValueError
        self.right -= amount
        self.inbox.checkpoint(Count(self.left))


async def test_no_half_state_is_seen_after_a_crash(autojump_clock: MockClock) -> None:
    """A crash between the two writes: the next incarnation starts from the last whole state."""
    accounts = ChildSpec("accounts", Accounts)
    root = Supervisor([accounts], backoff=NO_WAIT)
    async with running(root):
        ref = root.ref(accounts)
        ref.cast(Transfer(5))
        assert await ref.call(Books()) == (5, -5)
        for amount in (1, 2, 3):
            ref.cast(Transfer(amount, crash=True))
            assert await ref.call(Books()) == (5, -5)
        ref.cast(Transfer(2))
        assert await ref.call(Books()) == (7, -7)


async def test_what_run_returns_is_handed_over_after_a_clean_stop(autojump_clock: MockClock) -> None:
    """Both when it ends by itself and when its siblings take it along; but only once."""

    class Forgetful(Accounts):
        async def _transfer(self, amount: int, *, crash: bool) -> None:
            self.left += amount
            self.right -= amount
            if crash:
                raise ValueError

    forgetful = ChildSpec("forgetful", Forgetful)
    root = Supervisor([forgetful, member("b")], strategy=Strategy.ONE_FOR_ALL, backoff=NO_WAIT)
    async with running(root):
        ref = root.ref(forgetful)
        ref.cast(Transfer(5))
        ref.cast(Leave())
        assert await ref.call(Books()) == (5, -5)
        root.ref("b").cast(CrashCast())
        await wait_all_tasks_blocked()
        assert await ref.call(Books()) == (5, -5)
        ref.cast(Transfer(1, crash=True))
        assert await ref.call(Books()) == (0, 0)


async def test_a_failed_start_does_not_lose_what_was_handed_over(autojump_clock: MockClock) -> None:
    attempts: list[Previous] = []

    class Once:
        async def run(self, inbox: Inbox[Leave], *, task_status: trio.TaskStatus[None]) -> Count:
            if len(attempts) == 2:
                raise OSError
            task_status.started()
            await serve(inbox, self._leave)
            return Count(3)

        async def _leave(self, delivery: Delivery[Leave]) -> None:
            delivery.message  # noqa: B018  (only its arrival matters)

    def factory(previous: Previous) -> Once:
        attempts.append(previous)
        return Once()

    root = Supervisor([ChildSpec("once", factory), member("b")], strategy=Strategy.ONE_FOR_ALL, backoff=NO_WAIT)
    async with running(root):
        root.ref("b").cast(CrashCast())
        await wait_all_tasks_blocked()
    assert attempts == [None, Count(3), Count(3)]


async def test_the_kit_shows_what_would_be_handed_over() -> None:
    async with alone(Accounts(Count(4))) as lone:
        lone.ref.cast(Leave())
        await wait_all_tasks_blocked()
        assert lone.handed_over == Count(4)
        assert lone.ref.statistics().depth == 0


async def test_messages_queued_for_the_old_incarnation_reach_the_new_one(autojump_clock: MockClock) -> None:
    root = Supervisor([member("a")], backoff=NO_WAIT)
    async with running(root):
        root.ref("a").cast(Leave())
        assert await root.ref("a").call(Ask()) == 1
