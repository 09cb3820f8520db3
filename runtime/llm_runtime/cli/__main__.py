"""``python -m llm_runtime.cli``: what ``bin/llm-runtime`` runs."""

import sys

from llm_runtime.cli.main import main

sys.exit(main())
