"""Rendered scenes of COCO categories, and tiny-llava, the model that is trained on them.

`make.py` writes scenes in COCO's layout, `questions.py` question files about them in the layouts of
benchmarks, and `train_tiny.py` trains the model; the other modules are parts of the three.
"""
