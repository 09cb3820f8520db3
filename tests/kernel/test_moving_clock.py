"""The clock of `llm_actors.testing` that moves."""

from __future__ import annotations

import trio

from llm_actors.testing import MovingClock


def test_it_moves_between_readings_and_jumps_over_waits() -> None:
    async def main() -> list[float]:
        seen = [trio.current_time(), trio.current_time()]
        await trio.sleep(100)
        seen.append(trio.current_time())
        with trio.move_on_after(5) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        return [*seen, trio.current_time()]

    first, second, later, last = trio.run(main, clock=MovingClock())
    assert 0 < first < second < 0.001
    assert 100 < later < 100.001
    assert 105 < last < 105.001
