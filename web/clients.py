"""What is known of whoever asks: an address to count tries by, and a short name for the browser."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

BROWSERS: Final = (
    # The first that is named: most browsers name others as well.
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("MicroMessenger", "WeChat"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
SYSTEMS: Final = (
    ("HarmonyOS", "HarmonyOS"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "Mac"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
UNKNOWN: Final = "Browser"


def device_of(user_agent: str) -> str:
    """For example `Firefox, Android`: to tell one's sessions apart. Only words of ours, whatever the header says."""
    words = [next((name for mark, name in known if mark in user_agent), "") for known in (BROWSERS, SYSTEMS)]
    return ", ".join(word for word in words if word) or UNKNOWN


def client_of(peer: str, forwarded: str, *, proxies: int) -> str:
    """Whose tries are counted together: an IPv4 address, or the /64 network of an IPv6 one.

    `peer` is who is connected, `forwarded` the header X-Forwarded-For, of which the last `proxies` entries were written
    by proxies of ours and are believed; whatever stands before them was written by anyone.
    """
    hops = [one.strip() for one in forwarded.split(",")]
    address = hops[-proxies] if 0 < proxies <= len(hops) else peer
    try:
        found = ip_address(address)
    except ValueError:
        return peer
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))
    return str(found)
