"""How many workers Ray starts for a simulation."""


def workers(cpus: int, gpus: int, num_cpus: float, num_gpus: float) -> int:
    """Return how many clients fit on a machine at a time, each in a worker of its own.

    Flower starts as many, however few clients train in a round.

    Parameters
    ----------
    cpus, gpus : int
        What the machine has.
    num_cpus, num_gpus : float
        What one client gets.
    """
    fitting = int(cpus / num_cpus)
    return min(fitting, int(gpus / num_gpus)) if num_gpus > 0 else fitting
