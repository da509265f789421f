"""Consent requests: how an institution asks a person for a consent, before any grant exists.

ask      what the institution wants is held against the ceilings of its purpose before anyone sees it
opened   whoever holds the link sees what is asked; the link itself is on file only inside the envelope
claimed  a person who is signed in and opens the link has it for good: it is theirs alone to see and to answer, and the
         link is not enough any more (`own_requests.py`)
accept   the person signs a grant that lies within the request; the two are linked in the transaction in which the grant
         goes on file, so that a request has one answer
decline  takes the link and nothing else, while no one has claimed it

    pending ─► granted (its grant stands on chain) | declined | expired (no answer in time)

While a signed grant is on its way to the chain, its request is pending and takes no other answer. If the contract
refuses that grant, the request is as open as before.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select, tuple_, update

from ledger.consent import ZERO32, Address, ConsentGrant, Hex32
from ledger.errors import ConflictError, ConsentAlreadyGrantedError, NotFoundError
from ledger.exchange import Party
from ledger.grants import Grants
from ledger.json_forms import DAY_SECONDS
from ledger.keys import KeyFile
from ledger.notice_texts import notice_hash_of
from ledger.notices import Notices
from ledger.prompts import SAID_NO, SAID_YES, Prompts
from ledger.purposes import purpose as purpose_of
from ledger.registry import Registry, StoredConsent
from ledger.requested import RequestedTerms, limit_of, require_days
from ledger.store import Store, consent_requests, consents, new_id
from ledger.vault import open_json, seal_json

PENDING: Final = "pending"
GRANTED: Final = "granted"
DECLINED: Final = "declined"
EXPIRED: Final = "expired"

ANSWER_DAYS: Final = 30
MAX_ANSWER_DAYS: Final = 90
TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")

# With a request comes whether its grant stands: None if there is none on file, or the contract refused it.
REQUESTS: Final = select(consent_requests, consents.c.standing).outerjoin(
    consents, consents.c.consent_id == consent_requests.c.consent_id
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRequest(RequestedTerms):
    """What an institution asks a person for, and what became of it. Times are Unix seconds.

    `consent_id` is known once granted; `link` is for the institution that asked, while an answer can be given.
    """

    request_id: str
    created_at: int
    answer_by: int
    state: str
    consent_id: Hex32 | None
    link: str | None


class ConsentRequests:
    """Asking, answering, and what became of it."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        grants: Grants,
        notices: Notices,
        prompts: Prompts,
        keys: KeyFile,
        *,
        service_url: str,
        clock: Callable[[], int],
    ) -> None:
        self._store, self._registry, self._grants, self._keys = store, registry, grants, keys
        self._notices, self._prompts = notices, prompts
        self._service_url, self._clock = service_url, clock

    # ------------------------------------------------------------------------------------------------- the institution

    def ask(
        self,
        institution: Party,
        *,
        purpose: str,
        attributes: Sequence[str],
        optional_attributes: Sequence[str] = (),
        validity_days: int,
        max_accesses: int,
        accesses_per_day: int,
        retention_days: int,
        replaces: Hex32 = ZERO32,
        answer_within_days: int = ANSWER_DAYS,
    ) -> ConsentRequest:
        """Put a request on file; the answer has its link.

        Raises `RequestError`s by the API's names of the fields, `NotFoundError` if `replaces` is no consent of this
        institution that could be amended.
        """
        now = self._clock()
        require_days("answerWithinDays", answer_within_days, MAX_ANSWER_DAYS)
        terms = RequestedTerms(
            institution=institution.party_id,
            institution_name=institution.name,
            purpose=purpose,
            attributes=tuple(attributes),
            optional_attributes=tuple(optional_attributes),
            validity_days=validity_days,
            max_accesses=max_accesses,
            accesses_per_day=accesses_per_day,
            retention_days=retention_days,
            replaces=replaces,
            notice_hash=notice_hash_of(purpose_of(purpose)),
        )
        terms.check(now)
        if replaces != ZERO32:
            self._require_replaceable(replaces, institution.party_id)
        request_id, token = new_id(), _new_token()
        row = {
            "request_id": request_id,
            "institution_index": self._registry.institution_index(institution.party_id),
            "token_index": self._keys.index("request-token", token),
            "created_at": now,
            "answer_by": now + answer_within_days * DAY_SECONDS,
            **seal_json({**asdict(terms), "token": token}, _context(request_id), self._keys),
        }
        with self._store.begin() as tx:
            self._notices.keep(tx, terms.notice_hash)
            tx.execute(consent_requests.insert(), [row])
        return self.get(request_id, institution)

    def get(self, request_id: str, institution: Party) -> ConsentRequest:
        """A request of this institution. Raises `NotFoundError` (also if it is another's), `ErasedError`."""
        mine = consent_requests.c.institution_index == self._registry.institution_index(institution.party_id)
        with self._store.read() as tx:
            row = tx.execute(REQUESTS.where(mine, consent_requests.c.request_id == request_id)).first()
        if row is None:
            raise NotFoundError("request: no such request", field="request")
        return self.read(row, with_link=True)

    def listed(self, institution: Party, *, limit: int, after: str | None = None) -> list[ConsentRequest]:
        """A page of an institution's requests, newest first, from `after` on; without links, and without erased ones.

        Raises `NotFoundError`.
        """
        requests = consent_requests.c
        mine = requests.institution_index == self._registry.institution_index(institution.party_id)
        query = REQUESTS.where(mine, requests.body.is_not(None))
        with self._store.read() as tx:
            if after is not None:
                last = tx.execute(select(requests.created_at).where(mine, requests.request_id == after)).first()
                if last is None:
                    raise NotFoundError("after: expected the id of a request", field="after")
                query = query.where(tuple_(requests.created_at, requests.request_id) < (last.created_at, after))
            query = query.order_by(requests.created_at.desc(), requests.request_id.desc()).limit(limit)
            return [self.read(row) for row in tx.execute(query)]

    # ------------------------------------------------------------------------------------------------------ the person

    def opened(self, token: str, subject_id: str | None = None) -> ConsentRequest:
        """What the person who holds the link sees; once it is claimed, none but that person (`subject_id`).

        Raises `NotFoundError` (also if another person claimed it), `ErasedError`.
        """
        with self._store.read() as tx:
            return self.read(self.held(tx, token, subject_id))

    def is_on_its_way(self, token: str, subject_id: str | None = None) -> bool:
        """Whether a signed grant waits for the chain: the request takes no other answer. Raises as `opened`."""
        with self._store.read() as tx:
            return self.held(tx, token, subject_id).standing is False

    def draft(
        self,
        token: str,
        subject: Address,
        *,
        attributes: Sequence[str] | None = None,
        max_accesses: int | None = None,
        accesses_per_day: int | None = None,
        retention_days: int | None = None,
        validity_days: int | None = None,
        subject_id: str | None = None,
    ) -> ConsentGrant:
        """What the person will sign, from now on: all that is required, and of the optional `attributes` those chosen.

        A limit that is given may be shorter than what was asked; a claimed request needs its person (`subject_id`).
        Raises `NotFoundError`, `ConflictError` if it takes no answer any more, `OutsideRequestError`, and as `prepare`.
        """
        with self._store.read() as tx:
            row = self.held(tx, token, subject_id)
        self._require_open(row)
        asked, now = self.read(row), self._clock()
        accesses = limit_of("maxAccesses", max_accesses, asked.max_accesses)
        # Fewer in all are also fewer a day.
        per_day = min(accesses, asked.accesses_per_day)
        days = limit_of("validityDays", validity_days, asked.validity_days)
        return self._grants.prepare(
            institution_id=asked.institution,
            subject=subject,
            purpose=asked.purpose,
            attributes=asked.with_optional(attributes or ()),
            valid_from=now,
            expires_at=now + days * DAY_SECONDS,
            max_accesses=accesses,
            accesses_per_day=limit_of("accessesPerDay", accesses_per_day, per_day),
            retention_days=limit_of("retentionDays", retention_days, asked.retention_days, least=0),
            notice_hash=asked.notice_hash,
            replaces=asked.replaces,
            subject_id=subject_id,
        )

    def accept(
        self, token: str, grant: ConsentGrant, signature: bytes, subject_id: str, *, steps: int | None = None
    ) -> StoredConsent:
        """Answer a request by a signed grant that lies within it. The same call again goes on where it was cut off.

        `steps` is how many the page says it took (`prompts.py`). Raises `NotFoundError` (also if another person claimed
        it), `ConflictError` if the request has another answer or its time is over, `OutsideRequestError` naming the
        field, and as `Grants.grant`.
        """
        with self._store.read() as tx:
            row = self.held(tx, token, subject_id)
        consent_id = self._grants.id_of(grant)
        if row.standing is None or row.consent_id != consent_id:
            self._require_open(row)
            if self._registry.find_consent(consent_id) is not None:
                raise ConsentAlreadyGrantedError("consent: this very grant is on file without this request")
        self.read(row).require_within(grant)

        def link(tx: Connection) -> None:
            self._answer(tx, token, subject_id, consent_id=consent_id, subject_id=subject_id)
            self._prompts.add(tx, grant.terms.institution, SAID_YES, steps=steps)

        return self._grants.grant(grant, signature, subject_id, within=link)

    def decline(self, token: str) -> ConsentRequest:
        """Say no, for which the link is enough unless it is claimed. What is declined or expired stays what it is.

        Raises `NotFoundError`, `ErasedError`, `ConflictError` if it is granted: a consent is ended by revoking it.
        """
        with self._store.begin() as tx:
            return self.decline_in(tx, token)

    # --------------------------------------------------------------------------------------------- within a transaction

    def decline_in(
        self, tx: Connection, token: str, subject_id: str | None = None, *, steps: int | None = None
    ) -> ConsentRequest:
        """As `decline`, of a request that may be claimed by this person."""
        row = self.held(tx, token, subject_id)
        if row.standing:
            raise ConflictError("request: granted, and a consent is ended by revoking it", field="request")
        if self.state(row) == PENDING:
            self._answer(tx, token, subject_id, declined_at=self._clock())
            self._prompts.add(tx, self.read(row).institution, SAID_NO, steps=steps)
        return self.read(self.held(tx, token, subject_id))

    def held(self, tx: Connection, token: str, subject_id: str | None) -> Row[Any]:
        """The row of a link, if it is this person's to see, or no one's yet. Raises `NotFoundError`."""
        row = None
        if _TOKEN.match(token):
            held = consent_requests.c.token_index == self._keys.index("request-token", token)
            row = tx.execute(REQUESTS.where(held)).first()
        if row is None or (row.claimed_at is not None and row.subject_id not in (subject_id, None)):
            raise NotFoundError("request: no such request", field="request")
        return row

    # ---------------------------------------------------------------------------------------------------------- inside

    def _answer(self, tx: Connection, token: str, by: str | None, /, **answer: str | int) -> None:
        row = self.held(tx, token, by)
        self._require_open(row)
        as_read = (
            consent_requests.c.request_id == row.request_id,
            consent_requests.c.declined_at.is_(None),
            consent_requests.c.consent_id.is_not_distinct_from(row.consent_id),
        )
        # Where transactions run side by side, the one that was overtaken changes nothing.
        if not tx.execute(update(consent_requests).where(*as_read).values(**answer)).rowcount:
            raise ConflictError("request: answered meanwhile", field="request")

    def _require_open(self, row: Row[Any]) -> None:
        if (state := self.state(row)) != PENDING:
            raise ConflictError(f"request: expected one that waits for its answer, it is {state}", field="request")
        if row.standing is not None:
            raise ConflictError("request: a signed grant is on its way to the chain already", field="request")

    def state(self, row: Row[Any]) -> str:
        """What became of a request."""
        if row.declined_at is not None:
            return DECLINED
        if row.standing:
            return GRANTED
        # A grant that is on its way was signed in time.
        return EXPIRED if row.standing is None and row.answer_by <= self._clock() else PENDING

    def token_in(self, row: Row[Any]) -> str:
        """The token of a request's link. Raises `ErasedError`, `VaultError`."""
        return str(open_json(row, _context(row.request_id), self._keys)["token"])

    def read(self, row: Row[Any], *, with_link: bool = False) -> ConsentRequest:
        """A request from its row. Raises `ErasedError`, `VaultError`."""
        body = open_json(row, _context(row.request_id), self._keys)
        token, state = body.pop("token"), self.state(row)
        return ConsentRequest(
            request_id=row.request_id,
            **body | {name: tuple(body[name]) for name in ("attributes", "optional_attributes")},
            created_at=row.created_at,
            answer_by=row.answer_by,
            state=state,
            consent_id=row.consent_id if state == GRANTED else None,
            link=f"{self._service_url}/requests/{token}" if with_link and state == PENDING else None,
        )

    def _require_replaceable(self, consent_id: Hex32, party_id: str) -> None:
        with self._store.read() as tx:
            row = self._registry.rows(tx, [consent_id]).get(consent_id)
        mine = row is not None and row.institution_index == self._registry.institution_index(party_id)
        if row is None or not mine or row.revoked_at is not None:
            raise NotFoundError("replaces: expected a consent of yours that is not revoked", field="replaces")


def token_of(link: str) -> str:
    """The token in a link; a token by itself is taken as it is."""
    return link.rsplit("/", 1)[-1]


def _new_token() -> str:
    # A command line would take a dash at its beginning for an option.
    while (token := secrets.token_urlsafe(TOKEN_BYTES)).startswith("-"):
        pass
    return token


def _context(request_id: str) -> dict[str, str]:
    return {"kind": "consent-request", "request": request_id}
