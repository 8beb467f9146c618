"""Vocabulary, pure functions and ports: no I/O, no asyncio, only NumPy."""
