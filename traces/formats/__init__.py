"""Readers of trace formats: each takes sources and options, and gives a `Trace`. Pure: bytes in, rows out."""
