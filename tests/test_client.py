"""The Python clients over real sockets, with a man in the middle who tries to sell them something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from actors import DAY, NOON, Furnisher, Institution, Subject, World
from middle import Middle, Plan, WireAnswer, altering, cutting, saying
from service import served, serving
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import NewConnectionError

from ledger import errors, exchange
from ledger.answers import ERRORS, Attribute, Category, Consent, DeletionDuty, Value, error_of, read
from ledger.chain import JsonRpcChain
from ledger.channel import MAX_RETRY_AFTER_SECONDS, TRIES
from ledger.client import FurnisherClient, InstitutionClient
from ledger.config import Config
from ledger.consent import Hex32
from ledger.custodian import Custodian
from ledger.devnet import free_port
from ledger.errors import (
    AlreadyExistsError,
    AttributeNotConsentedError,
    AuditError,
    AuthenticationError,
    ConfigError,
    ConsentPausedError,
    ConsentRevokedError,
    IdempotencyConflictError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    ReleaseInProgressError,
    ServiceError,
    ServiceUnavailableError,
    StaleRequestError,
)
from ledger.exchange import RECEIPT_TYPE, new_institution_keys, seal_answer, sign_claims, verify_claims
from ledger.jsonrpc import JsonRpc
from ledger.signatures import HttpRequest, HttpResponse, sign_response
from ledger.unsealing import Release, ReleaseAsk

ASKED: dict[str, Any] = {"purpose": "loan-origination", "attributes": ["credit_amount"]}
WANTED: dict[str, Any] = {
    "purpose": "loan-origination",
    "attributes": ["savings"],
    "validity_days": 1,
    "max_accesses": 1,
    "accesses_per_day": 1,
    "retention_days": 1,
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A world whose custodian is reached through a man in the middle. `slept` is how long clients waited."""

    world: World
    custodian: Custodian
    middle: Middle
    slept: list[float]

    def client(self, institution: Institution | None = None, **options: Any) -> InstitutionClient:
        who = institution or self.world.institution
        given: dict[str, Any] = {
            "clock": self.world.clock,
            "sleep": self.slept.append,
            "chain": self.world.chain,
            "timeout": 20,
        }
        return InstitutionClient(self.middle.url, who.institution_id, who.jwks, **(given | options))

    def known(self, **options: Any) -> InstitutionClient:
        """A client that has met the custodian already, so that the next request is the one that is watched."""
        client = self.client(**options)
        client.deployment()
        self.middle.requests.clear()
        return client

    def plan(self, *plans: Plan) -> None:
        self.middle.plans.extend(plans)

    def lying(self, change: Callable[[WireAnswer], WireAnswer]) -> Plan:
        """Alters the answer, and has the custodian sign it."""
        return lambda middle, request: self.signed(change(WireAnswer.of(middle.ask(request))), request).raw()

    @property
    def public_key(self) -> dict[str, Any]:
        return dict(self.custodian.accounts.signing_key.as_dict(private=False))

    def signed(self, answer: WireAnswer, request: bytes) -> WireAnswer:
        """As the custodian would sign it, if it were on the attacker's side."""
        head = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head[1:])
        made = sign_response(
            HttpResponse(
                status_code=answer.status,
                headers={},
                body=answer.body,
                request=HttpRequest(method=method, url=self.middle.url + path, headers=headers),
            ),
            party_id=self.custodian.address,
            key=self.custodian.accounts.signing_key,
            at=self.world.clock(),
        )
        for name, value in made.headers.items():
            answer = answer.having(name, value)
        return answer


@pytest.fixture
def line(world: World) -> Iterator[Line]:
    port = free_port()
    middle = Middle(port)
    config = replace(world.config, service_url=middle.url)
    custodian = Custodian(config, chain=world.chain, clock=world.clock, step=world.steps)
    try:
        with serving(custodian, port):
            yield Line(world=world, custodian=custodian, middle=middle, slept=[])
    finally:
        custodian.close()
        middle.close()


def accepted(line: Line, link: str | None) -> Hex32:
    """The person who was handed the link agrees."""
    assert link is not None
    custodian, subject = line.custodian, line.world.subject
    token = link.rsplit("/", 1)[-1]
    draft = custodian.requests.draft(token, subject.address)
    subject_id = custodian.vault.subject_of(subject.ref)
    return custodian.requests.accept(token, draft, subject.sign(custodian, draft), subject_id).consent_id


# ------------------------------------------------------------------------------------------------------- the whole way


