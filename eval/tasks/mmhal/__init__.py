"""MMHal-Bench: 96 open questions about pictures, whose answers a judge rates from 0 to 6.

`task.py` asks a model; the other files rate answers of any origin with the judge.
"""
