"""What programs that do not run on Trio need: a thread with a runtime, and the way there and back."""
