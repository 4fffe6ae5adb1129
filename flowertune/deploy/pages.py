"""Large pages of memory for the processes of a run.

Buckets of a model are copied from process to process. In pages of 4 KiB, asking the system for
fresh memory takes longer than the copy itself. Where the C library is not glibc (2.35 or later),
or the user has set its tunables, nothing changes.
"""

from collections.abc import Mapping

NAME, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def with_large_pages(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which programs ask for large pages, unless it says otherwise."""
    return {NAME: VALUE, **env}
