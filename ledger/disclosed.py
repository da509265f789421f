"""What a disclosure comes to: every entry in it is checked against its own parts and against the chain. Pure.

What the chain, the bundles and the receipts say comes as `Facts` (`disclosure_facts.py` finds them). For each entry:

(1) The opening has the entry's hash.
(2) The entry stands on chain, at its place and once, with the outcome that is said; without a chain a bundle proves it.
(3) The consent's id is that of the grant, and the subject signed the grant.
(4) Custodian, institution, purpose and attributes are those of the terms.
(5) The institution signed a request whose digest is in the entry and that asks for just this.
(6) The records that were read are those that the entry names.
(7) Receipt and answer, if there are any, are signed by the custodian and say the same.

Of an access that an authority compelled, the order takes the place of consent and request. A refused entry read
nothing: of it (4) is not asked, but its reason is. Of each consent: (8) that its daily limit held
(`daily_limits.py`), and (9) that no request was used for more than it asks for. (10) Whose a key is nobody can see from
a disclosure: one that the auditor did not bring along leaves it unverified, unless the auditor says to believe it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from ledger.compelled import order_hash_of
from ledger.consent import Domain, Hex32
from ledger.daily_limits import DatedAccess, daily_limit_held
from ledger.disclosed_entry import (
    READ,
    check_answer,
    check_bundle,
    check_opening,
    check_order,
    check_place,
    check_receipt,
    check_records,
    check_request,
    check_subject,
    check_terms,
    entry_at,
    standing_twice,
)
from ledger.disclosure import DisclosedConsent, DisclosedEntry, DisclosedOutcome, Disclosure
from ledger.scrutiny import (
    BundledEntry,
    Facts,
    FoundEntry,
    JudgedDisclosure,
    JudgedEntry,
    Keyring,
    Marks,
    ReceivedEntry,
    custodian_keys,
)
from ledger.signatures import JWK
from ledger.verifying_keys import public_jwk

CUSTODIAN: Final = "custodian"


def judge(disclosure: Disclosure, facts: Facts, keys: Keyring, *, domain: Domain) -> JudgedDisclosure:
    """Check a disclosure about the ledger `domain`. Raises nothing: what does not hold is in the result."""
    return _Judge(disclosure, facts, keys, domain).judged()


class _Judge:
    """One disclosure."""

    def __init__(self, disclosure: Disclosure, facts: Facts, keys: Keyring, domain: Domain) -> None:
        self._disclosure, self._facts, self._keys, self._domain = disclosure, facts, keys, domain
        self._consents = {one.consent_id: one for one in disclosure.consents}
        self._standing: defaultdict[tuple[Hex32, Hex32], list[FoundEntry]] = defaultdict(list)
        """Each entry as often as it is on chain."""
        for one in facts.entries or ():
            self._standing[one.consent_id, one.entry_hash].append(one)
        self._used: dict[tuple[str, str], tuple[JWK, bool]] = {}
        self._held: dict[Hex32, int] = {}
        """Entries whose request holds, with how many releases like them it asks for."""

    def judged(self) -> JudgedDisclosure:
        """(1) to (7) of each entry, and what is about all of them."""
        whole = Marks()
        whole.checks += self._facts.checks
        whole.findings += self._facts.findings
        if self._disclosure.domain == self._domain:
            whole.holds("domain", f"chain {self._domain.chain_id}, contract {self._domain.contract}")
        else:
            whole.differs("domain", "domain_differs", "the disclosure is about another chain or contract")
        if not self._disclosure.entries:
            whole.unknown("entries", "there is no entry in it")
        entries = tuple(self._entry(one) for one in self._disclosure.entries)
        for consent in self._disclosure.consents:
            # (3)
            check_subject(consent, self._facts, self._domain, whole)
            self._daily_limit(consent, whole)
        self._doubles(whole)
        self._orders(whole)
        self._requests(whole)
        self._key_owners(whole)
        return JudgedDisclosure(
            domain=self._domain,
            block=self._facts.block,
            checks=tuple(whole.checks),
            findings=tuple(whole.findings),
            entries=entries,
        )

    # ----------------------------------------------------------------------------------------------------- each entry

    def _entry(self, one: DisclosedEntry) -> JudgedEntry:
        online = self._facts.entries is not None
        standing = self._standing.get((one.entry.consent_id, one.entry_hash), ())
        found, bundle = entry_at(one.place, standing), self._facts.bundles.get(one.entry_hash)
        proven_at = bundle.at if isinstance(bundle, BundledEntry) else None
        marks = Marks(
            block_number=one.place.block_number,
            at=found.at if found else proven_at,
            consent_id=one.entry.consent_id,
            writer=one.place.writer,
            entry_hash=one.entry_hash,
        )
        consent = self._consents.get(one.entry.consent_id)
        grant = consent.grant if consent else None
        # (1)
        check_opening(one, marks)
        # (2)
        if online:
            check_place(one, standing, marks)
        check_bundle(one, bundle, online=online, marks=marks)
        # (3) is of the consent, (4)
        if one.outcome is DisclosedOutcome.COMPELLED:
            check_order(one, self._disclosure.orders, self._facts.embargoes, marks)
        else:
            check_terms(one, grant, marks)
            # (5)
            self._held[one.entry_hash] = check_request(one, self._institution_key, marks)
        # (6)
        check_records(one, marks)
        # (7)
        receipt = self._facts.receipts.get(one.entry_hash)
        check_receipt(one, receipt, marks)
        answered_with = check_answer(one, grant, custodian_keys(self._disclosure, self._keys, one.answer), marks)
        for key in (receipt.key if isinstance(receipt, ReceivedEntry) else None, answered_with):
            if key is not None:
                self._use(CUSTODIAN, key, given=self._is_given(key, self._keys.custodian))
        return JudgedEntry(
            entry_hash=one.entry_hash,
            entry=one.entry,
            outcome=one.outcome,
            at=found.at if found else proven_at,
            checks=tuple(marks.checks),
            findings=tuple(marks.findings),
        )

    def _doubles(self, whole: Marks) -> None:
        """(2) of entries that are not opened."""
        opened = {(one.entry.consent_id, one.entry_hash) for one in self._disclosure.entries}
        for (consent_id, entry_hash), standing in self._standing.items():
            if len(standing) > 1 and (consent_id, entry_hash) not in opened:
                about = {"consent_id": consent_id, "entry_hash": entry_hash}
                whole.differs("place", "double_entry", standing_twice(standing), **about)

    # --------------------------------------------------------------------------------------------------- each consent

    def _daily_limit(self, one: DisclosedConsent, whole: Marks) -> None:
        # (8)
        opened = {
            entry.entry_hash: entry
            for entry in self._disclosure.entries
            if entry.entry.consent_id == one.consent_id and entry.outcome in READ
        }
        limit, about = one.grant.terms.accesses_per_day, {"consent_id": one.consent_id}
        if self._facts.entries is None:
            dated = [self._dated(entry, None) for entry in opened.values()]
            unseen, known = max(0, one.grant.max_accesses - len(opened)), "without a chain nobody can say of how many"
        else:
            found = [it for it in self._facts.entries if it.consent_id == one.consent_id and it.outcome in READ]
            dated = [self._dated(opened.get(it.entry_hash), it) for it in found]
            unseen, known = 0, f"of {len(found)} on chain"
        held = daily_limit_held([it for it in dated if it is not None], limit, unseen=unseen + dated.count(None))
        said = f"{len(opened)} accesses opened, {known}; at most {limit} a day: consent {one.consent_id}"
        if held is False:
            whole.differs("daily_limit", "daily_limit_exceeded", said, **about)
        elif held is None:
            whole.unknown("daily_limit", f"{said}; those that are not opened may have been too many on one day")
        else:
            whole.holds("daily_limit", said)

    def _dated(self, entry: DisclosedEntry | None, found: FoundEntry | None) -> DatedAccess | None:
        signed = entry.request.created if entry and entry.request and self._held.get(entry.entry_hash) else None
        if signed is None and found is None:
            return None
        late = found is not None and found.outcome is not READ[0]
        return DatedAccess(signed_at=signed, logged_at=found.at if found else None, late=late)

    # ----------------------------------------------------------------------------------------------- requests and keys

    def _orders(self, whole: Marks) -> None:
        named = {one.entry.consent_id for one in self._disclosure.entries}
        if any(order_hash_of(one) not in named for one in self._disclosure.orders):
            whole.unknown("orders", "there is an order in it that none of its entries names")

    def _requests(self, whole: Marks) -> None:
        # (9)
        read = [one for one in self._disclosure.entries if one.outcome in READ and self._held.get(one.entry_hash)]
        uses = Counter(_asked(one) for one in read)
        reused = {_asked(one): one for one in read if uses[_asked(one)] > self._held[one.entry_hash]}
        for asked, one in reused.items():
            most = self._held[one.entry_hash]
            said = f"one request, which asks {most} times for this, was used for {uses[asked]} accesses"
            about = {"consent_id": one.entry.consent_id, "entry_hash": one.entry_hash}
            whole.differs("requests", "request_reused", said, **about)
        if read and not reused:
            whole.holds(
                "requests", f"{len({one.entry.request_hash for one in read})}, each used as often as it asks for"
            )

    def _key_owners(self, whole: Marks) -> None:
        # (10)
        for (party_id, kid), (_, given) in sorted(self._used.items(), key=lambda item: item[0]):
            if given:
                whole.holds("keys", f"key {kid} is one that {party_id} gave")
            elif self._keys.as_disclosed:
                whole.holds("keys", f"key {kid} is believed to be of {party_id}, as the disclosure says")
            else:
                said = f"that key {kid} is of {party_id} is only what the disclosure says: have it from {party_id}"
                whole.unknown("keys", said)
        for party_id, key in self._disclosed_keys():
            used = self._used.get((party_id, str(key.kid)))
            if used is None:
                whole.unknown("keys", f"key {key.kid} of {party_id}: nothing here is signed with it")
            elif public_jwk(used[0]) != public_jwk(key):
                whole.differs("keys", "keys_differ", f"key {key.kid} in the disclosure is not the one of {party_id}")

    def _disclosed_keys(self) -> Iterator[tuple[str, JWK]]:
        yield from ((CUSTODIAN, key) for key in self._disclosure.custodian_keys)
        for party_id, keys in self._disclosure.institution_keys.items():
            yield from ((party_id, key) for key in keys)

    def _institution_key(self, party_id: str, kid: str) -> JWK | None:
        for keys, given in (
            (self._keys.institutions.get(party_id, ()), True),
            (self._disclosure.institution_keys.get(party_id, ()), False),
        ):
            for key in keys:
                if key.kid == kid:
                    self._use(party_id, key, given=given)
                    return key
        return None

    def _is_given(self, key: JWK, given: tuple[JWK, ...]) -> bool:
        return public_jwk(key) in [public_jwk(one) for one in given]

    def _use(self, party_id: str, key: JWK, *, given: bool) -> None:
        self._used[party_id, str(key.kid)] = (key, given)


def _asked(one: DisclosedEntry) -> tuple[Hex32, Hex32, str, tuple[str, ...]]:
    return one.entry.request_hash, one.entry.consent_id, one.entry.purpose, one.entry.attributes
