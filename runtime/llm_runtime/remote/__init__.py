"""A runtime in a daemon, with the methods of one in this process: `llm_runtime.connect`."""
