"""HallusionBench: yes/no questions about figures, some of which were edited to change the answer.

Answers are scored in groups: all questions about a figure, or a question about all figures. The
official leaderboard's numbers need a judge's verdicts, which the user provides.
"""
