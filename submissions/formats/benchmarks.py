"""The benchmark datasets of the hub to which results belong: one for each challenge.

Hugging Face takes a dataset with an eval.yaml for a benchmark, and puts the results of models that
name it on its page. An organizer makes these datasets; results name them.
"""

OWNER = "flwrlabs"


def dataset(challenge: str, owner: str = OWNER) -> str:
    """Return the hub id of a challenge's benchmark dataset; its tasks are the evaluation sets."""
    return f"{owner}/flowertune-{challenge}"
