"""Figures of the analysis, each one small panel with the numbers that it shows.

matplotlib is optional and takes half a second to import: functions import it, no module does.
"""
