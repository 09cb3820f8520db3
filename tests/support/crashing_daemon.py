"""The daemon with an actor that crashes, as a process: ``crashing_daemon.py WHERE EVERY FILE serve --config …``.

The faults come from `llm_actors.testing`, around the unchanged command; the daemon itself has no switch for them. They
end when ``FILE`` is there.
"""

import sys
import threading
import time
from pathlib import Path

from llm_actors.testing import Crashes, crashing
from llm_runtime.cli import main


def stop_when_told(crashes: Crashes, file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)
    crashes.stop()


if __name__ == "__main__":
    where, every, file, *arguments = sys.argv[1:]
    with crashing(where, int(every)) as crashes:
        threading.Thread(target=stop_when_told, args=(crashes, Path(file)), daemon=True).start()
        sys.exit(main(arguments))
