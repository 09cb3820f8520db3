"""``python -m llm_runtime.cli``: the entry point of ``bin/llm-runtime``."""

import sys

from llm_runtime.cli import main

sys.exit(main())
