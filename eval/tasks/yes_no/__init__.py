"""Shared code of yes/no benchmarks: reading and counting answers."""
