"""Files in and out: JSON, tables, COCO annotations, pictures, and writing without half-written files.

Nothing here knows of tasks or runs. Pictures are converted by the rule of the models.
"""
