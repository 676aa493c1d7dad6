"""Which AMIs the preflight finds, on moto's EC2 in this process."""

from __future__ import annotations

from typing import Any

import boto3
from moto import mock_aws

from bilbo.aws.amis import _images

GONE = ("ami-00000000000000001", "ami-00000000000000002")
# One of moto's own.
KNOWN = "ami-03cf127a"


def test_images_are_found_by_id_and_those_that_are_gone_hide_no_other() -> None:
    """A deprecated AMI launches, so it must not be reported as missing; nor may one that is gone
    make the others look so.
    """
    with mock_aws():
        ec2 = boto3.client(
            "ec2", "us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        asked: list[dict[str, Any]] = []
        ec2.meta.events.register(
            "provide-client-params.ec2.DescribeImages",
            lambda params, **_: asked.append(params),
        )
        assert [each["ImageId"] for each in _images(ec2, [GONE[0], KNOWN, GONE[1]])] == [KNOWN]
        assert _images(ec2, [GONE[0]]) == []
        # AWS leaves deprecated AMIs of other accounts out of a search by filter; moto has none.
        assert asked and not any("Filters" in params for params in asked)
