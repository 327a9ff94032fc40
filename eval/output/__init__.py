"""What people see: tables and pages.

Templates of the pages are in `templates/`.
"""
