"""A real browser, driven over its debugging protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Its crash handler would be a process of its own session, which nobody ends.
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--remote-debugging-port=0",
)
START_SECONDS = 60
WAIT_SECONDS = 20
MESSAGE_BYTES = 16 * 1024 * 1024
NAVIGATED = ("Inspected target navigated or closed", "Execution context was destroyed.", "Promise was collected")
"""The browser's errors for an expression whose page was left before it had a value."""

UNTIL = """new Promise((resolve, reject) => {
  const look = () => { try { return %s } catch { return false } }
  if (look()) return resolve(true)
  const observer = new MutationObserver(() => look() && (observer.disconnect(), resolve(true)))
  observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true})
})"""


class PageLeftError(Exception):
    """The page was left before the expression had a value."""


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """A browser of its own; the address at which it is driven."""
    assert BINARY is not None
    command = [BINARY, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            too_late = threading.Timer(START_SECONDS, process.kill)
            too_late.start()
            found = next(line for line in process.stderr if line.startswith("DevTools listening on "))
            too_late.cancel()
            yield found.removeprefix("DevTools listening on ").strip()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its many helpers, too


class Tab:
    """One tab with cookies and a memory of its own. ``complaints``: whatever its console told as an error."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._session: str | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self.complaints: list[str] = []

    async def open(self) -> None:
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def receive(self) -> None:
        """Take what the browser says, for good."""
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                self._answers[message["id"]] = message
                self._arrived.set()
                self._arrived = trio.Event()
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(message["params"]["exceptionDetails"]["exception"]["description"])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.complaints.append(message["params"]["entry"]["text"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = len(self._answers) + 1
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_message(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        with trio.fail_after(WAIT_SECONDS):
            while number not in self._answers:
                await self._arrived.wait()
        answer = self._answers[number]
        if answer.get("error", {}).get("message") in NAVIGATED:
            raise PageLeftError
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def go(self, url: str) -> None:
        assert "errorText" not in await self.call("Page.navigate", url=url)

    async def see(self, expression: str) -> Any:
        """The value of ``expression`` in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until ``expression`` is true, which is looked at whenever the page changes. If the browser goes to
        another page meanwhile, it is looked at there.
        """
        with trio.fail_after(WAIT_SECONDS):
            while True:
                try:
                    await self.see(UNTIL % expression)
                except PageLeftError:
                    continue
                return

    async def text(self, selector: str) -> str:
        """What a reader sees of an element."""
        return str(await self.see(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def picture(self, width: int, height: int, *, dark: bool = False) -> bytes:
        """A PNG of the page as it looks in a window of this size."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])


@asynccontextmanager
async def open_tab(address: str) -> AsyncIterator[Tab]:
    """A tab of the browser at ``address``, which goes with the block."""
    async with open_websocket_url(address, max_message_size=MESSAGE_BYTES) as socket, trio.open_nursery() as nursery:
        tab = Tab(socket)
        nursery.start_soon(tab.receive)
        await tab.open()
        yield tab
        nursery.cancel_scope.cancel()
