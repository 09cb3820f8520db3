"""LiteLLM's proxy as a process, from an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from support.sdk import sdk_python

PACKAGES = ("litellm[proxy]>=1.80,<2",)
START_SECONDS = 300
"""It imports for long."""


@asynccontextmanager
async def litellm_proxy(config: str, folder: Path, **environ: str) -> AsyncIterator[str]:
    """The proxy with this configuration; its address."""
    python = await trio.to_thread.run_sync(lambda: sdk_python("litellm-proxy", *PACKAGES))
    file = folder / "litellm.yaml"
    file.write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(python).with_name("litellm")), "--config", str(file), "--host", "127.0.0.1"]
    bare = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = await trio.lowlevel.open_process(
        [*command, "--port", str(port), "--telemetry", "False"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**bare, "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*", **environ},
    )
    said = b""
    try:
        assert process.stdout is not None
        with trio.fail_after(START_SECONDS):
            while b"Uvicorn running on" not in said:
                piece = await process.stdout.receive_some(4096)
                assert piece, said.decode()[-3000:]
                said += piece
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stdout)
            yield f"http://127.0.0.1:{port}"
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(65536):
        pass
