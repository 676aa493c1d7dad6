"""When a cluster ends by itself: durations, and what the profile says."""

import pytest

from bilbo.lifetime import Lifetime, lifetime, seconds, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", 5400), ("1h30m", 5400), ("2d", 172800), ("1d12h", 129600), ("45s", 45)],
)
def test_durations(text: str, expected: int) -> None:
    """A duration is read as people write it, and shown so that it reads the same."""
    assert seconds(text) == expected
    assert seconds(words(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "0m", "30", "h", "1.5h", "1h 30m", "30m1h", "-1h", "\uff11h", "1H"]
)
def test_no_durations(text: str) -> None:
    """Anything else is refused, a duration of nothing too."""
    with pytest.raises(ValueError, match="is not a duration such as 90m, 1h30m or 2d"):
        seconds(text)


def test_of_a_profile() -> None:
    """What the profile leaves out has its default; without the key nothing ends."""
    assert lifetime(None) is None
    assert lifetime({}) == Lifetime()
    found = lifetime({"ttl": "8h", "idle": "30m", "then": "destroy", "unreached": "30m"})
    assert found == Lifetime(28800, 1800, "destroy", 1800, 600)
