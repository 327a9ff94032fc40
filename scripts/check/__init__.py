"""Checks that are commands: of kernels, checkpoints, wheels and prose.

`kernel.py` compares the Triton kernels with the reference, `shapes.py` maps original tensors to a
model at its true size, `prose.py` finds stilted phrases, and `wheel_contents.py` lists
what a wheel must and must not contain.
"""
