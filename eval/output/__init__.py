"""Output for people: tables and pages.

Templates of the pages are in `templates/`.
"""
