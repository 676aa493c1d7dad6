"""What the stand-in changes in moto's Auto Scaling, one function a mend.

As on AWS, a group keeps trying to be as large as desired, replaces what it lost, and keeps
an account of what it did. moto does all at once or never, and tells nobody.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import (
    ASG_NAME_TAG,
    AutoScalingBackend,
    FakeAutoScalingGroup,
    InstanceState,
    autoscaling_backends,
)
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import InstanceState as Condition

from bilbo.local import spot_market as spot
from bilbo.local.hooks import ALIVE, World, all_instances, room, shortage
from bilbo.local.policies import allows
from bilbo.local.refusals import AUTO_SCALING_NAME, check_groups, check_launch, groups_of
from bilbo.local.replacements import replace

# A group that cannot grow tries on; its account says so again after this many seconds.
SAY_AGAIN = 10
KEPT_ACTIVITIES = 500


@dataclass
class Diary:
    """What the groups did: (region, group) → activities as AWS tells them, newest first."""

    activities: dict[tuple[str, str], deque[dict[str, Any]]] = field(default_factory=dict)

    def of(self, group: Any) -> deque[dict[str, Any]]:
        """The activities of `group`."""
        key = (group.region, group.name)
        return self.activities.setdefault(key, deque(maxlen=KEPT_ACTIVITIES))

    def write(self, group: Any, description: str, cause: str, failure: str = "") -> None:
        """Add an activity; one that failed again for the same reason only now and then."""
        now, story = utcnow(), self.of(group)
        if failure and story and story[0].get("StatusMessage") == failure:
            again = (now - story[0]["StartTime"]).total_seconds() > SAY_AGAIN
            if getattr(group, "bilbo_tries_on", False) and not again:
                return
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "Description": description,
            "Cause": f"At {now:%Y-%m-%dT%H:%M:%SZ} {cause}",
            "StartTime": now,
            "EndTime": now,
            "StatusCode": "Failed" if failure else "Successful",
            "Progress": 100,
            "Details": "{}",
        }
        if failure:
            activity["StatusMessage"] = failure
        story.appendleft(activity)


def install(world: World) -> Diary:
    """Mend moto's Auto Scaling, for the life of this process."""
    diary = Diary()
    refuse_names_in_use_and_bad_templates(world, diary)
    launch_what_there_is(world, diary)
    change_size_as_processes_allow(diary)
    count_the_pending_and_protect_the_others()
    tell_activities(diary)
    delete_as_asked(diary)
    keep_policy_when_it_is_not_updated(world)
    leave_replacing_to_tend()
    return diary


def refuse_names_in_use_and_bad_templates(world: World, diary: Diary) -> None:
    """moto overwrites a group of the same name, whose instances are then nobody's; and finds
    out at the launch what AWS says when the group is created.
    """

    @replace(AutoScalingBackend, "create_auto_scaling_group")
    def create(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        name = kwargs["name"]
        if not re.fullmatch(AUTO_SCALING_NAME, name):
            raise ValidationError(f"The Auto Scaling group name {name!r} is invalid.")
        if name in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists",
                "AutoScalingGroup by this name already exists - A group with the name "
                f"{name} already exists",
            )
        _check_template(world, self.ec2_backend, kwargs)
        diary.activities.pop((self.region_name, name), None)
        return original(self, *args, **kwargs)


def _check_template(world: World, ec2: Any, kwargs: dict[str, Any]) -> None:
    mixed = (kwargs.get("mixed_instances_policy") or {}).get("LaunchTemplate", {})
    wanted = kwargs.get("launch_template") or mixed.get("LaunchTemplateSpecification")
    if not wanted:
        return
    wanted = {"Version": "$Default", **{k: v for k, v in wanted.items() if v}}
    try:
        data = ec2._get_template_from_args(wanted).data
        check_launch(ec2, data.get("ImageId"), data.get("InstanceType"), data.get("KeyName"))
        named = data.get("SecurityGroupIds") or []
        check_groups(ec2, [*named, *groups_of({"nics": data.get("NetworkInterfaces")})])
    except EC2ClientError as error:
        words = f"You must use a valid fully-formed launch template. {error.message}"
        raise ValidationError(words) from None
    # Whoever has a group launch from a template needs what launching from it needs:
    # https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
    faults, passing = world.faults, "iam:PassRole"
    denied = faults.denies(passing) or not allows(faults.policy, passing)
    if denied and data.get("IamInstanceProfile"):
        named = wanted.get("LaunchTemplateId") or wanted.get("LaunchTemplateName")
        words = f"You are not authorized to use launch template: {named}"
        raise AutoscalingClientError("AccessDenied", words)


