"""Limits shared by several processes through Redis."""
