"""POPE: yes/no questions about objects.

Question files are read and built here, and answers are read three published ways.
"""
