"""CHAIR: which objects captions name that are not in the picture.

Captions are read, analyzed and compared with COCO's annotations; `eval/chair.py` is the command.
"""