def test_a_lender_asks_is_answered_decides_and_forgets(line: Line) -> None:
    client = line.client()
    asked = client.ask_consent(
        purpose="loan-origination",
        attributes=["credit_amount"],
        optional_attributes=["savings"],
        validity_days=30,
        max_accesses=3,
        accesses_per_day=3,
        retention_days=31,
    )
    assert (asked.state, asked.consent) == ("pending", None)
    assert asked.qr is not None
    consent_id = accepted(line, asked.link)
    assert client.consent_request(asked.id).consent == consent_id
    assert [one.id for one in client.consent_requests()] == [asked.id]

    release = client.release(consent_id, **ASKED)
    assert release.values["credit_amount"] == Value(
        value=1169, unit="DEM", source="urn:test:furnisher", as_of="2026-01-31"
    )
    assert release.erase_by == NOON + 31 * DAY
    assert release.verified is not None
    assert [release.verified.outcome.access.entry_hash] == line.world.logged()
    assert client.found(release.release_id).answer == release.answer
    (listed,) = client.releases(consent_id)
    assert (listed.id, listed.state, listed.reason) == (release.release_id, "released", None)
    receipt = client.receipt(release.release_id)
    assert (receipt.entry.request_hash, receipt.verified is not None) == (release.request_hash, True)

    standing = client.consent(consent_id)
    assert (standing.uses_left, standing.state) == (2, "in_force")
    assert [one.id for one in client.consents()] == [consent_id]
    decided = client.adverse_action(
        release.release_id, decision="declined", reasons=["Debts too high"], attributes=["credit_amount"]
    )
    assert decided.reasons == ("Debts too high",)
    assert client.give_up(consent_id).state == "revoked"
    line.world.clock.advance(60)
    assert client.attest_deletion(consent_id, line.world.clock()).consent == consent_id
    assert client.consent(consent_id).deletion.attested_at == line.world.clock()

    events = list(client.events())
    assert {event.consent for event in events} == {consent_id}
    assert client.acknowledge(events[0].id).acknowledged_at == line.world.clock()
    assert list(client.events(after=events[0].id)) == events[1:]
    client.set_webhook("https://bank.example/events")
    assert client.webhook() == "https://bank.example/events"
    client.remove_webhook()
    assert client.webhook() is None


