"""The people of a test: a subject with a key, an institution with keys, and the world that they meet in."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from simulator import SimulatedChain

from ledger import exchange, signatures
from ledger.artifact import contract_address
from ledger.chain import Chain
from ledger.commit import Finality
from ledger.config import Config
from ledger.consent import ZERO32, Address, ConsentGrant, Domain, Hex32, hex32_of
from ledger.contract import pause_call, revoke_call
from ledger.custodian import Custodian
from ledger.furnish import PutResult
from ledger.grants import ActResult
from ledger.parties import FURNISHER
from ledger.release import Release
from ledger.signatures import HttpRequest, SignedRequest
from ledger.typed_data import (
    consent_id_of,
    grant_typed_data,
    outer_of,
    pause_typed_data,
    revocation_typed_data,
    sign_typed_data,
)
from ledger.vault import AttributeValue, NewRecord, Value

DAY: Final = 86_400
NOON: Final = 20_712 * DAY + DAY // 2
VALUES: Final[dict[str, Value]] = {"credit_amount": 1169, "savings": "below_100", "credit_duration": 24}
SOURCE: Final = "urn:test:furnisher"
NOTICE: Final = hex32_of(b"\x07" * 32)
STEP_NAMES: Final = frozenset(
    name
    for path in sorted((Path(__file__).parent.parent / "ledger").glob("*.py"))
    for name in re.findall(r"\bself\._step\(\"([^\"]+)\"\)", path.read_text("utf-8"))
)
"""Every step that a custodian announces. Whoever waits for another one waits in vain, and tests nothing."""
# Not from 1: `person-1` is there already.
_numbers = itertools.count(2)


class Clock:
    """The time, set by the test."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> None:
        self.now += seconds


