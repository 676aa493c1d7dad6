"""The stand-in AWS, as other users and programs of the same machine find it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import boto3
import pytest
from conftest import StandIn

from bilbo.local.api import LONGEST_BODY
from bilbo.local.state import ADMIN, ADMIN_HEADER


def signed(standin: StandIn) -> str:
    """A head line by which a client shows the stand-in's key."""
    key = standin.target.environment["AWS_ACCESS_KEY_ID"]
    return f"Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/s3/aws4_request"


def status(standin: StandIn, path: str, *head: str, body: Iterable[bytes] = ()) -> int:
    """The status of the answer to a request, of which no more is sent than this."""
    where = urlsplit(standin.target.endpoint_url)
    lines = [f"PUT {path} HTTP/1.1", f"Host: {where.netloc}", *head, "", ""]
    with socket.create_connection((str(where.hostname), int(where.port or 0)), 20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        for part in body:
            connection.sendall(part)
        return int(connection.recv(100).split()[1])


def announced(length: object) -> str:
    return f"Content-Length: {length}"


@pytest.mark.parametrize("length", [1, LONGEST_BODY, 1 << 50])
def test_a_strangers_body_is_not_read(standin: StandIn, length: int) -> None:
    """Who does not show the key is refused at the head, whatever else is announced and not sent."""
    began = time.monotonic()
    assert status(standin, "/bucket/key", announced(length)) == 403
    assert status(standin, f"{ADMIN}fault", announced(length)) == 403
    assert status(standin, f"{ADMIN}fault", f"{ADMIN_HEADER}: AKIA", announced(length)) == 403
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("length", [LONGEST_BODY + 1, 1 << 50, -1, "many", "1_0"])
def test_bodies_have_a_largest_size(standin: StandIn, length: object) -> None:
    """More than that, and what is no length, is refused before it is sent."""
    key = standin.target.environment["AWS_ACCESS_KEY_ID"]
    assert status(standin, "/bucket/key", signed(standin), announced(length)) == 413
    admin = f"{ADMIN_HEADER}: {key}"
    assert status(standin, f"{ADMIN}fault", admin, announced(length)) == 413


def test_a_body_in_chunks_has_it_too(standin: StandIn) -> None:
    """One whose length only its end tells is read up to there."""
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    parts = [chunk] * ((LONGEST_BODY >> 20) + 1)
    chunked = "Transfer-Encoding: chunked"
    assert status(standin, "/bucket/key", signed(standin), chunked, body=parts) == 413


def test_what_is_large_and_honest_comes_through(standin: StandIn) -> None:
    """An object of some megabytes is kept and given back whole."""
    environment = standin.target.environment
    s3 = boto3.client(
        "s3",
        "us-east-1",
        endpoint_url=standin.target.endpoint_url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="large")
    data = bytes(range(256)) * (20 << 12)
    s3.put_object(Bucket="large", Key="object", Body=data)
    assert s3.get_object(Bucket="large", Key="object")["Body"].read() == data
