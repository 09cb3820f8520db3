"""The front door of the daemon: one port, HTTP/1.1 and WebSocket, every vendor's clients."""

from llm_runtime.door.door import Address, front_door
from llm_runtime.door.engine import Engine
from llm_runtime.door.listener import CannotListenError

__all__ = ["Address", "CannotListenError", "Engine", "front_door"]
