"""Question files about rendered scenes, each in the layout that its benchmark is published in.

A layout is a function from scenes and a seed to files: text, bytes, or a picture to copy. Labels
are exact, since scenes say what is in them.
"""
