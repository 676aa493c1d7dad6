"""How long until a cluster of Ray's is ready, and how near is that to the floor?

As `time_to_ready`, for Ray: the bare script starts the workers once the head's port is open.
"""

from __future__ import annotations

from bench import Result, Size, main
from time_to_ready import RAY, measured


def measure(size: Size) -> Result:
    """Ray's."""
    return measured(RAY, size)


if __name__ == "__main__":
    main(measure)
