"""Who does it: the actor kernel and the actors of the runtime."""
