"""Support for programs that do not run on Trio: a thread with a runtime, and calls into it and back."""
