"""MMHal-Bench: 96 open questions about pictures, whose answers a judge rates from 0 to 6.

`task.py` has a model answer them; the other files have answers rated, whoever gave them.
"""
