"""Erasure and key rotation: what makes data unreadable, and what keeps it readable.

Erasing a person: every consent of theirs is revoked by the custodian, then in one transaction every envelope, wrapped
key, opening and salt is deleted (of values, consents, answers, orders, requests, attestations and adverse actions), the
person's account of the portal goes with its passkeys, wallets, sessions and invitations, and a tombstone stays. What is
on chain (salted hashes) then opens to nothing and links to no one. Backups still hold wrapped keys: they become
unreadable when the KEK that wrapped them is destroyed, which is what rotation ends with. Until then one that is put
back has the person again, whom `erase_again` finds by the file that every erasure is written down in (`erasures.py`).

Rotation re-wraps every DEK under a new KEK, in small transactions; envelopes' bodies are never touched. It may be
killed at any point and run again. The old KEK is destroyed only when nothing is wrapped under it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from joserfc.jwk import ECKey
from sqlalchemy import Table, bindparam, delete, func, select, update

from ledger.challenges import Challenges
from ledger.consent import Address, Hex32
from ledger.enrolment import Enrolment
from ledger.envelope import ROTATION, WrappedKey
from ledger.erasures import ErasureFile
from ledger.errors import ConflictError, ErasedError, KeyFileError, StoreUnavailableError
from ledger.grants import ActResult, Grants
from ledger.journal import ABORTED, INTENT, RECORDED, Journal, releases_about
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.order_book import OrderBook
from ledger.receipts import erasure_proof
from ledger.registry import Registry
from ledger.retention import retentions
from ledger.store import (
    ABOUT_SUBJECTS,
    SEALED_TABLES,
    Store,
    adverse_actions,
    consent_requests,
    deletion_attestations,
    disputes,
    orders,
    releases,
    subjects,
)
from ledger.vault import Vault

CHUNK: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was erased. `proof` is a JWT by the custodian that names no one.

    `scrubbed` is false if a reader kept the database from emptying its write-ahead log; the next `sync` does it then.
    """

    erased_at: int
    envelopes: int
    consents: int
    releases: int
    requests: int
    attestations: int
    adverse_actions: int
    disputes: int
    accounts: int
    revocations: tuple[ActResult, ...]
    scrubbed: bool
    readable_in_backups_until_destroyed: tuple[str, ...]
    proof: str

    @property
    def is_on_chain(self) -> bool:
        """Whether every consent is revoked there too; if not, `sync` goes on with it."""
        return all(revocation.receipt is not None for revocation in self.revocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldElsewhere:
    """What an institution received under a consent and may keep until then (Unix seconds), erased here or not."""

    consent_id: Hex32
    institution: str
    institution_name: str
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePreview:
    """What an erasure takes, and what it cannot take.

    `rows` counts what is about the person, by table. `consents_that_end` are those still live. `on_chain`: salted
    hashes and pseudonyms of these consents stay there for ever, and open to nothing. `held_elsewhere` is what was
    released already. Backups stay readable until the KEKs named last are destroyed.
    """

    rows: Mapping[str, int]
    consents_that_end: tuple[Hex32, ...]
    on_chain: tuple[Hex32, ...]
    held_elsewhere: tuple[HeldElsewhere, ...]
    readable_in_backups_until_destroyed: tuple[str, ...]


class Eraser:
    """Erases people and rotates keys."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        registry: Registry,
        journal: Journal,
        grants: Grants,
        keys: KeyFile,
        book: OrderBook,
        enrolment: Enrolment,
        challenges: Challenges,
        erasures: ErasureFile,
        *,
        custodian: Address,
        signing_key: ECKey,
        clock: Callable[[], int],
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._vault, self._registry, self._grants = store, vault, registry, grants
        self._journal, self._book = journal, book
        self._enrolment, self._challenges = enrolment, challenges
        self._keys, self._custodian, self._signing_key = keys, custodian, signing_key
        self._clock, self._step = clock, step
        self._erasures, self._has_looked_back = erasures, False

    def preview(self, subject_id: str) -> ErasurePreview:
        """What an erasure would take and what it cannot take, as things stand. Raises `ErasedError`, `VaultError`."""
        now = self._clock()
        with self._store.read() as tx:
            if not self._vault.is_living(tx, subject_id):
                raise ErasedError("subject: erased, or not there", field="subject")
            rows = {
                table.name: tx.scalar(select(func.count()).where(table.c.subject_id == subject_id)) or 0
                for table in ABOUT_SUBJECTS
                if table not in (subjects, orders)
            }
            # What the person may not know of yet must not show in a number either.
            rows[orders.name] = len(self._book.visible(tx, subject_id, now=now))
            live = self._registry.live(tx, subject_id)
            granted = self._registry.ids_of(tx, subject_id)
            released = self._journal.last_answered(tx, granted)
            kept = retentions(tx, self._registry, list(released), now=now)
        held_until = {
            consent_id: HeldElsewhere(
                consent_id=consent_id,
                institution=one.consent.grant.terms.institution,
                institution_name=one.consent.grant.terms.institution_name,
                # A replacement ends by the erasure itself.
                until=max(released[consent_id] + one.days * DAY_SECONDS, now if one.is_open else one.not_before),
            )
            for consent_id, one in kept.items()
        }
        return ErasurePreview(
            rows=rows,
            consents_that_end=tuple(live),
            on_chain=tuple(granted),
            held_elsewhere=tuple(sorted(held_until.values(), key=lambda one: (one.until, one.consent_id))),
            readable_in_backups_until_destroyed=tuple(self._keys.kek_ids),
        )

    def erase(self, subject_ref: str) -> Erasure:
        """Erase a person for ever. Raises `NotFoundError`, `ErasedError`, `ConflictError` (try again)."""
        return self.erase_subject(self._vault.subject_of(subject_ref))

    def erase_subject(self, subject_id: str) -> Erasure:
        """As `erase`, by the id that a session has. Raises `ErasedError`, `ConflictError` (try again)."""
        with self._store.read() as tx:
            if not self._vault.is_living(tx, subject_id):
                raise ErasedError("subject: erased, or not there", field="subject")
            live = self._registry.live(tx, subject_id)
        revocations = self._grants.revoke_as_custodian(live)
        self._step("erase revoked")
        now = self._clock()
        with self._store.begin() as tx:
            if not self._vault.is_living(tx, subject_id):
                raise ErasedError("subject: erased meanwhile", field="subject")
            if self._registry.live(tx, subject_id):
                raise ConflictError("subject: a consent was granted meanwhile, nothing was erased: try again")
            accounts = self._enrolment.erase(tx, subject_id)
            self._challenges.erase(tx, subject_id)
            disputed = tx.execute(delete(disputes).where(disputes.c.subject_id == subject_id)).rowcount
            envelopes = self._vault.erase(tx, subject_id, at=now)
            mine = releases_about(subject_id)
            tx.execute(
                update(releases)
                .where(mine, releases.c.state.in_((INTENT, RECORDED)))
                .values(state=ABORTED, reason="erased", finished_at=now)
            )
            gone = dict.fromkeys(("subject_id", "kek_id", "wrapped_dek", "body"))
            answers = tx.execute(update(releases).where(mine).values(**gone, sealed=None)).rowcount
            # After them: it is by the consents that they are found.
            consents = self._registry.erase(tx, subject_id, at=now)
            answers += self._book.erase(tx, subject_id, at=now)
            requests, attestations, actions = (
                tx.execute(update(table).where(table.c.subject_id == subject_id).values(**gone)).rowcount
                for table in (consent_requests, deletion_attestations, adverse_actions)
            )
            ref_index = tx.scalar(select(subjects.c.ref_index).where(subjects.c.subject_id == subject_id))
        self._step("erase durable")
        try:
            self._erasures.add({str(ref_index): now})
        except KeyFileError:
            # It is taken from the tombstone by the next look.
            self._has_looked_back = False
        scrubbed = self._scrubbed()
        keks = tuple(self._keys.kek_ids)
        destroyed = {
            "envelopesDestroyed": envelopes,
            "consentOpeningsDestroyed": consents,
            "accessOpeningsDestroyed": answers,
            "consentRequestsDestroyed": requests,
            "deletionAttestationsDestroyed": attestations,
            "adverseActionsDestroyed": actions,
            "disputesDestroyed": disputed,
            "portalAccountsDestroyed": accounts,
        }
        return Erasure(
            erased_at=now,
            envelopes=envelopes,
            consents=consents,
            releases=answers,
            requests=requests,
            attestations=attestations,
            adverse_actions=actions,
            disputes=disputed,
            accounts=accounts,
            revocations=revocations,
            scrubbed=scrubbed,
            readable_in_backups_until_destroyed=keks,
            proof=erasure_proof(
                self._custodian, self._signing_key, at=now, destroyed=destroyed, scrubbed=scrubbed, keks=keks
            ),
        )

    def erase_again(self) -> int:
        """Erase whoever was erased and is back by an older backup of the database. Returns how many.

        Whoever is not in the backup at all has a tombstone again. Writes down, too, who is erased in the database and
        not in the file. Looks once in a process: a backup is put back while none is running. Raises `VaultError`,
        `ConflictError`: it looks again the next time.
        """
        if self._has_looked_back:
            return 0
        written_down = self._erasures.read()
        with self._store.read() as tx:
            erased = self._vault.erased(tx)
        missing = {one: at for one, at in written_down.items() if one not in erased}
        with self._store.begin() as tx:
            self._vault.leave_out(tx, missing)
            back = self._vault.living(tx, list(missing))
        self._erasures.add({one: at for one, at in erased.items() if one not in written_down})
        for subject_id in back:
            self.erase_subject(subject_id)
        self._has_looked_back = True
        return len(back)

    def _scrubbed(self) -> bool:
        try:
            self._store.scrub()
        except StoreUnavailableError:
            return False
        return True

    def rotate(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> str:
        """Make a new KEK active and re-wrap everything under it. Returns its id; run `destroy_retired` afterwards.

        Goes on with an unfinished rotation instead of starting another: one is finished when the old KEK is destroyed.
        Raises `VaultError`.
        """
        active = self._keys.active_kek_id
        if self.remaining(active) == 0 and self._keys.kek_ids == [active]:
            active = self._keys.rotate()
        self._step("rotate: new KEK active")
        total = self.remaining(active)
        done = 0
        for table, key in SEALED_TABLES.items():
            last = ""
            while True:
                following, rewrapped = self._rewrap_chunk(table, key, active, after=last)
                done += rewrapped
                progress(done, total)
                self._step("rotate: chunk")
                if following is None:
                    break
                last = following
        return active

    def _rewrap_chunk(self, table: Table, key: str, active: str, *, after: str) -> tuple[str | None, int]:
        """Re-wrap the next rows in the order of their key. Returns where to go on (None at the end) and how many."""
        columns = (table.c[key], table.c.kek_id, table.c.wrapped_dek)
        query = select(*columns).where(table.c[key] > after).order_by(table.c[key]).limit(CHUNK)
        with self._store.begin() as tx:
            rows = tx.execute(query).all()
            stale = [row for row in rows if row.kek_id not in (None, active)]
            if stale:
                wrapped = [WrappedKey(row.kek_id, row.wrapped_dek) for row in stale]
                with self._keys.counting({ROTATION: wrapped}):
                    rewrapped = [self._rewrapped(key) for key in wrapped]
                tx.execute(
                    update(table)
                    .where(table.c[key] == bindparam("row"))
                    .values(kek_id=bindparam("kek"), wrapped_dek=bindparam("dek")),
                    [
                        {"row": row[0], "kek": wrapped.kek_id, "dek": wrapped.wrapped_dek}
                        for row, wrapped in zip(stale, rewrapped, strict=True)
                    ],
                )
        return (rows[-1][0] if len(rows) == CHUNK else None), len(stale)

    def destroy_retired(self) -> list[str]:
        """Destroy every KEK that nothing in the database is wrapped under, but the active one. Returns their ids.

        The caller makes sure that no other process is writing: see `Custodian.rotate_keys`.
        """
        active = self._keys.active_kek_id
        if self.remaining(active):
            return []
        retired = [kek_id for kek_id in self._keys.kek_ids if kek_id != active]
        for kek_id in retired:
            self._keys.destroy(kek_id)
        self._scrubbed()
        return retired

    def remaining(self, active: str) -> int:
        """Envelopes that are wrapped under another KEK than `active`."""
        with self._store.read() as tx:
            return sum(
                tx.scalar(
                    select(func.count()).select_from(table).where(table.c.kek_id.is_not(None), table.c.kek_id != active)
                )
                or 0
                for table in SEALED_TABLES
            )

    def _rewrapped(self, key: WrappedKey) -> WrappedKey:
        return self._keys.wrap(self._keys.unwrap(key, ROTATION))
