"""Rendered scenes of COCO categories, and tiny-llava, the model that is trained on them.

`make.py` writes scenes in COCO's layout, and `train_tiny.py` trains the model; the other modules
are parts of the two.
"""