def launch_what_there_is(world: World, diary: Diary) -> None:
    """moto launches all or fails the request, from the template's default version whatever
    version the group names. AWS launches what there is and notes what there is not.
    """

    @replace(FakeAutoScalingGroup, "replace_autoscaling_group_instances")
    def launch(original: Any, self: Any, count: int, tags: dict[str, str]) -> None:
        before = len(self.active_instances())
        cause = (
            "an instance was started in response to a difference between desired and actual "
            f"capacity, increasing the capacity from {before} to {before + count}."
        )
        possible = min(count, room(world))
        failure = ""
        for bought in spot.purchases(self, possible):
            there = spot.room(world, all_instances()) if bought.spot else bought.count
            try:
                wanted = dataclasses.replace(bought, count=min(there, bought.count))
                states = _launch(self, wanted, tags, world.faults.pending) if wanted.count else []
            except EC2ClientError as error:
                states, failure = [], error.message
            if there < bought.count:
                failure = spot.SHORTAGE
            self.instance_states.extend(states)
            for state in states:
                diary.write(self, f"Launching a new EC2 instance: {state.instance_id}", cause)
        if possible < count and not failure:
            _, failure = shortage(world, self.instance_type, self.availability_zones[0])
        if failure:
            failure = f"{failure} Launching EC2 instance failed."
            description = f"Launching a new EC2 instance.  Status Reason: {failure}"
            diary.write(self, description, cause, failure)


def _launch(
    group: Any, bought: spot.BoughtMachines, tags: dict[str, str], pending: float
) -> list[Any]:
    template = None
    if group.ec2_launch_template:
        template = {
            "LaunchTemplateId": group.ec2_launch_template.id,
            "Version": group.launch_template_version,
        }
    subnets = (group.vpc_zone_identifier or "").split(",")
    config = group.launch_config
    reservation = group.autoscaling_backend.ec2_backend.run_instances(
        group.image_id,
        bought.count,
        group.user_data,
        group.security_groups,
        instance_type=bought.ec2type,
        tags={"instance": {**tags, **group.instance_tags, ASG_NAME_TAG: group.name}},
        placement=group.availability_zones[0],
        region_name=group.region,
        launch_config=config,
        launch_template=template,
        is_instance_type_default=False,
        associate_public_ip=config.associate_public_ip_address if config else None,
        key_name=config.key_name if config else None,
        subnet_id=subnets[0] or None,
        lifecycle=spot.LIFECYCLE if bought.spot else None,
    )
    states = []
    for instance in reservation.instances:
        instance.autoscaling_group = group
        protected = group.new_instances_protected_from_scale_in
        state: Any = InstanceState(instance, protected_from_scale_in=protected)
        states.append(state)
        if pending:
            state.lifecycle_state = "Pending"
            state.bilbo_in_service = time.monotonic() + pending
            instance._state = Condition("pending", 0)
    return states


def change_size_as_processes_allow(diary: Diary) -> None:
    """moto launches and terminates, whatever is suspended. Note which instances a lowered capacity
    took; moto picks unprotected ones only.
    """

    @replace(FakeAutoScalingGroup, "set_desired_capacity")
    def set_desired_capacity(original: Any, self: Any, capacity: int | None) -> None:
        before = {state.instance_id for state in self.instance_states}
        wanted = self.min_size if capacity is None else capacity
        more = wanted - len(self.active_instances())
        if (more > 0 and "Launch" in self._suspended_processes) or (
            more < 0 and "Terminate" in self._suspended_processes
        ):
            self.desired_capacity = wanted
            return
        original(self, capacity)
        left = before - {state.instance_id for state in self.instance_states}
        for instance_id in sorted(left):
            diary.write(
                self,
                f"Terminating EC2 instance: {instance_id}",
                "an instance was taken out of service in response to a difference between "
                f"desired and actual capacity, shrinking the capacity to {capacity}.",
            )


def count_the_pending_and_protect_the_others() -> None:
    """moto knows no member that is still starting, and sets the protection of any instance."""

    @replace(FakeAutoScalingGroup, "active_instances")
    def active_instances(original: Any, self: Any) -> list[Any]:
        return [s for s in self.instance_states if s.lifecycle_state in ("InService", "Pending")]

    @replace(AutoScalingBackend, "set_instance_protection")
    def set_instance_protection(
        original: Any, self: Any, group_name: str, instance_ids: list[str], protected: bool | None
    ) -> None:
        states = {s.instance_id: s for s in self.autoscaling_groups[group_name].instance_states}
        for name in instance_ids:
            if name not in states or states[name].lifecycle_state not in ("InService", "Standby"):
                raise ValidationError(
                    f"The instance {name} is not in InService or EnteringStandby or Standby."
                )
        original(self, group_name, instance_ids, protected)


