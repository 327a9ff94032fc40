"""HallusionBench: yes/no questions about figures, of which some were edited so the answer changes.

What is right together counts: all about a figure, or a question under all figures. The official
board's numbers, which need a judge's verdicts, are computed from those that the user has.
"""
