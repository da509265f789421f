"""Everything that the contract can be told, told to the real one by the accounts that may, without the service."""

from __future__ import annotations

import secrets
from dataclasses import astuple, replace
from typing import Final

from contract_rules import consent_id_on_chain
from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger.access import BatchKind, LoggedAccess
from ledger.consent import Address, Hex32, OuterGrant, hex32_of
from ledger.contract import append_call, append_compelled_call, call, grant_call, pause_call, revoke_call
from ledger.custodian import Custodian
from ledger.devnet import fund

GAS: Final = 3_000_000


class LedgerStory:
    """One subject, and the custodian whose configuration it is."""

    def __init__(self, custodian: Custodian) -> None:
        self._custodian, self._chain = custodian, custodian.chain
        self._subject = Account.create()
        self._writer = custodian.accounts.writers[0]
        fund(custodian.rpc, [self._subject.address])

    def tell(self) -> None:
        """Consents in every state, accesses under each of them, and batches of every kind."""
        now = self._chain.latest().timestamp
        usual = self._grant(now - 100, now + 86_400, 100)
        once = self._grant(now - 100, now + 86_400, 1)
        later = self._grant(now + 40_000, now + 86_400, 9)
        over = self._grant(now - 100, now - 50, 9)
        paused, resumed, ended, dropped = (self._grant(now - 100, now + 86_400, 9) for _ in range(4))
        early = replace(usual, terms_hash=_random())
        for grant in (usual, once, later, over, paused, resumed, ended, dropped):
            self._send(self._subject, grant_call(grant, b""))
        self._send(self._subject, pause_call(paused, paused=True, sequence=3, signature=b""))
        self._send(self._subject, pause_call(resumed, paused=True, sequence=1, signature=b""))
        self._send(self._subject, pause_call(resumed, paused=False, sequence=2, signature=b""))
        self._send(self._subject, revoke_call([ended, early], b""))
        self._send(self._custodian.accounts.custodian, call("revokeAsCustodian", [_raw(self._id(dropped))]))
        asked = (
            usual,
            once,
            once,
            later,
            over,
            paused,
            resumed,
            ended,
            early,
            dropped,
            replace(usual, terms_hash=_random()),
        )
        self._append(BatchKind.ACCESSES, *asked)
        self._append(BatchKind.REFUSALS, usual, ended)
        self._append(BatchKind.LATE_ACCESSES, usual, resumed)
        entries = [_random(), _random()]
        address, head = self._custodian.address, self._head()
        self._send(self._writer, append_compelled_call(address, head, _random(), now + 86_400, entries))

    def access_without_consent(self) -> None:
        """Logged late, under a consent that there is not."""
        self._append(BatchKind.LATE_ACCESSES, self._grant(1, 2, 1))

    def _grant(self, first: int, end: int, most: int) -> OuterGrant:
        return OuterGrant(
            terms_hash=_random(),
            subject=self._subject.address,
            custodian=self._custodian.address,
            valid_from=first,
            expires_at=end,
            max_accesses=most,
        )

    def _id(self, grant: OuterGrant) -> Hex32:
        fields = (_raw(grant.terms_hash), *astuple(grant)[1:])
        return consent_id_on_chain(fields, self._chain.domain)

    def _append(self, kind: BatchKind, *grants: OuterGrant) -> None:
        batch = [LoggedAccess(consent_id=self._id(grant), entry_hash=_random()) for grant in grants]
        self._send(self._writer, append_call(kind, self._custodian.address, self._head(), batch))

    def _head(self) -> Hex32:
        return self._chain.log(self._custodian.address, Address(self._writer.address)).head

    def _send(self, account: LocalAccount, calldata: bytes) -> None:
        signed = self._chain.sign(account, calldata, gas=GAS)
        self._chain.send(signed.raw)
        assert self._chain.wait(signed.transaction_hash, timeout=60).succeeded


def _random() -> Hex32:
    return hex32_of(secrets.token_bytes(32))


def _raw(value: Hex32) -> bytes:
    return bytes.fromhex(value[2:])
