"""The local model's own process: llama.cpp's OpenAI-compatible server on loopback. Run as a script by `Engine`.

    python child.py MODEL_FILE NAME SLOTS THREADS

Prints ``listening URL`` on stdout, then nothing more. Ends when stdin ends, however its parent died. A process of its
own, because its generating threads never let go of a core they have, and because native code that crashes takes its
process with it.
"""

from __future__ import annotations

import importlib
import os
import sys

CONTEXT_TOKENS = 8192
"""What the model was trained to; all slots share it, at 23 KB of memory a token."""

ANSWER_TOKENS = 1024
"""The longest answer where the request names no limit: a model this small does not always find an end."""

TEMPERATURE, TOP_P, REPEAT_PENALTY = 0.2, 0.9, 1.1
"""How it samples unless the request says: what its makers advise; the penalty gets it out of its loops."""


def main(model: str, name: str, slots: int, threads: int) -> None:
    """Serve until stdin ends."""
    # The native code writes where it likes: keep the real stdout for our one line, and give it stderr instead.
    address = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    xllamacpp = importlib.import_module("xllamacpp")  # it has no types
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = CONTEXT_TOKENS
    params.kv_unified = True
    params.n_predict = ANSWER_TOKENS
    params.sampling.temp = TEMPERATURE
    params.sampling.top_p = TOP_P
    params.sampling.penalty_repeat = REPEAT_PENALTY
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    params.verbosity = 1  # errors only: what it logs above that can hold prompts
    server = xllamacpp.Server(params)
    address.write(f"listening {server.listening_address}\n")
    address.close()
    while sys.stdin.buffer.read(1024):
        pass
    os._exit(0)  # the server's own threads do not end


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
