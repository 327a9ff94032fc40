"""The benchmarks: data in, numbers out, and no model.

Each is one file, or a folder where it needs several.
"""
