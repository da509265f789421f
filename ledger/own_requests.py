"""A person's own consent requests: claimed by who opens the link signed in, and quiet after a "no".

claim    whoever is signed in and opens a link has the request from then on: no one else's account sees or answers it
quiet    after a "no", what else the same institution asks of the same person within `QUIET_DAYS` is kept, counted
         (`prompts.py`) and not put before them; they may open it by their own will, or when the days are over

The institution is told nothing of any of this: to it the request is pending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from ledger.consent_requests import PENDING, REQUESTS, ConsentRequest, ConsentRequests
from ledger.errors import ConflictError, ErasedError, NotFoundError
from ledger.json_forms import DAY_SECONDS
from ledger.notice_texts import QUIET_DAYS
from ledger.prompts import HIDDEN, REOPENED, SHOWN, Prompts
from ledger.store import Store, consent_requests, subjects

QUIET_SECONDS: Final = QUIET_DAYS * DAY_SECONDS
LISTED: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRequest:
    """A request as its person sees it. Times are Unix seconds; `token` is what stands at the end of its link.

    `claimed_at` is None if the person answered by the link alone. `quiet_until`: it came within the quiet period after
    a "no" to the same institution, which lasts until then; None if it did not. `is_hidden`: it waits for an answer and
    is not to be put before the person now.
    """

    request: ConsentRequest
    token: str
    claimed_at: int | None
    declined_at: int | None
    quiet_until: int | None
    is_hidden: bool


class OwnRequests:
    """What a signed-in person does with requests. Every `subject_id` is that of the session, never of the page."""

    def __init__(self, store: Store, requests: ConsentRequests, prompts: Prompts, *, clock: Callable[[], int]) -> None:
        self._store, self._requests, self._prompts, self._clock = store, requests, prompts, clock

    def claim(self, token: str, subject_id: str) -> OwnRequest:
        """Open a link as this person: theirs from now on. The same again changes nothing.

        Counts the prompt, once. Raises `NotFoundError` (also if it is another person's), `ErasedError`.
        """
        with self._store.begin() as tx:
            row = self._requests.held(tx, token, subject_id)
            is_new = self._bind(tx, row, subject_id)
            row = self._requests.held(tx, token, subject_id)
            found = self._own(row, self._refusals(tx, subject_id))
            if found.request.state == PENDING and row.shown_at is None:
                if not found.is_hidden:
                    self._show(tx, row, SHOWN, found)
                elif is_new:
                    self._prompts.add(tx, found.request.institution, HIDDEN)
        return found

    def reopen(self, token: str, subject_id: str) -> OwnRequest:
        """Look at a hidden request by one's own will: from now on it is like any other.

        Raises `NotFoundError`, `ErasedError`.
        """
        with self._store.begin() as tx:
            row = self._requests.held(tx, token, subject_id)
            self._bind(tx, row, subject_id)
            row = self._requests.held(tx, token, subject_id)
            found = self._own(row, self._refusals(tx, subject_id))
            if found.is_hidden:
                self._show(tx, row, REOPENED, found)
            return self._own(self._requests.held(tx, token, subject_id), self._refusals(tx, subject_id))

    def decline(self, token: str, subject_id: str, *, steps: int | None = None) -> OwnRequest:
        """Say no as this person; the quiet period begins. `steps` is how many the page says it took.

        Raises `NotFoundError`, `ErasedError`, `ConflictError` if it is granted: a consent is ended by revoking it.
        """
        with self._store.begin() as tx:
            self._bind(tx, self._requests.held(tx, token, subject_id), subject_id)
            self._requests.decline_in(tx, token, subject_id, steps=steps)
            return self._own(self._requests.held(tx, token, subject_id), self._refusals(tx, subject_id))

    def for_subject(self, subject_id: str, *, limit: int = LISTED) -> list[OwnRequest]:
        """A person's requests, newest first; hidden ones are among them and say so."""
        requests = consent_requests.c
        query = REQUESTS.where(requests.subject_id == subject_id, requests.body.is_not(None))
        query = query.order_by(requests.created_at.desc(), requests.request_id.desc()).limit(limit)
        with self._store.read() as tx:
            refusals = self._refusals(tx, subject_id)
            return [self._own(row, refusals) for row in tx.execute(query)]

    # ---------------------------------------------------------------------------------------------------------- inside

    def _bind(self, tx: Connection, row: Row[Any], subject_id: str) -> bool:
        """Make a request this person's for good. Returns whether it was not before."""
        if row.body is None:
            raise ErasedError("the data were erased")
        if row.claimed_at is not None:
            return False
        living = select(subjects.c.erased_at).where(subjects.c.subject_id == subject_id)
        if (found := tx.execute(living).first()) is None or found.erased_at is not None:
            raise ErasedError("subject: erased", field="subject")
        # Who answered it by the link has it as well.
        if row.standing is not None and row.subject_id != subject_id:
            raise NotFoundError("request: no such request", field="request")
        free = (consent_requests.c.request_id == row.request_id, consent_requests.c.claimed_at.is_(None))
        claim = {"subject_id": subject_id, "claimed_at": self._clock()}
        if not tx.execute(update(consent_requests).where(*free).values(**claim)).rowcount:
            raise ConflictError("request: claimed meanwhile", field="request")
        return True

    def _show(self, tx: Connection, row: Row[Any], kind: str, found: OwnRequest) -> None:
        shown = update(consent_requests).where(consent_requests.c.request_id == row.request_id)
        tx.execute(shown.values(shown_at=self._clock()))
        self._prompts.add(tx, found.request.institution, kind)

    def _refusals(self, tx: Connection, subject_id: str) -> Sequence[Row[*tuple[Any, ...]]]:
        requests = consent_requests.c
        query = select(requests.request_id, requests.institution_index, requests.declined_at)
        return tx.execute(query.where(requests.subject_id == subject_id, requests.declined_at.is_not(None))).all()

    def _own(self, row: Row[Any], refusals: Sequence[Row[*tuple[Any, ...]]]) -> OwnRequest:
        request = self._requests.read(row)
        # When it reached the person counts, not when it was made: links can be kept in store.
        quiet = [
            refusal.declined_at + QUIET_SECONDS
            for refusal in refusals
            if row.claimed_at is not None
            and refusal.request_id != row.request_id
            and refusal.institution_index == row.institution_index
            and refusal.declined_at <= row.claimed_at < refusal.declined_at + QUIET_SECONDS
        ]
        until = max(quiet, default=None)
        waits = request.state == PENDING and row.shown_at is None
        return OwnRequest(
            request=request,
            token=self._requests.token_in(row),
            claimed_at=row.claimed_at,
            declined_at=row.declined_at,
            quiet_until=until,
            is_hidden=waits and until is not None and self._clock() < until,
        )
