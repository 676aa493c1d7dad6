"""What a Packer that was killed has left behind, by the names that it gave. Reads only."""

from __future__ import annotations

from collections.abc import Collection

from bilbo.aws.session import asking, client
from bilbo.model import Target


def left_of_build(target: Target, own: Collection[str], amis: Collection[str]) -> list[str]:
    """The commands of AWS's CLI that remove what there is, in the order in which they succeed.

    `own` are names of key pairs and security groups, `amis` those of AMIs. Four calls at most.
    Raises AwsError.
    """
    with asking("cannot look for what a build has left"):
        ec2 = client(target, "ec2")
        found = []
        if own:
            by_key = [{"Name": "key-name", "Values": sorted(own)}]
            alive = {"Name": "instance-state-name",
                     "Values": ["pending", "running", "stopping", "stopped"]}  # fmt: skip
            ids = [
                instance["InstanceId"]
                for one in ec2.describe_instances(Filters=[*by_key, alive])["Reservations"]
                for instance in one["Instances"]
            ]
            groups = ec2.describe_security_groups(
                Filters=[{"Name": "group-name", "Values": sorted(own)}]
            )["SecurityGroups"]
            keys = ec2.describe_key_pairs(Filters=by_key)["KeyPairs"]
            found += [f"terminate-instances --instance-ids {each}" for each in ids]
            found += [f"wait instance-terminated --instance-ids {each}" for each in ids]
            found += [f"delete-key-pair --key-name {each['KeyName']}" for each in keys]
            found += [f"delete-security-group --group-id {each['GroupId']}" for each in groups]
        if amis:
            by_name = [{"Name": "name", "Values": sorted(amis)}]
            images = ec2.describe_images(Owners=["self"], Filters=by_name)["Images"]
            found += [f"deregister-image --image-id {each['ImageId']}" for each in images]
    place = f" --endpoint-url {target.endpoint_url}" if target.endpoint_url else ""
    return [f"aws ec2 {each} --region {target.region}{place}" for each in found]
