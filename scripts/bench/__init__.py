"""Measurements of time and memory.

`costs.py` measures EAH in layers, models and evaluations, `peers.py` this project and lmms-eval,
`opera.py` OPERA's search, `judge.py` the judge's workers, `loading.py` the loading of checkpoints,
and `drop_in.py` the swapped file; `summary.py` makes the table of `benchmarks/README.md`. The other
modules are parts of `costs.py` and `peers.py`.
"""
