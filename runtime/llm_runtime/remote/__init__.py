"""A client for a runtime in a daemon, with the methods of a runtime in this process: `llm_runtime.connect`."""
