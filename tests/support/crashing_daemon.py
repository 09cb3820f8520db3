"""The daemon with an actor that crashes, as a process: ``crashing_daemon.py WHERE EVERY SECONDS serve --config …``.

The faults come from `llm_actors.testing`, around the unchanged command; the daemon itself has no switch for them. After
``SECONDS`` the crashes are over.
"""

import sys
from threading import Timer

from llm_actors.testing import crashing
from llm_runtime.cli import main

if __name__ == "__main__":
    where, every, seconds, *arguments = sys.argv[1:]
    with crashing(where, int(every)) as crashes:
        timer = Timer(float(seconds), crashes.stop)
        timer.daemon = True
        timer.start()
        sys.exit(main(arguments))
