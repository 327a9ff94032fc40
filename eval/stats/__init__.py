"""Uncertainty of metrics: bootstrap intervals, paired differences and tests.

The input is counts per picture, of any benchmark.
"""
