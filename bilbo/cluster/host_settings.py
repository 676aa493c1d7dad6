"""What a cluster is known to be beside its HCL: by this machine's record, and by the shared state,
which goes before it where team-mates have changed the cluster since."""

from __future__ import annotations

from typing import Any

from bilbo import aws, hostside
from bilbo import profile as profiles
from bilbo.cluster.settling import with_ssh_port
from bilbo.cluster.shared_profile import told_spec
from bilbo.cluster.shared_state import admitted, outputs_of, told_digests
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.hostside import Known
from bilbo.model import ClusterSpec
from bilbo.record import Record


def known(spec: ClusterSpec, work: Work, record: Record | None) -> Known:
    """What the record and, where `spec` shares it, the state tell of the cluster.

    Raises RecordError for a state that bilbo has not written, AwsError.
    """
    mine = _recorded(record, work) if record else None
    outputs = _outputs(spec, work)
    if "profile" not in outputs:
        return Known(hostside.values(mine)) if mine else Known()
    theirs = told_spec(outputs["profile"], spec.name, spec.region)
    theirs = with_ssh_port(theirs, work.target.ssh_port)
    private = (*hostside.HASHED, *hostside.OWN)
    told = {
        place: value for place, value in hostside.values(theirs).items() if place[1] not in private
    }
    found = Known(told, told_digests(outputs), shared=True)
    return hostside.remembered(found, mine) if mine else found


def must_be_alike(spec: ClusterSpec, work: Work) -> None:
    """Raises BilboError where new machines would come to be otherwise than a team-mate has made
    those there are."""
    unlike = hostside.unlike(spec, told_digests(_outputs(spec, work)))
    if unlike:
        raise BilboError(
            f"new machines would differ from those that cluster {spec.name!r} has",
            details=tuple(
                f"this machine knows other {key} than it was made with: {', '.join(groups)}"
                for key, groups in unlike.items()
            ),
            hint=f"Run `bilbo create` of the team's profile with -n {spec.name} first.",
        )


def _outputs(spec: ClusterSpec, work: Work) -> dict[str, Any]:
    """The outputs of the cluster's shared state; none where there is no such state."""
    if spec.state is None:
        return {}
    found = aws.shared_state(work.target, spec.state, spec.name)
    return outputs_of(admitted(found, spec.state.address())) if found.get("resources") else {}


def _recorded(record: Record, work: Work) -> ClusterSpec:
    spec = profiles.build(record.profile, record.name, record.region)
    return with_ssh_port(spec, work.target.ssh_port)
