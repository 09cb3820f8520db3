"""The command line. Each command lives in its own module, imported when it is the one that was asked for."""

from llm_runtime.cli.main import main

__all__ = ["main"]
