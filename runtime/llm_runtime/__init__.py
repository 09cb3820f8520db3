"""How it lives."""
