"""CHAIR: the objects that captions mention although they are not in the picture.

Captions are read, analyzed and compared with COCO's annotations. The command is `eval/chair.py`.
"""
