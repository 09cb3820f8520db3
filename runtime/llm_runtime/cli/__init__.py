"""The command line. Each command is a module, which is imported only when the command is run."""

from llm_runtime.cli.main import main

__all__ = ["main"]