def test_pages_are_followed_to_the_end(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    ids = [line.world.grant() for _ in range(5)]
    monkeypatch.setattr("ledger.client.PAGE", 2)
    assert sorted(one.id for one in client.consents()) == sorted(ids)
    line.middle.requests.clear()
    assert len(list(client.consents())) == 5
    assert len(line.middle.requests) == 3


def test_many_releases_have_each_their_own_result(line: Line) -> None:
    client = line.client()
    good, paused = line.world.grant(), line.world.grant()
    line.world.subject.pause(line.world.custodian, paused)
    asks = [
        ReleaseAsk(consent_id=good, purpose="loan-origination", attributes=["savings"]),
        ReleaseAsk(consent_id=paused, purpose="loan-origination", attributes=["savings"]),
        ReleaseAsk(consent_id=good, purpose="loan-origination", attributes=["credit_duration"]),
    ]
    first, second, third = client.release_many(asks)
    assert isinstance(first, Release)
    assert first.values["savings"].value == "below_100"
    assert first.verified is not None
    assert isinstance(second, ConsentPausedError)
    assert isinstance(third, AttributeNotConsentedError)


def test_a_furnisher_hands_in_what_it_knows(line: Line) -> None:
    furnisher = Furnisher()
    furnisher.register(line.custodian)
    client = FurnisherClient(line.middle.url, furnisher.furnisher_id, furnisher.jwks, clock=line.world.clock)
    # References as furnishers have them: a path must carry each unharmed.
    for ref in ("person-9", "..", "a?b=c#d%2e +é", "NL/123", "NL%2F123"):
        put = client.put(ref, "2026-02-28", {"credit_amount": 1200})
        assert (put.added, put.told) == (("credit_amount",), 0)
        assert client.put(ref, "2026-02-28", {"credit_amount": 1200}).unchanged == ("credit_amount",)
        assert line.custodian.vault.held(line.custodian.vault.subject_of(ref)) == ["credit_amount"]
        invitation = client.invite(ref)
        assert invitation.link == f"{line.custodian.config.portal_origin}/enrol"
        invited = line.custodian.invitations.of_code(invitation.code)
        assert invited.subject_id == line.custodian.vault.subject_of(ref)
        assert invitation.code not in repr(invitation)
    with pytest.raises(MalformedError, match="asOf"):
        client.put("person-9", "2126-02-28", {"credit_amount": 1200})
    with pytest.raises(NotFoundError):
        client.invite("nobody")


def test_refusals_come_back_as_what_they_are(line: Line) -> None:
    client, consent_id = line.client(), line.world.grant()
    with pytest.raises(AttributeNotConsentedError) as refused:
        client.release(consent_id, purpose="loan-origination", attributes=["credit_duration"])
    assert refused.value.field == "attributes"
    with pytest.raises(NotFoundError):
        client.consent(Hex32("0x" + "5a" * 32))
    with pytest.raises(MalformedError) as malformed:
        client.consent(Hex32(".."))
    assert malformed.value.field == "consent"
    client.release(consent_id, **ASKED, idempotency_key="once")
    with pytest.raises(IdempotencyConflictError):
        client.release(consent_id, purpose="loan-origination", attributes=["savings"], idempotency_key="once")
    line.world.subject.revoke(line.world.custodian, consent_id)
    with pytest.raises(ConsentRevokedError):
        client.release(consent_id, **ASKED)
    assert line.slept == []


# ------------------------------------------------------------------------------------------------------------- the keys


def test_the_pinned_key_is_the_only_one_that_counts(line: Line) -> None:
    consent_id = line.world.grant()
    assert line.client(custodian_key=line.public_key).release(consent_id, **ASKED)
    assert line.client(custodian_key=line.custodian.accounts.signing_key).release(consent_id, **ASKED)
    other = exchange.key_for(new_institution_keys().as_dict(private=False), "sig")
    line.middle.requests.clear()
    with pytest.raises(AuditError, match="another custodian"):
        line.client(custodian_key=other.as_dict(private=False)).release(consent_id, **ASKED)
    # Nothing was asked of it.
    assert len(line.middle.requests) == 1


def test_a_key_that_is_slipped_in_at_first_use_does_not_help_against_a_pinned_one(line: Line) -> None:
    consent_id = line.world.grant()
    mine = new_institution_keys().as_dict(private=False)

    def slip(answer: WireAnswer) -> WireAnswer:
        document = json.loads(answer.body)
        document["jwks"]["keys"] = [mine["keys"][0], *document["jwks"]["keys"]]
        return replace(answer, body=json.dumps(document).encode())

    line.plan(altering(slip))
    assert line.client(custodian_key=line.public_key).release(consent_id, **ASKED)
    # Without a pinned key it is believed, and then no answer is: the custodian's are not signed with it.
    line.plan(altering(slip))
    with pytest.raises(AuditError):
        line.client().release(consent_id, **ASKED)


def test_another_account_that_is_slipped_in_signs_nothing(line: Line) -> None:
    consent_id = line.world.grant()

    def slip(answer: WireAnswer) -> WireAnswer:
        document = json.loads(answer.body) | {"custodian": str(line.world.subject.address)}
        return replace(answer, body=json.dumps(document).encode())

    line.plan(altering(slip))
    with pytest.raises(AuditError):
        line.client(custodian_key=line.public_key).release(consent_id, **ASKED)


def test_the_key_of_first_use_is_kept(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    mine = new_institution_keys().as_dict(private=False)

    def swap(answer: WireAnswer) -> WireAnswer:
        document = json.loads(answer.body) | {"jwks": {"keys": mine["keys"][:1]}}
        return replace(answer, body=json.dumps(document).encode())

    def rename(answer: WireAnswer) -> WireAnswer:
        document = json.loads(answer.body) | {"custodian": str(line.world.subject.address)}
        return replace(answer, body=json.dumps(document).encode())

    for change in (swap, rename):
        line.plan(altering(change))
        with pytest.raises(AuditError, match="another custodian"):
            client.deployment()
    assert client.release(consent_id, **ASKED)
    assert client.custodian_key.thumbprint() == line.custodian.accounts.signing_key.thumbprint()


def test_a_service_that_goes_by_another_name_is_said_to(line: Line) -> None:
    client = InstitutionClient(
        line.middle.url.replace("127.0.0.1", "localhost"), "bank-1", line.world.institution.jwks, clock=line.world.clock
    )
    with pytest.raises(ConfigError, match=line.middle.url):
        client.deployment()


def test_after_a_rotation_old_answers_still_open_and_new_keys_sign(line: Line) -> None:
    client, consent_id = line.client(), line.world.grant()
    before = client.release(consent_id, **ASKED)
    registered = client.rotate_keys(new_institution_keys().as_dict(private=True), overlap_days=0)
    assert len(registered.keys) == 2
    assert client.found(before.release_id).values == before.values
    assert client.release(consent_id, **ASKED).values
    with pytest.raises(AuthenticationError):
        line.client().release(consent_id, **ASKED)


def test_a_rotation_whose_answer_is_lost_is_carried_through_by_the_new_keys(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(cutting(0.5))
    client.rotate_keys(new_institution_keys().as_dict(private=True), overlap_days=0)
    assert client.release(consent_id, **ASKED).values


def test_a_rotation_that_is_refused_leaves_the_keys_as_they_were(line: Line) -> None:
    client, consent_id = line.client(), line.world.grant()
    with pytest.raises(MalformedError):
        client.rotate_keys(new_institution_keys().as_dict(private=True), overlap_days=-1)
    stranger = Institution("bank-unknown")
    stranger_client = line.client(stranger)
    with pytest.raises(AuthenticationError):
        stranger_client.rotate_keys(new_institution_keys().as_dict(private=True))
    with pytest.raises(AuthenticationError):
        stranger_client.consent(consent_id)
    assert client.release(consent_id, **ASKED)
    # Refused under the old keys and then under the new ones, it stays with the old.
    problem = {"type": "x", "title": "x", "status": 401, "code": "authentication", "detail": "x"}
    refused = WireAnswer(status=401, headers=(), body=json.dumps(problem).encode())
    line.plan(*[lambda _middle, request: line.signed(refused, request).raw()] * 2)
    with pytest.raises(AuthenticationError):
        client.rotate_keys(new_institution_keys().as_dict(private=True))
    assert client.release(consent_id, **ASKED)


def test_public_keys_alone_make_no_client(line: Line) -> None:
    public = exchange.check_jwks(line.world.institution.jwks)
    with pytest.raises(MalformedError, match="private"):
        InstitutionClient(line.middle.url, "bank-1", public)
    with pytest.raises(MalformedError, match="private"):
        FurnisherClient(line.middle.url, "bank-1", public)


# --------------------------------------------------------------------------------------------- the man in the middle


def another_value(answer: WireAnswer) -> WireAnswer:
    return replace(answer, body=answer.body.replace(b'"late":false', b'"late":true'))


def cut_short(answer: WireAnswer) -> WireAnswer:
    return replace(answer, body=answer.body[:-1])


def another_digest_too(answer: WireAnswer) -> WireAnswer:
    body = answer.body.replace(b'"late":false', b'"late":true')
    return replace(answer, body=body).having("Content-Digest", digest_of(body))


def digest_of(body: bytes) -> str:
    made = HttpResponse(status_code=200, headers={}, body=body, request=HttpRequest(method="GET", url="http://x/"))
    return sign_response(
        made, party_id="x", key=exchange.key_for(new_institution_keys().as_dict(private=True), "sig"), at=NOON
    ).headers["Content-Digest"]


@pytest.mark.parametrize(
    "change",
    [
        another_value,
        cut_short,
        another_digest_too,
        lambda answer: replace(answer, status=201),
        lambda answer: replace(answer, status=403),
        lambda answer: replace(answer, status=301).having("Location", "http://127.0.0.1:1/"),
        lambda answer: answer.having("Signature", None),
        lambda answer: answer.having("Signature-Input", None),
        lambda answer: answer.having("Signature", None).having("Signature-Input", None),
        lambda answer: answer.having("Content-Digest", None),
        lambda answer: answer.having("Signature", "sig=:" + "A" * 86 + "==:"),
        lambda answer: answer.having("Signature", "sig=:%%%:"),
        lambda answer: answer.having("Signature-Input", answer.header("Signature-Input").replace('"@status" ', "")),
        lambda answer: answer.having("Signature-Input", "((((" * 2000),
    ],
)
def test_an_altered_answer_is_not_believed(line: Line, change: Callable[[WireAnswer], WireAnswer]) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(altering(change))
    with pytest.raises(AuditError):
        client.release(consent_id, **ASKED)
    assert (len(line.middle.requests), line.slept) == (1, [])


def test_a_refusal_that_is_made_up_is_not_believed(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    body = json.dumps({"type": "about:blank", "title": "x", "status": 403, "code": "revoked", "detail": "x"}).encode()
    line.plan(saying(403, body, Content_Type="application/problem+json"))
    with pytest.raises(AuditError):
        client.release(consent_id, **ASKED)


def test_headers_that_are_not_signed_change_nothing(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()

    def dress(answer: WireAnswer) -> WireAnswer:
        return answer.having("Content-Type", "text/html").having("Cache-Control", "public").having("X-More", "1")

    line.plan(altering(dress))
    assert client.release(consent_id, **ASKED).values


def test_an_older_answer_is_none_to_a_new_request(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    client.release(consent_id, **ASKED, idempotency_key="same")
    old = line.middle.answers[-1]
    line.plan(lambda _middle, _request: old)
    with pytest.raises(AuditError):
        client.release(consent_id, **ASKED, idempotency_key="same")
    line.plan(lambda _middle, _request: old)
    with pytest.raises(AuditError):
        client.consent(consent_id)


def test_another_clients_answer_is_none_to_this_one(line: Line) -> None:
    consent_id, other = line.world.grant(), line.world.another_institution()
    client = line.known()
    theirs = line.known(institution=other)
    theirs.webhook()
    answer = line.middle.answers[-1]
    line.plan(lambda _middle, _request: answer)
    with pytest.raises(AuditError):
        client.webhook()
    assert client.consent(consent_id)


def test_a_custodian_that_answers_with_another_release_is_found_out(line: Line) -> None:
    """It signs what the man in the middle would like: only what is inside the answers can tell."""
    client = line.known()
    first, second = line.world.grant(), line.world.grant()
    client.release(first, **ASKED)
    of_first = WireAnswer.of(line.middle.answers[-1])
    line.plan(line.lying(lambda _: of_first))
    with pytest.raises(AuditError, match="not what was asked"):
        client.release(second, **ASKED)
    # Of the same consent, purpose and attributes, but an earlier request.
    line.plan(line.lying(lambda _: of_first))
    with pytest.raises(AuditError, match="a request that was not sent from here"):
        client.release(first, **ASKED)
    line.plan(line.lying(lambda _: of_first))
    with pytest.raises(AuditError, match="another release"):
        client.found(Hex32("0x" + "01" * 32))
    line.plan(line.lying(lambda _: of_first))
    with pytest.raises(AuditError, match="another release"):
        client.receipt(Hex32("0x" + "01" * 32))


def test_another_institutions_receipt_is_not_taken_for_ones_own(line: Line) -> None:
    world, other = line.world, line.world.another_institution()
    theirs = line.client(other)
    release = theirs.release(world.subject.grant(world.custodian, other), **ASKED)
    theirs.receipt(release.release_id)
    answer = WireAnswer.of(line.middle.answers[-1])
    client = line.known()
    with pytest.raises(NotFoundError):
        client.receipt(release.release_id)
    line.plan(line.lying(lambda _: answer))
    with pytest.raises(AuditError, match="another institution's"):
        client.receipt(release.release_id)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "0x" + "12" * 20),
        ("aud", "bank-2"),
        ("jti", "0x" + "01" * 32),
        ("consent", "0x" + "01" * 32),
        ("purpose", "account-review"),
        ("entryHash", "0x" + "01" * 32),
        ("values", {}),
        ("values", {"savings": {"value": 1, "unit": None, "source": "x", "asOf": "2026-01-01"}}),
        ("values", None),
        ("eraseBy", None),
    ],
)
def test_an_answer_that_does_not_agree_with_its_receipt_is_not_believed(line: Line, claim: str, value: object) -> None:
    client, consent_id = line.known(), line.world.grant()
    key, institution = line.custodian.accounts.signing_key, line.world.institution

    def lie(answer: WireAnswer) -> WireAnswer:
        said = json.loads(answer.body)
        claims = exchange.open_answer(said["answer"].encode(), institution.sealing_key, key) | {claim: value}
        said["answer"] = seal_answer(claims, key, institution.sealing_key).decode()
        return replace(answer, body=json.dumps(said).encode())

    line.plan(line.lying(lie))
    with pytest.raises(AuditError):
        client.release(consent_id, **ASKED)
    assert client.release(consent_id, **ASKED)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said | {"id": "0x" + "01" * 32},
        lambda said: said | {"consent": "0x" + "01" * 32},
        lambda said: said | {"late": True},
        lambda said: said | {"receipt": said["receipt"][:-9] + "AAAAAAAA" + said["receipt"][-1]},
        lambda said: said | {"answer": said["receipt"]},
        lambda said: said | {"answer": "....."},
        lambda said: said | {"answer": ""},
    ],
)
def test_a_release_whose_parts_do_not_fit_is_not_believed(line: Line, change: Callable[[Any], Any]) -> None:
    client, consent_id = line.known(), line.world.grant()

    def lie(answer: WireAnswer) -> WireAnswer:
        return replace(answer, body=json.dumps(change(json.loads(answer.body))).encode())

    line.plan(line.lying(lie))
    with pytest.raises(AuditError):
        client.release(consent_id, **ASKED)


def test_an_entry_that_is_not_on_the_chain_is_found_out_by_a_client_that_looks(line: Line) -> None:
    consent_id = line.world.grant()
    key = line.custodian.accounts.signing_key

    def lie(answer: WireAnswer) -> WireAnswer:
        said = json.loads(answer.body)
        claims = verify_claims(said["receipt"], key, RECEIPT_TYPE)
        claims["proof"]["transactionHash"] = "0x" + "01" * 32
        said["receipt"] = sign_claims(claims, key, RECEIPT_TYPE)
        return replace(answer, body=json.dumps(said).encode())

    blind = line.known(chain=None)
    line.plan(line.lying(lie))
    assert blind.release(consent_id, **ASKED).verified is None
    seeing = line.known()
    line.plan(line.lying(lie))
    with pytest.raises(AuditError, match="not on chain"):
        seeing.release(consent_id, **ASKED)


def test_in_a_batch_every_release_is_checked_for_itself(line: Line) -> None:
    client = line.known()
    first, second = line.world.grant(), line.world.grant()

    def swap(answer: WireAnswer) -> WireAnswer:
        results = json.loads(answer.body)["results"]
        return replace(answer, body=json.dumps({"results": [results[0], results[0]]}).encode())

    line.plan(line.lying(swap))
    asks = [ReleaseAsk(consent_id=one, purpose="loan-origination", attributes=["savings"]) for one in (first, second)]
    mine, other = client.release_many(asks)
    assert isinstance(mine, Release)
    assert isinstance(other, AuditError)
    line.plan(line.lying(lambda answer: replace(answer, body=b'{"results":[]}')))
    with pytest.raises(ServiceError, match="one result for each"):
        client.release_many(asks)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"id":1}', b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_signed_but_of_no_form_is_an_error_of_the_service(line: Line, body: bytes) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(line.lying(lambda answer: replace(answer, body=body)))
    with pytest.raises(ServiceError):
        client.consent(consent_id)


