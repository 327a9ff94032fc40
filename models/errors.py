"""What can go wrong when a model is loaded."""


class ModelError(ValueError):
    """A model, checkpoint, protocol or device that does not exist or does not fit."""
