"""AWS's limits against what a profile makes of them, on moto's EC2 in this process, and
against the account of a stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pytest
from bilbo_cli import INSTANCE
from conftest import StandIn
from moto import mock_aws

from bilbo import local
from bilbo.aws import client, limits, prerequisites, quotas
from bilbo.engines import ENGINES
from bilbo.errors import AwsError
from bilbo.local.refusals import AUTO_SCALING_NAME, GROUP_NAME, TEMPLATE_NAME
from bilbo.model import CLUSTER_TAG, ClusterSpec, Target
from bilbo.profile import building
from bilbo.profile.naming import MAX_CLUSTER_NAME, check_cluster_name
from bilbo.render import render

TARGET = Target(
    "us-east-1", environment={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
)


@pytest.fixture
def ec2() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client(
            "ec2", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )


def here(standin: StandIn) -> Target:
    """A region of the stand-in that nobody else uses."""
    return replace(standin.target, region="eu-north-1")


@contextmanager
def denied(standin: StandIn, action: str) -> Iterator[None]:
    """Within it, nobody may do this."""
    local.inject(standin.home, f"deny={action}")
    try:
        yield
    finally:
        local.inject(standin.home, "clear")


def spec_of(name: str, *groups: str, engine: str = "dask") -> ClusterSpec:
    worker = [{"name": group} for group in groups] if groups else {}
    document = {"instance": INSTANCE, engine: {"worker": worker}}
    return replace(building.build(document, name, "us-east-1"), cidrs=("192.0.2.1/32",))


def names_of(spec: ClusterSpec) -> list[str]:
    return [*(group.instance_name for group in spec.workers), spec.security_group_name]


def tagged(kind: str, name: str, cluster: str) -> list[dict[str, Any]]:
    tags = [{"Key": "Name", "Value": name}, {"Key": CLUSTER_TAG, "Value": cluster}]
    return [{"ResourceType": kind, "Tags": tags}]


def make_template(ec2: Any, name: str, cluster: str) -> str:
    made = ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={"InstanceType": "m5.large"},
        TagSpecifications=tagged("launch-template", name, cluster),
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def make_group(ec2: Any, name: str, cluster: str, **more: Any) -> str:
    tags = tagged("security-group", name, cluster)
    made = ec2.create_security_group(
        GroupName=name, Description="x", TagSpecifications=tags, **more
    )
    return str(made["GroupId"])


def test_two_clusters_never_get_one_template(ec2: Any) -> None:
    """Cluster `x` with the group `y-dask-worker` has the names of cluster `x-dask-worker-y`."""
    ours, theirs = spec_of("x-dask-worker-y"), spec_of("x", "y-dask-worker")
    assert ours.workers[0].instance_name == theirs.workers[0].instance_name
    made = make_template(ec2, theirs.workers[0].instance_name, theirs.name)
    with pytest.raises(AwsError) as refused:
        limits(ours, TARGET, names_of(ours))
    assert made in str(refused.value) and "of cluster 'x'" in str(refused.value)
    assert limits(theirs, TARGET, names_of(theirs)) == []
    assert limits(ours, TARGET, []) == []


def test_a_security_groups_name_knows_no_upper_and_lower_case(ec2: Any) -> None:
    """A group `Data-bilbo` takes the name of `data-bilbo`, in its own VPC alone."""
    spec = spec_of("data")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    make_group(ec2, "DATA-bilbo", "DATA", VpcId=vpc)
    assert limits(spec, TARGET, names_of(spec)) == []
    made = make_group(ec2, "Data-bilbo", "Data")
    with pytest.raises(AwsError, match=f"{made} of cluster 'Data' has the name 'Data-bilbo'"):
        limits(spec, TARGET, names_of(spec))
    assert limits(spec_of("dato"), TARGET, names_of(spec_of("dato"))) == []


def test_rules_are_counted_as_terraform_makes_them(ec2: Any) -> None:
    """Networks times ports, and the members; the account's quota decides, and it is asked only
    beyond AWS's default."""
    spec = replace(spec_of("wide"), cidrs=tuple(f"10.0.{n}.0/24" for n in range(19)))
    assert quotas.inbound_rules(spec) == 19 * 3 + 1
    assert limits(spec, TARGET, []) == []
    both = replace(spec, cidrs=(*spec.cidrs, "2001:db8::/32"))
    assert quotas.inbound_rules(both) == quotas.inbound_rules(spec)
    wider = replace(spec, cidrs=(*spec.cidrs, "10.1.0.0/24"))
    assert quotas.inbound_rules(wider) == 61
    with pytest.raises(AwsError, match=r"61 inbound rules: 20 networks .* quota is 60"):
        limits(wider, TARGET, [])