# ------------------------------------------------------------------------------------------------------------- retries


def test_a_retry_after_the_connection_broke_gets_the_identical_bytes_and_makes_one_entry(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    for share in (0.0, 0.02, 0.5, 0.99):
        line.plan(cutting(share))
    release = client.release(consent_id, **ASKED)
    assert len(line.middle.requests) == 5
    bodies = {WireAnswer.of(raw).body for raw in line.middle.answers[-5:]}
    assert len(bodies) == 1
    assert release.answer in bodies.pop().decode()
    assert len(line.world.logged()) == 1
    # Each was signed anew, and the entry is of the first.
    nonces = [
        WireAnswer.of(b"x 0 y\r\n" + raw.partition(b"\r\n")[2]).header("signature-input")
        for raw in line.middle.requests
    ]
    assert len(set(nonces)) == 5
    assert len(line.slept) == 4


def test_a_key_that_an_earlier_process_used_is_known_by_the_digests_that_it_kept(line: Line) -> None:
    consent_id = line.world.grant()
    first = line.client()
    before = first.release(consent_id, **ASKED, idempotency_key="survives")
    later = line.client()
    with pytest.raises(AuditError, match="not sent from here"):
        later.release(consent_id, **ASKED, idempotency_key="survives")
    again = later.release(consent_id, **ASKED, idempotency_key="survives", earlier=first.sent("survives"))
    assert (again.answer, again.request_hash) == (before.answer, before.request_hash)


def test_tries_are_told_apart_by_their_keys_and_the_oldest_keys_are_forgotten(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.client.REMEMBERED_KEYS", 2)
    client, consent_id = line.client(), line.world.grant()
    for key in ("one", "two", "three"):
        client.release(consent_id, **ASKED, idempotency_key=key)
    assert [len(client.sent(key)) for key in ("one", "two", "three")] == [0, 1, 1]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_a_proxy_answers_is_waited_out(line: Line, status: int) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(saying(status), saying(status, b"<html>"))
    assert client.release(consent_id, **ASKED).values
    assert len(line.slept) == 2
    assert len(line.world.logged()) == 1


def test_a_chain_that_is_down_is_waited_out_under_the_same_key(line: Line) -> None:
    consent_id = line.world.grant()
    client = line.known(sleep=lambda _: setattr(line.world.chain, "down", False))
    line.world.chain.down = True
    assert client.release(consent_id, **ASKED).values
    keys = {
        line_ for raw in line.middle.requests for line_ in raw.split(b"\r\n") if line_.startswith(b"Idempotency-Key")
    }
    assert (len(line.middle.requests), len(keys)) == (2, 1)


def test_what_stays_out_of_order_is_said_after_the_last_try(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(*[saying(503)] * TRIES)
    with pytest.raises(ServiceUnavailableError, match="503"):
        client.release(consent_id, **ASKED)
    assert len(line.middle.requests) == TRIES
    assert len(line.slept) == TRIES - 1
    # What the service itself says, signed, is raised as what it is.
    line.world.chain.down = True
    with pytest.raises(errors.ChainError):
        client.release(consent_id, **ASKED)


def test_retry_after_is_honoured_and_capped(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    line.plan(saying(503, Retry_After="7"), saying(503, Retry_After="86400"), saying(503, Retry_After="soon"))
    client.release(consent_id, **ASKED)
    first, second, third = line.slept
    assert 7 <= first < 8
    assert MAX_RETRY_AFTER_SECONDS <= second < MAX_RETRY_AFTER_SECONDS + 1
    assert third < 1


def test_retry_after_may_be_a_date(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()
    # Ten seconds after the world's noon.
    line.plan(saying(503, Retry_After="Mon, 16 Sep 2026 12:00:10 GMT"))
    client.release(consent_id, **ASKED)
    assert 10 <= line.slept[0] < 11


def test_a_rate_limit_is_waited_out_for_as_long_as_it_says(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:

    def sleep(seconds: float) -> None:
        line.slept.append(seconds)
        line.world.clock.advance(60)

    client = line.known(sleep=sleep)
    monkeypatch.setattr(line.custodian.authentication, "_limit", 2)
    for _ in range(3):
        client.webhook()
    assert len(line.slept) == 1
    assert line.slept[0] >= 60 - NOON % 60
    monkeypatch.setattr(line.custodian.authentication, "_limit", 0)
    with pytest.raises(RateLimitedError) as limited:
        client.ask_consent(**WANTED)
    assert limited.value.retry_after == 60


def test_back_off_grows_and_differs_between_clients(line: Line) -> None:
    consent_id = line.world.grant()
    for _ in range(2):
        client = line.known()
        line.plan(*[saying(503)] * (TRIES - 1))
        client.release(consent_id, **ASKED)
    one, other = line.slept[: TRIES - 1], line.slept[TRIES - 1 :]
    assert one != other
    assert all(2**number / 8 <= delay <= 2**number / 4 for number, delay in enumerate(one))


def test_a_release_that_is_being_answered_is_asked_for_again(line: Line) -> None:
    client, consent_id = line.known(), line.world.grant()

    problem = {"type": "x", "title": "x", "status": 409, "code": "in_progress", "detail": "ask again"}
    busy = line.lying(lambda _: WireAnswer(status=409, headers=(), body=json.dumps(problem).encode()))

    line.plan(busy)
    assert client.release(consent_id, **ASKED).values
    line.plan(*[busy] * TRIES)
    with pytest.raises(ReleaseInProgressError, match="ask again"):
        client.release(consent_id, **ASKED)


def test_what_cannot_be_repeated_is_not_asked_twice(line: Line) -> None:
    client = line.known()
    line.plan(cutting(0.5))
    with pytest.raises(ServiceUnavailableError, match="not known whether"):
        client.ask_consent(**WANTED)
    assert (len(line.middle.requests), line.slept) == (1, [])
    # It had arrived.
    assert len(list(client.consent_requests())) == 1
    line.plan(saying(503))
    with pytest.raises(ServiceUnavailableError):
        client.ask_consent(**WANTED)
    assert line.slept == []


def test_what_never_left_is_tried_again_whatever_it_is(line: Line) -> None:
    dead = free_port()
    waited: list[float] = []
    client = InstitutionClient(
        f"http://127.0.0.1:{dead}",
        line.world.institution.institution_id,
        line.world.institution.jwks,
        custodian_key=line.public_key,
        sleep=waited.append,
    )
    with pytest.raises(ServiceUnavailableError, match=r"did not answer$"):
        client.attest_deletion(Hex32("0x" + "01" * 32), 1)
    assert len(waited) == TRIES - 1

    class Late(PoolManager):
        """Its first connection is refused."""

        def request(self, *args: Any, **options: Any) -> BaseHTTPResponse:
            if not waited:
                raise NewConnectionError(None, "refused")  # type: ignore[arg-type]
            return super().request(*args, **options)

    late = line.known()
    late._channel._http = Late()
    late._channel._sleep = waited.append
    waited.clear()
    assert late.ask_consent(**WANTED).state == "pending"
    assert (len(waited), len(line.middle.requests)) == (1, 1)


def test_a_wrong_clock_is_said_to_be_one(line: Line) -> None:
    client = line.known(clock=lambda: NOON + 3600)
    with pytest.raises(StaleRequestError):
        client.webhook()


# ------------------------------------------------------------------------------------------ the server as it is shipped


@pytest.fixture
def shipped(devnet_config: Config) -> Iterator[Config]:
    """Gunicorn with two workers, a lender and a person."""
    port = free_port()
    config = replace(devnet_config, service_url=f"http://127.0.0.1:{port}")
    with served(config, port):
        yield config


@pytest.mark.devnet
@pytest.mark.slow
def test_many_at_once_are_answered_by_the_shipped_server_and_proven_offline(shipped: Config) -> None:
    institution, subject = Institution(), Subject()
    with Custodian(shipped) as custodian:
        institution.register(custodian)
        subject.furnish(custodian)
        consents = [subject.grant(custodian, institution) for _ in range(4)]
        domain, public = custodian.chain.domain, custodian.accounts.signing_key.as_dict(private=False)
    chain = JsonRpcChain(JsonRpc(shipped.rpc_url), domain)
    client = InstitutionClient(
        shipped.service_url, institution.institution_id, institution.jwks, custodian_key=dict(public), chain=chain
    )
    with ThreadPoolExecutor(8) as pool:
        asked = [(consent_id, name) for consent_id in consents for name in ("credit_amount", "savings")]
        releases = list(
            pool.map(lambda one: client.release(one[0], purpose="loan-origination", attributes=[one[1]]), asked)
        )
    hashes = [one.verified.outcome.access.entry_hash for one in releases if one.verified is not None]
    assert len(set(hashes)) == len(asked)

    proof = client.proof(releases[0].release_id)
    assert proof.proven.anchored
    assert proof.proven.entry.request_hash == releases[0].request_hash
    blind = InstitutionClient(shipped.service_url, institution.institution_id, institution.jwks)
    assert not blind.proof(releases[0].release_id).proven.anchored

    class Elsewhere(JsonRpcChain):
        """The same contract on a chain that went another way."""

        def block_hash(self, number: int) -> Hex32 | None:
            return super().block_hash(number - 1)

    elsewhere = InstitutionClient(
        shipped.service_url,
        institution.institution_id,
        institution.jwks,
        chain=Elsewhere(JsonRpc(shipped.rpc_url), domain),
    )
    with pytest.raises(AuditError, match="not on the chain"):
        elsewhere.proof(releases[0].release_id)


# -------------------------------------------------------------------------------------------------- reading of answers


def test_every_error_that_a_service_may_answer_with_is_known_by_its_code() -> None:
    for code, kind in ERRORS.items():
        made = error_of({"code": code, "detail": "said so", "field": "purpose"}, limit=5, retry_after=7)
        assert type(made) is kind
        assert made.message == "said so"
    limited = error_of({"code": "rate_limited", "detail": "x"}, limit=5, retry_after=7)
    assert isinstance(limited, RateLimitedError)
    assert (limited.limit, limited.retry_after) == (5, 7)
    assert ERRORS["already_exists"] is AlreadyExistsError


@pytest.mark.parametrize("problem", [None, [], "x", {}, {"code": 7}, {"code": []}, {"code": "new"}, {"code": "audit"}])
def test_a_code_that_is_not_known_is_an_error_of_the_service(problem: object) -> None:
    # Also one that only this side can find: a proof that does not verify.
    assert type(error_of(problem)) is ServiceError


def test_fields_that_are_new_are_passed_over_and_those_that_are_wrong_are_not() -> None:
    fields = {
        "name": "savings",
        "label": "Savings",
        "unit": None,
        "sensitivity": "low",
        "type": "category",
        "minimum": None,
        "maximum": None,
        "categories": [{"code": "from_1000", "label": "1000 DM or more"}],
        "note": None,
    }
    assert read(Attribute, fields | {"more": 1}) == Attribute(
        name="savings",
        label="Savings",
        unit=None,
        sensitivity="low",
        type="category",
        minimum=None,
        maximum=None,
        categories=(Category(code="from_1000", label="1000 DM or more"),),
        note=None,
    )
    assert read(DeletionDuty, {"dueAt": 1, "overdue": False}) == DeletionDuty(due_at=1, attested_at=None, overdue=False)
    wrong: Any
    for name, wrong in (("name", 1), ("name", None), ("unit", 7), ("label", ["x"]), ("categories", ["x"])):
        with pytest.raises(ServiceError, match=name):
            read(Attribute, fields | {name: wrong})
    for wrong in (None, [], "x"):
        with pytest.raises(ServiceError):
            read(Attribute, wrong)
    with pytest.raises(ServiceError):
        # A boolean is no number.
        read(DeletionDuty, {"dueAt": True, "overdue": False})
    with pytest.raises(ServiceError, match="id"):
        read(Consent, {"id": "0x1"})
