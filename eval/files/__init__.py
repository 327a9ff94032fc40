"""Files in and out: JSON, tables, COCO annotations, pictures; nothing is ever half written.

Nothing here knows of tasks or runs. Pictures are converted by the rule of the models.
"""
