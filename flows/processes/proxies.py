"""Proxies of the environment, as far as they concern us.

Our servers listen on loopback, where no proxy can reach them. If HTTP_PROXY is set and NO_PROXY is
not, every request to them would go to the proxy and fail. Importing `flows` exempts loopback for
this process and its children, before any library reads the variables.
"""

import os
from collections.abc import Iterable
from importlib.util import find_spec

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_LEFT_OUT = "MAMMOFLOW_LEFT_OUT_"
"""The prefix of variables that keep proxies which only git can use."""


def exempt(hosts: Iterable[str]) -> None:
    """Let no request to these hosts take a proxy, in this process and its children."""
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    # A program may read one of the two only, or the first of them that is set.
    for name, value in (("no_proxy", lower or upper), ("NO_PROXY", upper or lower)):
        listed = [host.strip() for host in (value or "").split(",") if host.strip()]
        if "*" not in listed:
            listed += [host for host in hosts if host not in listed]
        os.environ[name] = ",".join(listed)


def leave_out_socks() -> None:
    """Take SOCKS proxies out of the environment where the package for them is missing.

    The library that Prefect uses fails if such a variable is set, even if no request would take the
    proxy. Git needs no package: it gets them back, by `list_unused_proxies`.
    """
    if find_spec("socksio") is not None:
        return
    for name in (spelling for proxy in _PROXIES for spelling in (proxy, proxy.upper())):
        if os.environ.get(name, "").lower().startswith("socks"):
            os.environ[_LEFT_OUT + name] = os.environ.pop(name)


def list_unused_proxies() -> dict[str, str]:
    """The proxies that were left out, by the variables that named them."""
    return {
        name.removeprefix(_LEFT_OUT): value
        for name, value in os.environ.items()
        if name.startswith(_LEFT_OUT)
    }


def describe_proxies() -> str:
    """What a message about a server that does not answer should say of proxies.

    Returns:
        Half a sentence; empty if the environment names no proxy.
    """
    known = {name for proxy in _PROXIES for name in (proxy, proxy.upper())}
    if found := sorted(known & {*os.environ}):
        return f"; the environment sets {', '.join(found)}: NO_PROXY can exempt the server"
    if list_unused_proxies():
        names = " and ".join(sorted(list_unused_proxies()))
        return f"; {names} is not used: a SOCKS proxy takes the package socksio"
    return ""
