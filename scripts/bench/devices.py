"""The flag that names a device."""

from __future__ import annotations

import argparse

import torch


def device_of(text: str) -> torch.device:
    """Return the device that a flag names.

    Raises:
        argparse.ArgumentTypeError: If this machine does not have the device.
    """
    try:
        device = torch.device(text)
        known = device.type == "cpu" or (
            device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
        )
    except RuntimeError:
        known = False
    if known:
        return device
    raise argparse.ArgumentTypeError(
        f"{text!r:.60} is not a device of this machine; it has the cpu and "
        f"{torch.cuda.device_count()} CUDA GPUs (cuda:0, ...)"
    )