def tell_activities(diary: Diary) -> None:
    """moto answers DescribeScalingActivities with nothing, whatever happened."""

    @replace(AutoScalingResponse, "describe_scaling_activities")
    def describe(original: Any, self: Any) -> ActionResult:
        name = self._get_param("AutoScalingGroupName")
        living = self.autoscaling_backend.autoscaling_groups
        deleted_too = self._get_bool_param("IncludeDeletedGroups", False)
        if name and name not in living and not deleted_too:
            return ActionResult({"Activities": []})
        found = [
            activity
            for (region, group), story in diary.activities.items()
            for activity in story
            if region == self.region and name in (None, group) and (deleted_too or group in living)
        ]
        wanted = self._get_param("ActivityIds", [])
        found = [a for a in found if not wanted or a["ActivityId"] in wanted]
        start = int(self._get_param("NextToken") or 0)
        end = start + (self._get_int_param("MaxRecords") or 100)
        more = str(end) if end < len(found) else None
        return ActionResult({"Activities": found[start:end], "NextToken": more})


def delete_as_asked(diary: Diary) -> None:
    """moto forgets a group and leaves its protected instances running, asked by force or not.
    AWS refuses while there are instances, and by force terminates every one.
    """

    @replace(AutoScalingResponse, "delete_auto_scaling_group")
    def delete(original: Any, self: Any) -> EmptyResult:
        name = self._get_param("AutoScalingGroupName")
        backend = self.autoscaling_backend
        group = backend.autoscaling_groups.get(name)
        states = list(group.instance_states) if group else []
        if states and not self._get_bool_param("ForceDelete", False):
            raise AutoscalingClientError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending "
                "Spot instance request(s) still in the group.",
            )
        for state in states:
            state.protected_from_scale_in = False
            state.instance.disable_api_termination = False
            if state.instance.state != "terminated":
                backend.ec2_backend.terminate_instances([state.instance_id])
        if group:
            group.instance_states = []
        backend.delete_auto_scaling_group(name)
        return EmptyResult()


def keep_policy_when_it_is_not_updated(world: World) -> None:
    """moto forgets a group's mixed instances policy at the next change of anything else, and does
    not look into a template that is named anew."""

    @replace(FakeAutoScalingGroup, "update")
    def update(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        given = ("launch_config_name", "launch_template", "mixed_instances_policy")
        if self.mixed_instances_policy and not any(kwargs.get(name) for name in given):
            policy = copy.deepcopy(self.mixed_instances_policy)
            # moto adds the name to the id, and refuses both when it gets them back.
            policy["LaunchTemplate"]["LaunchTemplateSpecification"].pop("LaunchTemplateName", None)
            kwargs["mixed_instances_policy"] = policy
        else:
            _check_template(world, self.autoscaling_backend.ec2_backend, kwargs)
        original(self, *args, **kwargs)


def leave_replacing_to_tend() -> None:
    """moto replaces a terminated instance within the request, if EC2's API was asked; `tend`
    replaces whatever was lost, a moment later, as AWS does.
    """

    @replace(AutoScalingBackend, "notify_terminate_instances")
    def notify(original: Any, self: Any, instance_ids: list[str]) -> None:
        return None


def tend(world: World, diary: Diary) -> None:
    """Let every group replace what it lost and grow or shrink to what is desired."""
    for account in list(autoscaling_backends.values()):
        for backend in list(account.values()):
            for group in list(backend.autoscaling_groups.values()):
                with world.lock:
                    if backend.autoscaling_groups.get(group.name) is group:
                        _tend(group, diary)


def _tend(group: Any, diary: Diary) -> None:
    suspended = set(group._suspended_processes)
    for state in group.active_instances():
        if state.lifecycle_state == "Pending" and time.monotonic() > state.bilbo_in_service:
            state.lifecycle_state = "InService"
            if state.instance.state == "pending":
                state.instance._state = Condition("running", 16)
        if state.instance.state not in ALIVE and "HealthCheck" not in suspended:
            state.health_status = "Unhealthy"
    lost = [s for s in group.active_instances() if s.health_status == "Unhealthy"]
    if lost and not suspended & {"ReplaceUnhealthy", "Terminate"}:
        _give_up(group, diary, lost)
    have, wanted = len(group.active_instances()), group.desired_capacity or 0
    if (have < wanted and "Launch" not in suspended) or (
        have > wanted and "Terminate" not in suspended
    ):
        group.bilbo_tries_on = True
        try:
            group.set_desired_capacity(group.desired_capacity)
        finally:
            group.bilbo_tries_on = False


def _give_up(group: Any, diary: Diary, lost: list[Any]) -> None:
    for state in lost:
        diary.write(
            group,
            f"Terminating EC2 instance: {state.instance_id}",
            "an instance was taken out of service in response to an EC2 health check "
            "indicating it has been terminated or stopped.",
        )
        if state.instance.state != "terminated":
            state.instance.terminate()
    group.instance_states = [s for s in group.instance_states if s not in lost]
