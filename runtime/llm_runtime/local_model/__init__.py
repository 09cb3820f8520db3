"""The embedded default: a small model in a separate process, behind an ordinary OpenAI-compatible provider.

With it, the first command of a new user streams a real completion without any key. It consists of two packages: the
model's file (`files`) and llama.cpp's server (`child`). Neither is ever imported into this process. `engine_spec` is
the actor that keeps the process running.
"""

from llm_runtime.local_model.engine import LocalModelEngine, engine_spec
from llm_runtime.local_model.files import ENGINE, MODEL, find_model, is_installed

__all__ = ["ENGINE", "MODEL", "LocalModelEngine", "engine_spec", "find_model", "is_installed"]
