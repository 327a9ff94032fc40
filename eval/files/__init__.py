"""Files in and out: JSON lines, COCO annotations, pictures, and writing without half-written files.

Nothing here knows of models, tasks or runs.
"""
