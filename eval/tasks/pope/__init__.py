"""POPE: yes/no questions about objects in pictures of COCO and other data sets; RePOPE's labels.

Question files are read and built here; answers are read and counted in `eval/tasks/yes_no`.
"""
