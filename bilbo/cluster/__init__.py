"""The only composer: create, plan, scale, restart and destroy a cluster from the design's stages.

Knows no command line. What it tells as it goes is given to a `Progress`.
"""

from bilbo.cluster.create import Created, create
from bilbo.cluster.destroy import destroy
from bilbo.cluster.plan import Planned, plan
from bilbo.cluster.restart import restart
from bilbo.cluster.scale import scale
from bilbo.cluster.work import Progress, Work

__all__ = [
    "Created",
    "Planned",
    "Progress",
    "Work",
    "create",
    "destroy",
    "plan",
    "restart",
    "scale",
]
