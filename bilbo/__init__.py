"""bilbo: a data cluster on AWS from a small JSON profile."""

__version__ = "0.1.0"
