"""How long until a Ray cluster is ready, and how close is that to the floor?

As `time_to_ready`, for Ray: the bare script starts the workers once the head's port is open.
"""

from __future__ import annotations

from bench import Result, Size, main
from time_to_ready import RAY, measured


def measure(size: Size) -> Result:
    """Measures Ray."""
    return measured(RAY, size)


if __name__ == "__main__":
    main(measure)
