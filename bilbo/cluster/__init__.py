"""The only composer: create, plan, scale, restart and destroy a cluster from the design's stages.

Knows no command line. What it tells as it goes is given to a `Progress`. Each operation is imported
from its own module, because each needs much and a command runs but one.
"""
