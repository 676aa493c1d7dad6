"""The caller's public address."""

from __future__ import annotations

import ipaddress

from bilbo.errors import AwsError

_CHECK_IP_SECONDS = 10


def caller_cidr(url: str) -> str:
    """The caller's public address as a /32 (or /128), from AWS's check-ip service at `url`.

    Raises AwsError if the service does not answer with an address.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_CHECK_IP_SECONDS) as answer:
            address = ipaddress.ip_address(answer.read(100).decode().strip())
    except (URLError, OSError, ValueError) as error:
        raise AwsError(
            f"cannot determine your public address: {getattr(error, 'reason', error)}",
            where=url,
            hint='Set it in the profile: "access": {"cidrs": ["YOUR.ADDRESS/32"]}',
        ) from error
    return str(ipaddress.ip_network(address))
