"""Where the vision sinks are, and how answers relate to them: the analysis behind `eval/sinks.py`.

The modules record observations and compute numbers, figures and the page. Answers come from the
benchmarks' runs.
"""
