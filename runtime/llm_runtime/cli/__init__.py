"""The command line. Each command is a module of its own, imported only when that command is run."""

from llm_runtime.cli.main import main

__all__ = ["main"]
