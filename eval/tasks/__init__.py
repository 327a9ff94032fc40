"""The benchmarks: they read data and compute numbers, and never load a model.

Each is one file, or a folder if it needs several.
"""
