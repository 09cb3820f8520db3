"""The tests' server of HTTP/2 loses nothing when a reader is cancelled, as a `Peer` does at the end of each script."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from support.http2_side import Http2Side

WINDOW = 100


@pytest.mark.parametrize("cancelled", ["waiting to send", "when it may send"])
async def test_the_window_that_a_cancelled_reader_gave_back_is_told(autojump_clock: MockClock, cancelled: str) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    near, far = memory_stream_pair()
    side = Http2Side(far)

    async def tell_client() -> list[type[h2.events.Event]]:
        return [type(event) for event in client.receive_data(bytes(await near.receive_some()))]

    side.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
    await side.flush()
    await tell_client()
    client.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a")])
    client.send_data(1, bytes(WINDOW))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.receive_some)
        await wait_all_tasks_blocked()
        async with side.sending:
            await near.send_all(client.data_to_send())
            await wait_all_tasks_blocked()
            if cancelled == "waiting to send":
                nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        with trio.fail_after(1):
            assert await side.receive_some()
            nursery.start_soon(side.receive_some)
            while h2.events.WindowUpdated not in await tell_client():
                pass
        assert client.local_flow_control_window(1) == WINDOW
        nursery.cancel_scope.cancel()
