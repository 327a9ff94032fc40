"""Run a model on questions, and store the answers in a run folder.

Contains settings and flags, arms, batches, processes and costs, but nothing of one benchmark.
"""
