"""Benchmarks: POPE, with results that can be trusted and repeated."""
