"""Hardhat's node with 10^4 entries, for the bench of an audit: `audit_devnet.py PORT DIRECTORY`, until it is ended.

It says "ready" when everything is on chain. The entries are appended in large batches by a writer's own key.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger.access import BatchKind, LoggedAccess, fold
from ledger.chain import Chain
from ledger.config import Config
from ledger.consent import ZERO32, Hex32, OuterGrant, Reason, hex32_of
from ledger.contract import append_call, grant_call
from ledger.custodian import Custodian
from ledger.devnet import Devnet, fund

ENTRIES: Final = 10_000
BATCH: Final = 500
CONSENTS: Final = 40


def main() -> None:
    port, home = int(sys.argv[1]), Path(sys.argv[2])
    with Devnet(port=port, log=home / "devnet.log") as node:
        fill(Config(data=home / "data", rpc_url=node.url))
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


def fill(config: Config) -> None:
    Custodian.init(config)
    with Custodian(config) as custodian:
        chain, subject, writer = custodian.chain, Account.create(), custodian.accounts.writers[0]
        fund(custodian.rpc, [subject.address, *(account.address for account in custodian.accounts.every())])
        custodian.deploy()
        now = chain.latest().timestamp
        for _ in range(CONSENTS):
            outer = OuterGrant(
                terms_hash=hex32_of(os.urandom(32)),
                subject=subject.address,
                custodian=custodian.address,
                valid_from=now - 10,
                expires_at=now + 86_400,
                max_accesses=2**32 - 1,
            )
            send(chain, subject, grant_call(outer, b""), gas=200_000)
        consents = [event.args[0] for event in chain.events(0, chain.latest().number) if event.name == "ConsentGranted"]
        head: Hex32 = ZERO32
        for _ in range(ENTRIES // BATCH):
            batch = [
                LoggedAccess(consent_id=one, entry_hash=hex32_of(os.urandom(32)))
                for one in random.choices(consents, k=BATCH)
            ]
            send(chain, writer, append_call(BatchKind.ACCESSES, custodian.address, head, batch), gas=16_000_000)
            head = fold(head, BatchKind.ACCESSES, batch, [Reason.NONE] * BATCH)


def send(chain: Chain, account: LocalAccount, call: bytes, *, gas: int) -> None:
    signed = chain.sign(account, call, gas=gas)
    chain.send(signed.raw)
    assert chain.wait(signed.transaction_hash, timeout=60).succeeded


if __name__ == "__main__":
    # Waited for, not acted on: the node must be ended too.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
