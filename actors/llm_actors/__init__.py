"""The actor kernel and the actors of the runtime."""
