"""Two descriptions of each picture, compared by a vision model as judge.

Prompts, requests, costs and replies are here; `eval/gpt4v_eval.py` is the command.
"""
