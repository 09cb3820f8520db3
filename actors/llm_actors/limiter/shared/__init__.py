"""Limits that several processes share through Redis."""