class Steps:
    """The step hook of a custodian: runs what a test has put at a step, once, and remembers the steps it passed."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self._acts: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)

    def at(self, name: str, act: Callable[[], object]) -> None:
        assert name in STEP_NAMES, f"no code announces the step {name!r}: what is put there would never happen"
        self._acts[name].append(act)

    def forget(self) -> None:
        """Nothing that was put at a step and was not reached will happen."""
        self._acts.clear()

    def __call__(self, name: str) -> None:
        self.passed.append(name)
        if self._acts[name]:
            self._acts[name].pop(0)()


class Institution:
    """A lender: its keys never leave it; the custodian has the public parts."""

    def __init__(self, institution_id: str = "bank-1", name: str = "First Bank") -> None:
        self.institution_id, self.name = institution_id, name
        keys = exchange.new_institution_keys()
        self.jwks = keys.as_dict(private=True)
        self.signing_key = exchange.key_for(self.jwks, "sig")
        self.sealing_key = exchange.key_for(self.jwks, "enc")

    def register(self, custodian: Custodian) -> None:
        custodian.registry.add_institution(self.institution_id, self.name, self.jwks, at=custodian.clock())

    def request(
        self,
        custodian: Custodian,
        consent_id: Hex32,
        *,
        key: str | None = None,
        purpose: str = "loan-origination",
        attributes: Sequence[str] = ("credit_amount",),
        **changes: Any,
    ) -> HttpRequest:
        """A signed request. `changes` replaces any other argument of `sign_release`."""
        fields: dict[str, Any] = {
            "service_url": custodian.config.service_url,
            "institution": self.institution_id,
            "consent_id": consent_id,
            "purpose": purpose,
            "attributes": tuple(attributes),
            "idempotency_key": key or f"key-{next(_numbers)}",
            "signing_key": self.signing_key,
            "at": custodian.clock(),
            "nonce": new_nonce(),
        }
        return exchange.sign_release(**(fields | changes))

    def sign(self, message: HttpRequest, *, at: int, nonce: str | None = None) -> HttpRequest:
        """A message signed by this institution; one that was signed before gets a new nonce, as a retry does."""
        unsigned = {
            name: value
            for name, value in message.headers.items()
            if name.lower() not in ("signature", "signature-input", "content-digest")
        }
        return signatures.sign_request(
            replace(message, headers=unsigned),
            party_id=self.institution_id,
            key=self.signing_key,
            at=at,
            nonce=nonce or new_nonce(),
        )

    def evidence(self, custodian: Custodian, path: str, fields: dict[str, Any]) -> SignedRequest:
        """A request of this institution, signed and let in: what the custodian keeps of it."""
        message = HttpRequest(
            method="POST",
            url=f"{custodian.config.service_url}{path}",
            headers={"Content-Type": "application/json"},
            body=json.dumps(fields).encode(),
        )
        return custodian.authentication.authenticate(self.sign(message, at=custodian.clock())).evidence

    def open(self, custodian: Custodian, sealed: bytes) -> dict[str, Any]:
        """The claims of an answer; fails unless it is sealed to this institution and signed by the custodian."""
        return exchange.open_answer(sealed, self.sealing_key, custodian.accounts.signing_key)


class Furnisher:
    """Hands data in. By default it is the source of what the subjects of this kit were furnished with."""

    def __init__(self, furnisher_id: str = SOURCE, name: str = "Test Bureau") -> None:
        self.furnisher_id, self.name = furnisher_id, name
        self.jwks = exchange.new_furnisher_keys().as_dict(private=True)
        self.signing_key = exchange.key_for(self.jwks, "sig")

    def register(self, custodian: Custodian) -> None:
        custodian.registry.add_furnisher(self.furnisher_id, self.name, self.jwks, at=custodian.clock())

    def put(
        self, custodian: Custodian, subject_ref: str, values: dict[str, Value], *, as_of: str = "2026-02-28"
    ) -> PutResult:
        """Sign it, and hand it in through the door."""
        body = json.dumps({"asOf": as_of, "values": values}).encode()
        url = f"{custodian.config.service_url}/v1/subjects/x/attributes"
        signed = signatures.sign_request(
            HttpRequest(method="PUT", url=url, headers={"Content-Type": "application/json"}, body=body),
            party_id=self.furnisher_id,
            key=self.signing_key,
            at=custodian.clock(),
            nonce=new_nonce(),
        )
        caller = custodian.authentication.authenticate(signed, FURNISHER)
        return custodian.furnish.put(caller.party, subject_ref, as_of=as_of, values=values, evidence=caller.evidence)


class Subject:
    """A person: a reference at the furnisher, and a key of their own."""

    def __init__(self, ref: str = "person-1") -> None:
        self.ref = ref
        self.account = Account.create()
        self.address = Address(self.account.address)
        self.key = bytes(self.account.key)

    def furnish(self, custodian: Custodian, values: dict[str, Value] | None = None) -> None:
        """The furnisher hands in what it knows of this person."""
        new = [
            NewRecord(
                subject_ref=self.ref,
                attribute=name,
                value=AttributeValue(value=value, source=SOURCE, as_of="2026-01-31"),
            )
            for name, value in (VALUES if values is None else values).items()
        ]
        with custodian.store.begin() as tx:
            custodian.vault.put(tx, new, at=custodian.clock())

    def draft(self, custodian: Custodian, institution: Institution, **changes: Any) -> ConsentGrant:
        """What is shown to this person: three accesses for a loan decision within thirty days."""
        now = custodian.clock()
        fields: dict[str, Any] = {
            "institution_id": institution.institution_id,
            "subject": self.address,
            "purpose": "loan-origination",
            "attributes": ("credit_amount", "savings"),
            "valid_from": now,
            "expires_at": now + 30 * DAY,
            "max_accesses": 3,
            "accesses_per_day": 3,
            "retention_days": 31,
            "notice_hash": NOTICE,
            "replaces": ZERO32,
        }
        return custodian.grants.prepare(**(fields | changes))

    def sign(self, custodian: Custodian, grant: ConsentGrant) -> bytes:
        return sign_typed_data(grant_typed_data(grant, custodian.chain.domain), self.key)

    def hand_in(self, custodian: Custodian, grant: ConsentGrant, signature: bytes | None = None) -> Hex32:
        """Sign a draft and hand it in."""
        signed = self.sign(custodian, grant) if signature is None else signature
        return custodian.grants.grant(grant, signed, custodian.vault.subject_of(self.ref)).consent_id

    def grant(self, custodian: Custodian, institution: Institution, **changes: Any) -> Hex32:
        """Agree to a draft. Returns the consent's id."""
        return self.hand_in(custodian, self.draft(custodian, institution, **changes))

    def revocation(self, custodian: Custodian, *consent_ids: Hex32) -> bytes:
        """The signature that revokes these."""
        return sign_typed_data(revocation_typed_data(consent_ids, custodian.chain.domain), self.key)

    def revoke(self, custodian: Custodian, *consent_ids: Hex32) -> ActResult:
        return custodian.grants.revoke(consent_ids, self.revocation(custodian, *consent_ids))

    def pause(self, custodian: Custodian, consent_id: Hex32, *, paused: bool = True, sequence: int = 1) -> ActResult:
        payload = pause_typed_data(consent_id, paused=paused, sequence=sequence, domain=custodian.chain.domain)
        signature = sign_typed_data(payload, self.key)
        return custodian.grants.set_paused(consent_id, paused=paused, sequence=sequence, signature=signature)

    def revoke_directly(self, chain: SimulatedChain, *grants: ConsentGrant) -> None:
        """Revoke on chain from this person's own account, without any custodian."""
        chain.transact(self.account, revoke_call([outer_of(grant) for grant in grants], b""))

    def pause_directly(self, chain: SimulatedChain, grant: ConsentGrant, *, paused: bool, sequence: int) -> None:
        chain.transact(self.account, pause_call(outer_of(grant), paused=paused, sequence=sequence, signature=b""))


