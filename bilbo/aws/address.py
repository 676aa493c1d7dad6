"""The address under which the internet sees the caller."""

from __future__ import annotations

import ipaddress

from bilbo.errors import AwsError

_CHECK_IP_SECONDS = 10


def caller_cidr(url: str) -> str:
    """The caller's own public address as a /32 (or /128), asked of AWS's check-ip
    service at `url`.

    Raises AwsError when the service does not answer with an address.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_CHECK_IP_SECONDS) as answer:
            address = ipaddress.ip_address(answer.read(100).decode().strip())
    except (URLError, OSError, ValueError) as error:
        raise AwsError(
            f"your public address cannot be found out: {getattr(error, 'reason', error)}",
            where=url,
            hint='Name it in the profile: "access": {"cidrs": ["YOUR.ADDRESS/32"]}',
        ) from error
    return str(ipaddress.ip_network(address))
