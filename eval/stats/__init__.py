"""How sure a number is: bootstrap intervals, paired differences and tests.

What comes in are counts per picture, whatever benchmark they are of.
"""
