"""The environment variables by which AWS's clients find the stand-in and nothing else."""

from __future__ import annotations

import os

from bilbo.files import private_write
from bilbo.local.standin_state import Paths, State

# Each has a variable of its own that would win over AWS_ENDPOINT_URL.
SERVICES = ("EC2", "AUTO_SCALING", "IAM", "STS", "S3")
LOOPBACK = ("127.0.0.0/8", "127.0.0.1", "localhost")


def environment(paths: Paths, found: State) -> dict[str, str]:
    """What to set, beside the caller's own environment, to reach the stand-in.

    Settings of the caller's that would lead elsewhere are set empty, where AWS's SDKs take
    that for unset. A profile of the caller's cannot be: botocore looks for one of that name.
    So profile and configuration files are the stand-in's own; they are written here when
    they are missing.
    """
    _write_files(paths, found)
    variables = {
        "AWS_ENDPOINT_URL": found.endpoint_url,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_ACCESS_KEY_ID": found.access_key,
        "AWS_SECRET_ACCESS_KEY": found.secret_key,
        "AWS_SESSION_TOKEN": "",
        "AWS_SECURITY_TOKEN": "",
        "AWS_ROLE_ARN": "",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
        "AWS_PROFILE": "default",
        "AWS_DEFAULT_PROFILE": "default",
        "AWS_CONFIG_FILE": str(paths.aws_config),
        "AWS_SHARED_CREDENTIALS_FILE": str(paths.aws_credentials),
        "AWS_REGION": found.region,
        "AWS_DEFAULT_REGION": found.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_USE_FIPS_ENDPOINT": "",
        "AWS_USE_DUALSTACK_ENDPOINT": "",  # a backend takes "false" for true
        "AWS_POLL_DELAY_SECONDS": "1",  # Packer's, else up to 15
    }
    variables |= {f"AWS_ENDPOINT_URL_{service}": found.endpoint_url for service in SERVICES}
    return variables | _around_proxies()


def _around_proxies() -> dict[str, str]:
    """A proxy of the caller's cannot reach this machine's loopback."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    already = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in already.split(",") if host.strip()]
    joined = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    return {"no_proxy": joined, "NO_PROXY": joined}


def _write_files(paths: Paths, found: State) -> None:
    wanted = {
        paths.aws_config: "[default]\n",
        paths.aws_credentials: (
            f"[default]\naws_access_key_id = {found.access_key}\n"
            f"aws_secret_access_key = {found.secret_key}\n"
        ),
    }
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            private_write(path, text)
