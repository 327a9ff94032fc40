"""Checks that are commands of their own, because they need a GPU, a full-size model or a wheel.

`kernel.py` compares the Triton kernels with the reference, `shapes.py` maps original tensors to a
model at its true size, and `wheel_contents.py` lists what a wheel must and must not contain.
"""
