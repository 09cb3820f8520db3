"""Changes to the program under test: its decoder crashes on request, and it counts its tasks.

    python -m bench._storm.sabotage serve …      the daemon, with both

For each line on its stdin, the daemon prints the number of its Trio tasks on stdout.
"""

from __future__ import annotations

import gc
import sys
import threading

import trio

from bench._storm.provider import CRASH_MARK
from llm_protocol.codec.sse import ServerSentEvent
from llm_protocol.wires.openai_chat.stream import OpenAIChatDecoder


def break_decoder() -> None:
    """A bug as anybody could write it: an exception for one answer in the middle of its stream."""
    take = OpenAIChatDecoder.take

    def crashing(self: OpenAIChatDecoder, piece: ServerSentEvent) -> None:
        if CRASH_MARK in piece.data:
            raise RuntimeError("this decoder was sabotaged")
        take(self, piece)

    setattr(OpenAIChatDecoder, "take", crashing)  # noqa: B010 - for mypy a method is not assigned to


def tasks() -> int:
    """Trio tasks of this process that have not ended."""
    gc.unfreeze()  # the daemon hides from the collector what was there when it began
    gc.collect()
    return sum(type(each) is trio.lowlevel.Task and each.coro.cr_frame is not None for each in gc.get_objects())


def _tell_tasks() -> None:
    for _ in sys.stdin:
        print(tasks(), flush=True)


if __name__ == "__main__":
    from llm_runtime.cli import main

    break_decoder()
    threading.Thread(target=_tell_tasks, daemon=True).start()
    sys.exit(main())
