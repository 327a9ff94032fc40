"""What can go wrong when a model is loaded."""


class ModelError(ValueError):
    """A model, checkpoint, protocol or device that does not exist or does not fit."""


def printable(text: object) -> str:
    """Return text from outside without what would break a line or steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
