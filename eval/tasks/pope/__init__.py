"""POPE: yes/no questions about objects, in COCO's pictures and others; RePOPE's labels.

Question files are read and built here; answers are read and counted in `eval/tasks/yes_no`.
"""