def test_a_quota_that_nobody_may_ask_is_said(standin: StandIn) -> None:
    """A person with a raised quota and without permission to ask is not kept from working."""
    wide = replace(spec_of("wide"), cidrs=tuple(f"10.0.{n}.0/24" for n in range(30)))
    with pytest.raises(AwsError, match="91 inbound rules"):
        limits(wide, here(standin), [])
    with denied(standin, "servicequotas:*"):
        assert ["91 inbound rules" in note for note in limits(wide, here(standin), [])] == [True]
    assert quotas.beyond(wide, 100.0, []) == []


@pytest.mark.parametrize(
    ("ec2type", "name"),
    [
        ("m5.large", "Standard (A, C, D, H, I, M, R, T, Z)"),
        ("im4gn.large", "Standard (A, C, D, H, I, M, R, T, Z)"),
        ("gr6.4xlarge", "G and VT"), ("g4dn.xlarge", "G and VT"), ("p5.48xlarge", "P"),
        ("trn1.2xlarge", "Trn"), ("u-6tb1.metal", "High Memory"), ("x2idn.metal", "X"),
        ("hpc6a.48xlarge", "HPC"), ("mac2.metal", ""),
    ],
)  # fmt: skip
def test_a_type_counts_towards_one_quota(ec2type: str, name: str) -> None:
    """Families have quotas of their own; what has none here is not counted."""
    assert (quotas.family(ec2type) or ("", ""))[0] == name


def test_vcpus_are_counted_with_what_runs(standin: StandIn) -> None:
    """Two groups of one family share its quota, which instances on demand have used in part; what
    nobody may ask is passed over."""
    ec2 = client(here(standin), "ec2")
    image = ec2.copy_image(SourceImageId=local.KNOWN_AMI, SourceRegion="us-east-1", Name="copy")
    (launched,) = ec2.run_instances(
        ImageId=image["ImageId"], InstanceType="m5.xlarge", MinCount=1, MaxCount=1
    )["Instances"]
    run = quotas.running(ec2)
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    assert run == {"L-1216C47A": 4}
    more = [(group, 3) for group in spec_of("many", "one", "two").workers]
    ec2type = more[0][0].machine.ec2type
    assert quotas.codes(more) == ["L-1216C47A"]
    assert quotas.vcpus(more, {ec2type: 2}, run, {"L-1216C47A": 16.0}) == []
    (said,) = quotas.vcpus(more, {ec2type: 2}, run, {"L-1216C47A": 15.0})
    assert (
        said.startswith("12 more vCPUs of Standard") and "4 run; the account's quota is 15" in said
    )
    assert quotas.vcpus(more, {ec2type: 2}, run, {"L-1216C47A": None}) == []


def test_what_nobody_may_ask_of_the_account_is_passed_over(standin: StandIn) -> None:
    """A missing instance profile is a problem, a refusal is none, and an account's own key for
    volumes is said with the grant that Auto Scaling's role needs."""
    spec, target = spec_of("account"), here(standin)
    workers = [
        replace(each, machine=replace(each.machine, iam_instance_profile="nobody"))
        for each in spec.workers
    ]
    more = [(workers[0], 2)]

    def found() -> tuple[list[str], list[str]]:
        with prerequisites.asked(target, more, workers) as answers:
            return prerequisites.problems(answers, more, {}), prerequisites.notes(spec, answers)

    missing, said = found()
    assert said == []
    assert ["'nobody' (iam_instance_profile) does not exist" in each for each in missing] == [True]
    key = client(target, "kms").create_key()["KeyMetadata"]["Arn"]
    client(target, "ec2").modify_ebs_default_kms_key_id(KmsKeyId=key)
    missing, said = found()
    assert [f"--key-id {key} --grantee-principal arn:aws:iam" in each for each in said] == [True]
    with denied(standin, "iam:GetInstanceProfile"):
        missing, said = found()
        assert missing == [] and len(said) == 1
    with denied(standin, "ec2:GetEbsDefaultKmsKeyId"):
        missing, said = found()
        assert len(missing) == 1 and said == []


def test_a_grant_is_for_the_keys_own_partition() -> None:
    """Auto Scaling's role has the partition of the key that it needs."""
    key: Future[str | None] = Future()
    key.set_result("arn:aws-cn:kms:cn-north-1:1:key/x")
    (said,) = prerequisites.notes(spec_of("china"), prerequisites.Answers({}, key, {}, None))
    assert "--grantee-principal arn:aws-cn:iam" in said


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_the_longest_names_are_short_enough(engine: str) -> None:
    """Whatever names a profile may have, AWS takes what bilbo makes of them."""
    name = "N" * MAX_CLUSTER_NAME
    check_cluster_name(name)
    for cluster in (name, "n"):
        spec = spec_of(cluster, "g" * 20, "worker", engine=engine)
        files = render(replace(spec, owner="0" * 32))["main.tf"]
        for group in spec.workers:
            assert f'"{group.instance_name}"' in files
            assert re.fullmatch(TEMPLATE_NAME, group.instance_name)
            assert re.fullmatch(AUTO_SCALING_NAME, group.instance_name)
        assert re.fullmatch(GROUP_NAME, spec.security_group_name)
