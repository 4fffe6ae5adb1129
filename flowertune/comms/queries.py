"""Names of the questions that a server asks its clients before training."""

LENGTHS, INITIAL = "query.lengths", "query.initial"
