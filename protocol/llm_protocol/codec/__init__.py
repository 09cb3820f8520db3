"""Encoding and decoding shared by all wires. No I/O."""
