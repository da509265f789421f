"""A short name for a browser, made of what it says of itself: to tell one's sessions apart, and for nothing else."""

from __future__ import annotations

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
    """For example `Firefox, Android`. Only words of ours, whatever the header says."""
    words = [next((name for mark, name in known if mark in user_agent), "") for known in (BROWSERS, SYSTEMS)]
    return ", ".join(word for word in words if word) or UNKNOWN
