"""The local model's own process: llama.cpp's OpenAI-compatible server on loopback. Run as a script by
`LocalModelEngine`.

    python child.py MODEL_FILE NAME SLOTS THREADS

Prints ``listening URL`` on stdout, then nothing more. Ends when stdin ends, however its parent ended. The model has a
separate process because its generating threads never release a core, and because a crash of native code ends the
whole process.
"""

from __future__ import annotations

import importlib
import os
import sys

CONTEXT_TOKENS = 8192
"""The context length with which the model was trained, in tokens. All slots share it. A token takes 23 KB of memory."""

ANSWER_TOKENS = 1024
"""The most tokens of a response if the request sets no limit, because such a small model does not always stop by
itself.
"""

TEMPERATURE, TOP_P, REPEAT_PENALTY = 0.2, 0.9, 1.1
"""The default sampling parameters, as advised by the makers of the model. The penalty prevents endless repetition."""


def main(model: str, name: str, slots: int, threads: int) -> None:
    """Serve until stdin ends."""
    # The native code writes to stdout. Keep the real stdout for our one line, and let the native code write to stderr.
    address = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    xllamacpp = importlib.import_module("xllamacpp")  # the package has no types
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
    params.verbosity = 1  # errors only: other log lines may contain prompts
    server = xllamacpp.Server(params)
    address.write(f"listening {server.listening_address}\n")
    address.close()
    while sys.stdin.buffer.read(1024):
        pass
    os._exit(0)  # the server's own threads do not end


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
