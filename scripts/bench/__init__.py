"""Measurements of time and memory.

`costs.py` measures EAH in layers, models and evaluations, `opera.py` OPERA's search, `judge.py` the
judge's workers, and `drop_in.py` the swapped file; the other modules are parts of `costs.py`.
"""
