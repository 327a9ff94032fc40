"""Compare two descriptions of each picture with a vision model as judge.

This package has the prompts, requests, costs and replies. The command is `eval/gpt4v_eval.py`.
"""
