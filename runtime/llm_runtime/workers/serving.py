"""The start of a daemon of several workers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio

from llm_runtime.config import Config, ConfigError
from llm_runtime.server.actors import address_of
from llm_runtime.server.listener import CannotListenError, listen, removed_after
from llm_runtime.systemd import Notifier
from llm_runtime.workers.parent import WorkersParent
from llm_runtime.workers.place import make_folder, remove_folder
from llm_runtime.workers.reloads import Copies


async def serve_with_workers(
    ready: Callable[[str], None],
    *,
    file: str | None,
    read: Callable[[str | None], Config],
    inherited: Sequence[socket.socket],
    environ: Mapping[str, str],
) -> int:
    """Serve with as many workers as configured, and return the exit code. ``ready`` is called with the URL once all
    of them accept requests. ``read`` reads a copy of the configuration ``file``; it blocks. ``inherited`` are sockets
    to listen on instead of the configured address. Raises `ConfigError` if the daemon cannot start.
    """
    folder = make_folder(environ)
    try:
        copies = Copies(file, folder, read)
        copy, config = await trio.to_thread.run_sync(copies.take)
        copies.accept(copy)
        listeners = list(inherited) or await _listening(config)
        address = address_of(config.server, listeners[0], inherited=bool(inherited))
        with removed_after(None if inherited else config.server.unix):
            try:
                parent = WorkersParent(
                    config, listeners, folder, copies, environ, Notifier(environ), partial(ready, address.url)
                )
                return await parent.run()
            finally:
                for listener in listeners:
                    listener.close()
    finally:
        remove_folder(folder)


async def _listening(config: Config) -> list[socket.socket]:
    try:
        return await listen(config.server)
    except CannotListenError as exc:
        raise ConfigError(str(exc)) from exc
