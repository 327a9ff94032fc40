"""Reading and writing of JSON, tables, COCO annotations and pictures; all writes are atomic.

Nothing here depends on tasks or runs. Pictures are converted by the rules of `models`.
"""
