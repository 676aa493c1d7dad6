"""`python -m bilbo`."""

from bilbo.cli import main

main()