class World:
    """A custodian on a simulated chain, one institution and one subject who are known to it.

    `like` is a world in its first state, closed: copying it is faster than making another.
    """

    quick: Final = Finality(timeout=0.02)

    def __init__(self, data: Path, *, finality: Finality | None = None, like: World | None = None) -> None:
        self.clock = Clock()
        self.steps = Steps()
        self.institution: Institution
        self.subject: Subject
        self.config = Config(data=data, finality=finality or Finality(timeout=2.0))
        self.chain = SimulatedChain(_domain_of(self.config), self.clock)
        if like is not None:
            shutil.copytree(like.config.data, data)
            self.chain.adopt(like.chain)
            self.institution, self.subject = like.institution, like.subject
            self.custodian = self.open()
            return
        Custodian.init(self.config)
        self.custodian = self.open()
        self.custodian.allow_writers()
        self.institution, self.subject = Institution(), Subject()
        self.institution.register(self.custodian)
        self.subject.furnish(self.custodian)

    def open(self) -> Custodian:
        """One more custodian process on the same data, as it were."""
        return Custodian(self.config, chain=self.chain, clock=self.clock, step=self.steps)

    def restart(self) -> None:
        """The process ends and another one takes its place."""
        self.custodian.close()
        self.custodian = self.open()

    def restore_what_was_before(self, meanwhile: Callable[[], object]) -> None:
        """Something happens, and then a backup of before it is put back: of the database, not of the keys."""
        backup = self.config.data.with_name("backup.db")
        self.custodian.store.backup(backup)
        try:
            meanwhile()
        finally:
            self.custodian.close()
            for left in self.config.data.glob("ledger.db*"):
                left.unlink()
            backup.rename(self.config.database)
            self.custodian = self.open()

    def rebuild_chain(self) -> None:
        """The chain was restarted empty, and the operator put the contract back."""
        self.chain.restart_empty()
        self.chain.deploy()
        self.custodian.allow_writers()

    def another_subject(self) -> Subject:
        subject = Subject(f"person-{next(_numbers)}")
        subject.furnish(self.custodian)
        return subject

    def another_institution(self) -> Institution:
        number = next(_numbers)
        institution = Institution(f"bank-x{number}", f"Bank {number}")
        institution.register(self.custodian)
        return institution

    def grant(self, **changes: Any) -> Hex32:
        return self.subject.grant(self.custodian, self.institution, **changes)

    def request(self, consent_id: Hex32, **changes: Any) -> HttpRequest:
        return self.institution.request(self.custodian, consent_id, **changes)

    def ask(self, consent_id: Hex32, **changes: Any) -> Release:
        return self.custodian.releases.release(self.request(consent_id, **changes))

    def retry(self, message: HttpRequest, custodian: Custodian | None = None) -> Release:
        """The same request under the same idempotency key, signed anew as a client's retry is."""
        asked = self.institution.sign(message, at=self.clock())
        return (custodian or self.custodian).releases.release(asked)

    def read(self, release: Release) -> dict[str, Any]:
        return self.institution.open(self.custodian, release.sealed)

    def grant_of(self, consent_id: Hex32) -> ConsentGrant:
        return self.custodian.registry.consent(consent_id).grant

    def states(self) -> list[str]:
        """The state of every release on file, in order of the alphabet."""
        return sorted(row.state for row in self.custodian.journal.history())

    def logged(self, name: str = "AccessRecorded") -> list[Hex32]:
        """The entry hashes of the events of that name on the canonical chain."""
        return [event.args[1] for event in self.chain.all_events() if event.name == name]


def new_nonce() -> str:
    return secrets.token_urlsafe(18)


def _domain_of(config: Config) -> Domain:
    return Domain(chain_id=config.chain_id, contract=contract_address())


def id_of(grant: ConsentGrant, chain: Chain) -> Hex32:
    return consent_id_of(grant, chain.domain)
