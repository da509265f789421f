"""Clients of a custodian's API, for those who run none: `InstitutionClient` for lenders, `FurnisherClient` for sources.

They need neither database nor custodian, and take nothing on trust that they can check:

- No answer is believed unless the custodian signed it, to this very request (`channel.py`).
- A release must be what was asked, logged by this very request; with a chain at hand, the entry must be on it
  (`unsealing.py`).

With `custodian_key` the custodian's key is pinned. Without it, the key is the one that `/.well-known/consent-ledger`
shows on first use, and is kept while the client lives: whoever answered then, under the given URL, is trusted from then
on. Over https that is whoever has the certificate; over http, anyone on the way. `custodian_key` is then the key to pin
the next time.

What is evidence later is worth keeping: each release's `answer` and `receipt`, and soon its `proof`.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, Unpack
from urllib.parse import quote

from joserfc.jwk import ECKey

from ledger.answers import (
    AdverseAction,
    Consent,
    ConsentRequest,
    DeletionAttestation,
    Deployment,
    Event,
    Furnished,
    Invitation,
    ListedRelease,
    PublicKeys,
    SealedRelease,
    Webhook,
    error_of,
    read,
    read_all,
)
from ledger.chain import Chain
from ledger.channel import Channel, Options, signing_key_of
from ledger.consent import Domain, Hex32
from ledger.errors import AuditError, AuthenticationError, LedgerError, ServiceError
from ledger.exchange import check_jwks
from ledger.signatures import IDEMPOTENCY_KEY
from ledger.unsealing import Proof, Receipt, Release, ReleaseAsk, Unsealing

PAGE: Final = 100
REMEMBERED_KEYS: Final = 10_000
_T = TypeVar("_T")


class _Client:
    """What both have: a channel of their own."""

    def __init__(self, service_url: str, party_id: str, keys: Mapping[str, Any], **options: Unpack[Options]) -> None:
        self._channel = Channel(service_url, party_id, signing_key_of(keys), **options)

    def deployment(self) -> Deployment:
        """Who the custodian is, where its log is, what may be asked for. Only its key is checked, if one is pinned."""
        return self._channel.deployment()

    @property
    def custodian_key(self) -> ECKey:
        """The key that answers are verified with: to be pinned the next time."""
        return self._channel.custodian().key


class InstitutionClient(_Client):
    """A lender's side of the API. Safe to share between threads.

    `keys` is its JWK set with private keys, one to sign (`use: sig`) and one to be answered (`use: enc`); `chain` is
    where receipts are checked. For the options see `channel.Options`. What a custodian refuses is raised as the error
    of its code.
    """

    def __init__(
        self,
        service_url: str,
        institution_id: str,
        keys: Mapping[str, Any],
        *,
        chain: Chain | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(service_url, institution_id, keys, **options)
        self._chain = chain
        self._unsealing = Unsealing(institution_id, keys["keys"], custodian=self._channel.custodian, chain=chain)
        self._sent: OrderedDict[str, list[Hex32]] = OrderedDict()

    # ------------------------------------------------------------------------------------------------------- consents

    def ask_consent(
        self,
        *,
        purpose: str,
        attributes: Sequence[str],
        optional_attributes: Sequence[str] = (),
        validity_days: int,
        max_accesses: int,
        accesses_per_day: int,
        retention_days: int,
        replaces: Hex32 | None = None,
        answer_within_days: int = 30,
    ) -> ConsentRequest:
        """Ask a person for a consent; the answer has the link to hand to them.

        Not tried again once it may have arrived: raises `ServiceUnavailableError` then, and `consent_requests` shows
        whether it did.
        """
        body = {
            "purpose": purpose,
            "attributes": list(attributes),
            "optionalAttributes": list(optional_attributes),
            "validityDays": validity_days,
            "maxAccesses": max_accesses,
            "accessesPerDay": accesses_per_day,
            "retentionDays": retention_days,
            "answerWithinDays": answer_within_days,
        }
        replaced = {} if replaces is None else {"replaces": replaces}
        return read(ConsentRequest, self._channel.call("POST", "/v1/consent-requests", body | replaced))

    def consent_request(self, request_id: str) -> ConsentRequest:
        """What became of a consent request."""
        return read(ConsentRequest, self._channel.call("GET", f"/v1/consent-requests/{_in_path(request_id)}"))

    def consent_requests(self) -> Iterator[ConsentRequest]:
        """Every consent request, newest first."""
        return self._pages(ConsentRequest, "/v1/consent-requests", "requests", lambda one: one.id)

    def consents(self) -> Iterator[Consent]:
        """Every consent, newest first."""
        return self._pages(Consent, "/v1/consents", "consents", lambda one: one.id)

    def consent(self, consent_id: Hex32) -> Consent:
        """A consent's terms, and where it stands."""
        return read(Consent, self._channel.call("GET", f"/v1/consents/{_in_path(consent_id)}"))

    def give_up(self, consent_id: Hex32) -> Consent:
        """Give a consent up, for ever. The duty to delete what was received stays."""
        return read(Consent, self._channel.call("DELETE", f"/v1/consents/{_in_path(consent_id)}"))

    def attest_deletion(self, consent_id: Hex32, deleted_at: int) -> DeletionAttestation:
        """State, by the request's signature, that everything received under a consent was deleted at that time.

        Not tried again once it may have arrived; to state it twice does no harm.
        """
        path = f"/v1/consents/{_in_path(consent_id)}/deletion-attestations"
        return read(DeletionAttestation, self._channel.call("POST", path, {"deletedAt": deleted_at}))

    # ------------------------------------------------------------------------------------------------------- releases

    def release(
        self,
        consent_id: Hex32,
        *,
        purpose: str,
        attributes: Sequence[str],
        idempotency_key: str | None = None,
        earlier: Collection[Hex32] = (),
    ) -> Release:
        """Ask for attributes under a consent, and check the answer.

        A retry under the same key gets the same answer, whose receipt opens an entry of the try that was answered
        first. The tries of this client are known to it; those of a process before it are `earlier` (its `sent`).

        Raises the `ConsentError` that says why not, and `AuditError` for an answer that does not hold.
        """
        key = idempotency_key or secrets.token_urlsafe()
        asked = ReleaseAsk(consent_id=consent_id, purpose=purpose, attributes=attributes, earlier=earlier)
        answer = self._channel.call(
            "POST",
            f"/v1/consents/{_in_path(consent_id)}/releases",
            {"purpose": purpose, "attributes": list(attributes)},
            headers={IDEMPOTENCY_KEY.title(): key},
            repeatable=True,
            sent=lambda digest: self._note(key, digest),
        )
        return self._unsealed(answer, asked, key)

    def release_many(self, asks: Sequence[ReleaseAsk]) -> list[Release | LedgerError]:
        """Many releases by one signed request; in the place of each what became of it.

        Raises what refuses the request as a whole.
        """
        keys = [one.idempotency_key or secrets.token_urlsafe() for one in asks]
        items = [
            {
                "consent": one.consent_id,
                "purpose": one.purpose,
                "attributes": list(one.attributes),
                "idempotencyKey": key,
            }
            for one, key in zip(asks, keys, strict=True)
        ]

        def note(digest: Hex32) -> None:
            for key in keys:
                self._note(key, digest)

        answer = self._channel.call("POST", "/v1/batch/releases", {"releases": items}, repeatable=True, sent=note)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(asks):
            raise ServiceError("expected one result for each release", field="results")
        return [self._one_of_many(result, one, key) for result, one, key in zip(results, asks, keys, strict=True)]

    def _one_of_many(self, result: object, asked: ReleaseAsk, key: str) -> Release | LedgerError:
        fields = result if isinstance(result, Mapping) else {}
        if fields.get("release") is None:
            return error_of(fields.get("problem"))
        try:
            return self._unsealed(fields["release"], asked, key)
        except LedgerError as exc:
            return exc

    def _unsealed(self, answer: object, asked: ReleaseAsk, key: str) -> Release:
        return self._unsealing.release(read(SealedRelease, answer), asked, {*self.sent(key), *asked.earlier})

    def sent(self, idempotency_key: str) -> tuple[Hex32, ...]:
        """The digests of the requests that this client sent under a key; one of them is the log's `requestHash`."""
        return tuple(self._sent.get(idempotency_key, ()))

    def found(self, release_id: Hex32) -> Release:
        """An earlier release again, while the answer is kept. Whose request it was is for you to compare."""
        answer = self._channel.call("GET", f"/v1/releases/{_in_path(release_id)}")
        sealed = read(SealedRelease, answer)
        if sealed.id != release_id:
            raise AuditError("the release does not hold: it is another release")
        return self._unsealing.release(sealed, None, None)

    def releases(self, consent_id: Hex32) -> Iterator[ListedRelease]:
        """What was asked for under a consent, newest first: also once the answers are kept no more."""
        path = f"/v1/consents/{_in_path(consent_id)}/releases"
        return self._pages(ListedRelease, path, "releases", lambda one: one.id)

    def receipt(self, release_id: Hex32) -> Receipt:
        """The receipt, with the place where the entry stands now."""
        answer = self._channel.call("GET", f"/v1/releases/{_in_path(release_id)}/receipt")
        receipt = answer.get("receipt")
        if not isinstance(receipt, str):
            raise ServiceError("expected a receipt", field="receipt")
        return self._unsealing.receipt(receipt, release_id)

    def proof(self, release_id: Hex32) -> Proof:
        """Everything that leads from the receipt to a block's hash: for the time after the custodian.

        Without a chain, the contract is the one that the custodian names.
        """
        bundle = self._channel.call("GET", f"/v1/releases/{_in_path(release_id)}/proof")
        return self._unsealing.proof(bundle, release_id, self._domain())

    def adverse_action(
        self, release_id: Hex32, *, decision: str, reasons: Sequence[str], attributes: Sequence[str]
    ) -> AdverseAction:
        """Record a decision against the person that relied on a release. The same again changes nothing."""
        body = {"decision": decision, "reasons": list(reasons), "attributes": list(attributes)}
        path = f"/v1/releases/{_in_path(release_id)}/adverse-action"
        return read(AdverseAction, self._channel.call("POST", path, body, repeatable=True))

    # ------------------------------------------------------------------------------------------------ events and keys

    def webhook(self) -> str | None:
        """Where events are sent."""
        return read(Webhook, self._channel.call("GET", "/v1/webhook")).url

    def set_webhook(self, url: str) -> None:
        """Have events sent there."""
        self._channel.call("PUT", "/v1/webhook", {"url": url})

    def remove_webhook(self) -> None:
        """Have events sent nowhere; they can still be read."""
        self._channel.call("DELETE", "/v1/webhook")

    def events(self, after: str | None = None) -> Iterator[Event]:
        """What happened to the consents, oldest first, from after that event on."""
        return self._pages(Event, "/v1/events", "events", lambda one: one.id, after)

    def acknowledge(self, event_id: str) -> Event:
        """Say that it is known."""
        path = f"/v1/events/{_in_path(event_id)}/acknowledgement"
        return read(Event, self._channel.call("POST", path, repeatable=True))

    def rotate_keys(self, new_keys: Mapping[str, Any], overlap_days: int = 7) -> PublicKeys:
        """Replace the keys. This client signs with the new ones from then on, and still opens what the old ones can.

        If the answer is lost, the old keys may count no more: then it is asked again by the new ones.
        """
        signing_key = signing_key_of(new_keys)
        body = {"jwks": check_jwks(new_keys), "overlapDays": overlap_days}
        self._unsealing.add_keys(new_keys["keys"])
        try:
            answer = self._channel.call("PUT", "/v1/keys", body)
        except AuthenticationError:
            old, self._channel.signing_key = self._channel.signing_key, signing_key
            try:
                answer = self._channel.call("PUT", "/v1/keys", body)
            except BaseException:
                self._channel.signing_key = old
                raise
        self._channel.signing_key = signing_key
        return read(PublicKeys, answer)

    # --------------------------------------------------------------------------------------------------------- inside

    def _pages(
        self, kind: type[_T], path: str, name: str, id_of: Callable[[_T], str], after: str | None = None
    ) -> Iterator[_T]:
        while True:
            found = read_all(kind, self._channel.call("GET", path, query={"limit": PAGE, "after": after}), name)
            yield from found
            if len(found) < PAGE:
                return
            after = id_of(found[-1])

    def _note(self, key: str, digest: Hex32) -> None:
        self._sent.setdefault(key, []).append(digest)
        while len(self._sent) > REMEMBERED_KEYS:
            self._sent.popitem(last=False)

    def _domain(self) -> Domain:
        if self._chain is not None:
            return self._chain.domain
        deployed = self.deployment()
        return Domain(chain_id=deployed.chain_id, contract=deployed.contract)


class FurnisherClient(_Client):
    """A furnisher's side of the API: who hands data in. Arguments as those of `InstitutionClient`."""

    def put(self, ref: str, as_of: str, values: Mapping[str, int | float | bool | str]) -> Furnished:
        """Hand in what is known of a person as of a day (ISO date): all of it is taken or nothing.

        `ref` is the custodian's reference of the person, the same for all furnishers.
        """
        path = f"/v1/subjects/{_in_path(ref)}/attributes"
        return read(Furnished, self._channel.call("PUT", path, {"asOf": as_of, "values": dict(values)}))

    def invite(self, ref: str) -> Invitation:
        """A code for a person of whom all values are yours: hand it to them and nobody else. Older ones are void."""
        return read(Invitation, self._channel.call("POST", f"/v1/subjects/{_in_path(ref)}/invitations"))


def _in_path(text: str) -> str:
    # Dots too: a client that tidies paths would resolve a segment of nothing else.
    return quote(text, safe="").replace(".", "%2E")
