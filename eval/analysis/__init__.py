"""Where the vision sinks are, and what goes with them: the analysis behind `eval/sinks.py`.

Here are records of what was observed, numbers, figures and the page. Nothing here answers a
question: answers are those of the benchmarks' runs.
"""
