"""A consent-governed credit data ledger: no access without a signed consent, no release before it is on the log."""

from __future__ import annotations

import sys
from typing import Final

import eth_account  # noqa: F401 - before the limit is set, because it sets another one

RECURSION_LIMIT: Final = 1000

# eth-account imports py_ecc, which raises Python's limit to 100,000 for pairings that nothing here computes. With it,
# deeply nested JSON from the network would end the process by a segmentation fault and not by a `RecursionError`.
sys.setrecursionlimit(RECURSION_LIMIT)
