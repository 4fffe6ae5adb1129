"""Reference convergence: how fast the loss of honest runs falls, and whether a run's falls faster.

As in MLPerf's reference convergence points, a run that converges faster than reference runs did is
looked at. It may be a better method; it may also have seen other rows, or begun elsewhere.
"""

from submissions.convergence.bands import Comparison, compare
from submissions.convergence.reference import Reference, published, read_reference

__all__ = ["Comparison", "Reference", "compare", "published", "read_reference"]
