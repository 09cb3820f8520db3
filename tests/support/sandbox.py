"""Runs the commands of the documentation as they stand: in a network of their own, where every port is free and nobody
else can be reached.

``python sandbox.py PLAN`` is what runs inside; the plan is JSON, see `Step`.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
READY_SECONDS = 30.0
STEP_SECONDS = 90.0


def loopback_up() -> None:
    """A new network has a loopback interface that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def run(step: dict[str, Any], number: int) -> dict[str, Any]:
    """Run one block. One that does not ``end`` is left running once it has said that it is ready."""
    out, err = Path(f"{number}.out"), Path(f"{number}.err")
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [*step["argv"], step["code"]], stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL
        )
    deadline = time.monotonic() + (STEP_SECONDS if step["ends"] else READY_SECONDS)
    while time.monotonic() < deadline and process.poll() is None:
        if not step["ends"] and "ready http" in out.read_text():
            break
        time.sleep(0.02)
    return {"code": process.poll(), "out": out.read_text(), "err": err.read_text()}


def main() -> None:
    """Run the steps of the plan, and print what came of each."""
    loopback_up()
    print(json.dumps([run(step, number) for number, step in enumerate(json.loads(Path(sys.argv[1]).read_text()))]))


if __name__ == "__main__":
    main()
