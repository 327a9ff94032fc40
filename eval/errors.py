"""What stops an evaluation: one sentence for the person who started it."""


class EvaluationError(Exception):
    """Input, settings or a run folder that can't be used."""
