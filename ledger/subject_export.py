"""The export: everything that is held about a person, as one JSON document and as receipts, for that person alone.

Nothing is left out because it is awkward: data with every version, consents with their terms and where they stand,
requests with their answers, every access and every attempt, what institutions owe and decided, the notices that were
signed, disputes, and how the person signs in. Keys and ciphertexts are no data about a person and are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

from ledger.activity import MAX_PAGE, Activities, Activity, CompelledActivity
from ledger.concerns import Concerns
from ledger.consent import Hex32
from ledger.consent_receipts import RecordedConsent, receipt_document
from ledger.disputes import Disputes
from ledger.duties import Duties
from ledger.enrolment import Enrolment
from ledger.errors import ChainError, NotFoundError
from ledger.grants import Grants
from ledger.invitations import Invitations
from ledger.json_forms import camel_case
from ledger.notices import Notices
from ledger.orders import Orders
from ledger.own_requests import OwnRequests
from ledger.public_record import PublicRecords
from ledger.registry import Registry, StoredConsent
from ledger.sessions import Sessions
from ledger.standing import Standings
from ledger.store import new_id
from ledger.subject_data import SubjectData

EXPORT_VERSION: Final = 1
ALL_REQUESTS: Final = 10_000
UNKNOWN: Final = "unknown"


class SubjectExport:
    """Puts it together."""

    def __init__(
        self,
        registry: Registry,
        grants: Grants,
        standings: Standings,
        requests: OwnRequests,
        activity: Activities,
        orders: Orders,
        data: SubjectData,
        disputes: Disputes,
        duties: Duties,
        concerns: Concerns,
        notices: Notices,
        public: PublicRecords,
        enrolment: Enrolment,
        sessions: Sessions,
        invitations: Invitations,
        *,
        service_url: str,
        clock: Callable[[], int],
    ) -> None:
        self._registry, self._grants, self._standings, self._requests = registry, grants, standings, requests
        self._orders = orders
        self._activity, self._data, self._disputes, self._duties = activity, data, disputes, duties
        self._concerns, self._notices, self._public = concerns, notices, public
        self._enrolment, self._sessions, self._invitations = enrolment, sessions, invitations
        self._service_url, self._clock = service_url, clock

    def of_subject(self, subject_id: str, *, account_id: str | None = None) -> dict[str, Any]:
        """Everything, ready for `json.dumps`; with the account of the session also how the person signs in.

        Where the chain is away, consents' states are `unknown` and the rest is complete. Raises `VaultError`.
        """
        consents = self._registry.consents(subject_id)
        states = self._states(consents)
        attestations = self._duties.standing([one.consent_id for one in consents])
        return {
            "version": EXPORT_VERSION,
            "exportedAt": self._clock(),
            "timesAre": "Unix seconds, UTC",
            "custodian": self._service_url,
            "account": self._account(subject_id, account_id) if account_id else None,
            "data": plain(self._data.attributes(subject_id)),
            "disputes": plain(self._disputes.of_subject(subject_id)),
            "consents": [
                {
                    "consentId": one.consent_id,
                    "state": states[one.consent_id],
                    "grantedAt": one.created_at,
                    "revokedAt": one.revoked_at,
                    "replacedBy": one.replaced_by,
                    "grant": one.grant.as_json(),
                    "signature": "0x" + one.signature.hex(),
                    "deletion": plain(attestations[one.consent_id]),
                    "receipt": self._grants.receipt(one.consent_id),
                    "revocationReceipt": None
                    if one.revoked_at is None
                    else self._grants.revocation_receipt(one.consent_id),
                    "consentReceipt": self._document(one),
                }
                for one in consents
            ],
            "requests": plain(self._requests.for_subject(subject_id, limit=ALL_REQUESTS)),
            "activity": [
                plain(one) | {"entry": self._activity.entry(subject_id, one.release_id).entry.as_json()}
                for one in self._accesses(subject_id)
            ],
            "orders": [self._order(subject_id, one) for one in self._activity.compelled(subject_id)],
            "concerns": plain(self._concerns.of_subject(subject_id)),
            "notices": self._texts(consents),
            "onChain": plain(self._public.of_subject(subject_id)),
        }

    def consent_receipt(self, subject_id: str, consent_id: Hex32) -> dict[str, Any]:
        """One consent of this person as an ISO/IEC TS 27560 receipt. Raises `NotFoundError` (also for another's)."""
        found = self._registry.find_consent(consent_id)
        if found is None or found.subject_id != subject_id:
            raise NotFoundError("consent: no such consent", field="consent")
        return self._document(found)

    def _document(self, consent: StoredConsent) -> dict[str, Any]:
        terms = consent.grant.terms
        try:
            notice = self._notices.notice(terms.notice_hash)
        except NotFoundError:
            notice = None
        recorded = RecordedConsent(
            consent_id=consent.consent_id,
            grant=consent.grant,
            granted_at=consent.created_at,
            ended_at=consent.revoked_at,
            ended_by=self._registry.revoked_by(consent.consent_id),
            notice=notice,
            sources=self._data.sources(consent.subject_id, terms.attributes),
        )
        return receipt_document(
            recorded, self._grants.domain, service_url=self._service_url, receipt_id=new_id(), at=self._clock()
        )

    def _account(self, subject_id: str, account_id: str) -> dict[str, Any]:
        return {
            "passkeys": [
                {"name": one.name, "createdAt": one.created_at, "lastUsedAt": one.last_used_at}
                for one in self._enrolment.passkeys(account_id)
                if one.subject_id == subject_id
            ],
            "wallets": [
                {"address": one.address, "createdAt": one.created_at, "lastUsedAt": one.last_used_at}
                for one in self._enrolment.wallets(account_id)
                if one.subject_id == subject_id
            ],
            "sessions": [
                {"method": one.method, "device": one.device, "createdAt": one.created_at, "seenAt": one.seen_at}
                for one in self._sessions.listed(account_id)
            ],
            "invitations": [
                {"byCustodian": one.by_custodian, "createdAt": one.created_at, "expiresAt": one.expires_at}
                for one in self._invitations.open(subject_id)
            ],
        }

    def _states(self, consents: Sequence[StoredConsent]) -> dict[Hex32, str]:
        try:
            return {one.consent.consent_id: one.state for one in self._standings.of(consents)}
        except ChainError:
            return {one.consent_id: UNKNOWN for one in consents}

    def _accesses(self, subject_id: str) -> list[Activity]:
        found: list[Activity] = []
        while more := self._activity.page(subject_id, limit=MAX_PAGE, after=found[-1].release_id if found else None):
            found += more
        return found

    def _order(self, subject_id: str, one: CompelledActivity) -> dict[str, Any]:
        opened = self._activity.compelled_entry(subject_id, one.order_hash)
        return {
            **plain(one),
            "order": opened.order.as_json(),
            "entry": opened.entry.as_json(),
            "receipt": self._orders.receipt(one.order_hash, subject_id=subject_id) if opened.proof else None,
        }

    def _texts(self, consents: Sequence[StoredConsent]) -> dict[str, str]:
        """By hash; those that somebody else showed and did not hand in are missing."""
        texts: dict[str, str] = {}
        for notice_hash in {one.grant.terms.notice_hash for one in consents}:
            try:
                texts[notice_hash] = self._notices.text(notice_hash)
            except NotFoundError:
                continue
        return texts


def plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """Frozen results as JSON has them: names in camelCase, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {camel_case(one.name): plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
