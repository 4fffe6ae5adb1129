"""The one exception of this package whose text is meant for the person at the command line."""


class EvaluationError(Exception):
    """A request that cannot be carried out; its text is one sentence that says what to change."""
