"""Whether a request can come from the page itself, not from another site in the browser of somebody who may open it.

Such sites come in two ways: they send requests to this machine (cross-site request forgery), or let a name of their own
point to it, so that the browser takes it for a part of their site (DNS rebinding).
"""

import ipaddress
from collections.abc import Collection
from email.message import Message
from urllib.parse import urlsplit

__all__ = ["is_own_host", "is_same_origin"]


def is_own_host(host: str, names: Collection[str], only_loopback: bool) -> bool:
    """Whether a Host header names this machine in a way that no other site can: by an address, one of ``names``, or a
    name that no public name server knows, which has no dot or ends in ``.local``. The port may be that of a tunnel.

    ``only_loopback``: for a server that only this machine reaches, the names and addresses of loopback alone.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        own = name in names or "." not in name or name.endswith(".local")
        return name == "localhost" or (not only_loopback and name != "" and own)
    return address.is_loopback or not only_loopback


def is_same_origin(headers: Message, host: str) -> bool:
    """Whether a request that changes something was sent by a page of ``host``, or by no browser.

    Browsers say so themselves where they trust the connection (Fetch Metadata), which holds behind a proxy too.
    Elsewhere they send the Origin. Other programs send neither.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("Origin")
    return origin is None or origin.lower().partition("://")[2] == host.lower()
