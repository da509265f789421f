"""A consent-governed credit data ledger: no access without a signed consent, no release before it is on the log."""

from __future__ import annotations

import os
import sys
from typing import Final

import py_ecc  # noqa: F401 - before the limit is set, because it sets another one

RECURSION_LIMIT: Final = 1000

# py_ecc, which eth-account imports, raises Python's limit to 100,000 for pairings that nothing here computes. With it,
# deeply nested JSON from the network would end the process by a segmentation fault and not by a `RecursionError`.
sys.setrecursionlimit(RECURSION_LIMIT)

# eth-utils, eth-account and trie hash with what eth-hash chooses, and left alone it takes the Keccak that is ten times
# slower than the one which this package asks for.
os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")
