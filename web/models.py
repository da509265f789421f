"""What goes in and out of the API, as pydantic models: the OpenAPI document is made from these.

Names are camelCase on the wire. A field that is not known here is refused: what was signed must mean what was read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer
from pydantic.alias_generators import to_camel

MAX_BATCH = 100

Hex32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$", description="32 bytes, `0x` and 64 lower-case hex digits")]
Signature = Annotated[str, Field(pattern=r"^0x(?:[0-9a-fA-F]{2}){1,4096}$", description="hex; an account's, or longer")]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\x20-\x7e]+$")]
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Attributes = Annotated[list[Name], Field(min_length=1, max_length=100, description="names of the catalogue")]
Time = Annotated[int, Field(ge=0, le=2**48 - 1, description="Unix seconds, UTC")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Model(BaseModel):
    """Strict in, camelCase both ways."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        hide_input_in_errors=True,
    )


# ------------------------------------------------------------------------------------------------------------- problems


class FieldProblem(Model):
    """One field that is not as expected."""

    field: str
    detail: str


class Problem(Model):
    """RFC 9457. `code` is stable; `field` is the offending field; no value is ever repeated."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    errors: list[FieldProblem] | None = None


# ---------------------------------------------------------------------------------------------------------------- paths


class ConsentPath(Model):
    """A consent."""

    consent: Hex32


class ReleasePath(Model):
    """A release."""

    release: Hex32


class RequestPath(Model):
    """A consent request."""

    request: Id


class EventPath(Model):
    """An event."""

    event: Id


class SubjectPath(Model):
    """A person, by the custodian's reference, which is the same for all furnishers."""

    ref: Annotated[str, Field(min_length=1, max_length=200)]


class Page(Model):
    """Where to go on: `after` is the last id of the page before."""

    # What stands in a query is text.
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    after: Id | None = None


class PageByHash(Page):
    """Where to go on: `after` is the last id of the page before."""

    after: Hex32 | None = None


# ----------------------------------------------------------------------------------------------------- consent requests


class NewConsentRequest(Model):
    """What an institution would like a person to consent to."""

    purpose: Name
    attributes: Annotated[Attributes, Field(description="without which the request makes no sense")]
    optional_attributes: Annotated[
        list[Name], Field(max_length=100, description="which the person may leave out; left out unless chosen")
    ] = []
    validity_days: Annotated[Count, Field(le=3650)]
    max_accesses: Count
    accesses_per_day: Count
    retention_days: Annotated[int, Field(ge=0, le=36500, description="0: may not be stored")]
    replaces: Annotated[Hex32, Field(description="the consent that this one is to replace")] | None = None
    answer_within_days: Annotated[int, Field(ge=1, le=90)] = 30


class ConsentRequest(Model):
    """A consent request and what became of it."""

    id: Id
    state: Literal["pending", "granted", "declined", "expired"]
    purpose: str
    attributes: list[str]
    optional_attributes: list[str]
    validity_days: int
    max_accesses: int
    accesses_per_day: int
    retention_days: int
    replaces: Hex32 | None
    notice_hash: Hex32
    created_at: Time
    answer_by: Time
    consent: Annotated[Hex32, Field(description="once granted")] | None
    link: Annotated[str, Field(description="to hand to the person; whoever has it can answer")] | None
    qr: Annotated[str, Field(description="the link as a QR code, SVG")] | None


class ConsentRequestList(Model):
    """A page."""

    requests: list[ConsentRequest]


# ------------------------------------------------------------------------------------------------------------- consents


class DeletionDuty(Model):
    """Until when the institution must have deleted what it received, and whether it says that it has."""

    due_at: Time | None
    attested_at: Time | None
    overdue: bool


class Consent(Model):
    """A consent's terms, and where it stands."""

    id: Hex32
    state: Literal[
        "pending", "not_yet_valid", "in_force", "expired", "paused", "revoked", "exhausted", "wrong_custodian"
    ]
    reason: Annotated[str, Field(description="the contract's reason why it is not in force")] | None
    purpose: str
    attributes: list[str]
    subject: Annotated[str, Field(description="the pseudonymous account that signed")]
    valid_from: Time
    expires_at: Time
    max_accesses: int
    accesses_per_day: int
    retention_days: int
    notice_hash: Hex32
    uses_left: int
    used_today: int
    last_used_at: Time | None
    granted_at: Time
    revoked_at: Time | None
    replaces: Hex32 | None
    replaced_by: Hex32 | None
    deletion: DeletionDuty
    request: Annotated[Id, Field(description="the consent request that it answers")] | None


class ConsentList(Model):
    """A page."""

    consents: list[Consent]


# ------------------------------------------------------------------------------------------------------------- releases


class NewRelease(Model):
    """What is asked for now."""

    purpose: Name
    attributes: Attributes


class Release(Model):
    """The answer, sealed to the institution's key, and the receipt that opens its entry on the log."""

    id: Hex32
    consent: Hex32
    answer: Annotated[str, Field(description="JWE (compact) around a JWT by the custodian, RFC 7516")]
    receipt: Annotated[str, Field(description="AccessReceipt: a JWT by the custodian, without the values")]
    late: Annotated[bool, Field(description="the entry came back to the log only after the consent had ended")]


class ListedRelease(Model):
    """What was asked for under a consent, and what became of it."""

    id: Hex32
    state: Annotated[
        Literal["unfinished", "released", "refused", "aborted"],
        Field(description="`unfinished`: ask again under its idempotency key; `aborted`: logged, and nothing released"),
    ]
    reason: Annotated[str | None, Field(description="the `code` of the refusal")]
    late: Annotated[bool, Field(description="the entry came back to the log only after the consent had ended")]
    asked_at: Time
    finished_at: Time | None


class ReleaseList(Model):
    """A page, newest first."""

    releases: list[ListedRelease]


class Receipt(Model):
    """An AccessReceipt with the place where its entry stands now."""

    receipt: str


class ProvenBatch(Model):
    """A batch of the log, with all that its head is folded of; numbers as in the contract."""

    expected_head: Hex32
    kind: int
    accesses: Annotated[list[list[Hex32]], Field(description="pairs: consent id, entry hash")]
    reasons: list[int]
    embargo_until: Annotated[Time, Field(description="of a batch that an authority ordered; no other has it")] = 0


class ProofBundle(Model):
    """A receipt, and what leads from it to the hash of a block."""

    version: Annotated[Literal[1, 2], Field(description="2 where a batch that an authority ordered is among them")]
    receipt: str
    header: Annotated[dict[str, str], Field(description="the fields of the block's header, as in JSON-RPC")]
    header_rlp: Annotated[str, Field(description="the same as the bytes that are hashed")]
    account_proof: Annotated[list[str], Field(description="trie nodes from the state root to the contract")]
    storage_proof: Annotated[list[list[str]], Field(description="trie nodes from its storage root to the log's slots")]
    batches: Annotated[list[ProvenBatch], Field(description="from the entry's to the last one by that block")]


class BatchItem(NewRelease):
    """One release of a batch."""

    consent: Hex32
    idempotency_key: Key


class NewBatch(Model):
    """Many releases in one signed request."""

    releases: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_BATCH)]


class BatchResult(Model):
    """What became of one: `release` with status 200, otherwise `problem`."""

    status: int
    release: Release | None = None
    problem: Problem | None = None


class BatchResults(Model):
    """In the order of the request."""

    results: list[BatchResult]


class NewAdverseAction(Model):
    """A decision against the person that relied on a release."""

    decision: Literal["declined", "counter_offer", "worse_terms", "account_closed", "limit_reduced"]
    reasons: Annotated[
        list[Annotated[str, Field(min_length=3, max_length=300)]],
        Field(min_length=1, max_length=4, description="the main reasons, at most four (12 CFR 1002.9)"),
    ]
    attributes: Annotated[Attributes, Field(description="of the release, that the decision relied on")]


class AdverseAction(Model):
    """On file; the person sees it."""

    release: Hex32
    decision: str
    reasons: list[str]
    attributes: list[str]
    recorded_at: Time


class NewDeletionAttestation(Model):
    """A statement, by the request's signature, that everything received under the consent was deleted."""

    deleted_at: Time


class DeletionAttestation(Model):
    """On file; the person and the auditor see it."""

    id: Id
    consent: Hex32
    deleted_at: Time
    recorded_at: Time


# ---------------------------------------------------------------------------------------------------- webhooks and keys


class NewWebhook(Model):
    """Where events are sent."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            pattern=r"^https?://[\x21-\x7e]+$",
            description=(
                "https (http only in a private network, where the custodian allows it), a host with a public address "
                "in lower case, port 443 or one from 1024 on, and a path: `https://bank.example/events`. No user, no "
                "fragment. Redirects are not followed."
            ),
        ),
    ]


class Webhook(Model):
    """Where events are sent; null: nowhere."""

    url: str | None


EventKind = Annotated[
    Literal[
        "consent.granted",
        "consent.paused",
        "consent.resumed",
        "consent.revoked",
        "consent.expired",
        "attribute.corrected",
    ],
    Field(
        description=(
            "`attribute.corrected`: a value that was released under the consent, and may still be kept, was wrong; ask "
            "again for what is right now"
        )
    ),
]
By = Annotated[
    Literal["subject", "custodian", "institution", "chain"],
    Field(description="whose act it was; `chain`: the person's, done there without us"),
]


class EventDetails(Model):
    """What else there is to say of an event; what does not apply is left out."""

    by: By | None = None
    replaced_by: (
        Annotated[Hex32, Field(description="of `consent.revoked`: the consent that takes its place")] | None
    ) = None
    request: Annotated[Id, Field(description="of `consent.granted`: the consent request that it answers")] | None = None


class SentEvent(EventDetails):
    """An event as it is sent to a webhook: what `GET /v1/events` has in `details` stands beside the rest."""

    id: Id
    kind: EventKind
    consent: Hex32
    at: Time


class Event(Model):
    """Something that happened to a consent, and whether the institution has acknowledged that it knows."""

    id: Id
    kind: EventKind
    consent: Hex32
    at: Time
    details: EventDetails
    state: Annotated[
        Literal["waiting", "acknowledged", "given_up", "unaddressed"],
        Field(
            description=(
                "`waiting` to be sent; `given_up`: your receiver did not take it for three days; `unaddressed`: there "
                "was no webhook when it was to be sent"
            )
        ),
    ]
    attempts: Annotated[int, Field(description="to send it")]
    last_answer: Annotated[
        str | None,
        Field(
            description=(
                "of your receiver: an HTTP status, or `sending`, `refused_address`, `unresolved`, `unreachable`, "
                "`timeout`, `tls`, `not_http`"
            )
        ),
    ]
    acknowledged_at: Time | None

    @field_serializer("details")
    def _without_what_does_not_apply(self, details: EventDetails) -> dict[str, Any]:
        return details.model_dump(by_alias=True, exclude_unset=True)


class EventList(Model):
    """A page, oldest first."""

    events: list[Event]


class KeySet(Model):
    """Public keys (RFC 7517); `exp` is when a retired key stops counting."""

    keys: list[dict[str, Any]]


class NewKeys(Model):
    """New public keys, without `exp`; the present ones count for the overlap."""

    jwks: dict[str, Any]
    overlap_days: Annotated[int, Field(ge=0, le=90)] = 7


# ----------------------------------------------------------------------------------------------------------- furnishers


class NewAttributes(Model):
    """What a furnisher knows of a person."""

    as_of: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="ISO date of the values")]
    values: Annotated[dict[Name, int | float | bool | str], Field(min_length=1, max_length=200)]


class Furnished(Model):
    """What of it is new."""

    added: list[str]
    unchanged: list[str]
    told: Annotated[int, Field(description="institutions' consents told that a value they received was corrected")]


class Invitation(Model):
    """A code for a person to enrol at the portal with."""

    code: Annotated[str, Field(description="counts once; case, blanks and dashes do not matter")]
    link: Annotated[str, Field(description="where it is entered")]
    expires_at: Time


# --------------------------------------------------------------------------------------------------------------- public


class Category(Model):
    """A value of a category: the code that is released, and what a person reads."""

    code: str
    label: str


class Attribute(Model):
    """An attribute of the catalogue, and the values that it can have."""

    name: str
    label: str
    unit: str | None
    sensitivity: str
    type: Annotated[
        Literal["integer", "category", "boolean", "document"],
        Field(description="of the value: a whole number, a category's code, true or false, or JSON in a text"),
    ]
    minimum: Annotated[int | None, Field(description="of an integer, included")]
    maximum: Annotated[int | None, Field(description="of an integer, included")]
    categories: Annotated[list[Category], Field(description="in the order in which people read them; others: none")]
    note: Annotated[str | None, Field(description="what to know about its meaning")]


class Purpose(Model):
    """A purpose and the most that it justifies."""

    code: str
    label: str
    description: str
    notice_hash: Hex32
    attributes: list[str]
    max_validity_days: int
    max_accesses: int
    max_accesses_per_day: int
    max_retention_days: int


class Deployment(Model):
    """Who this is, where its log is, and what may be asked for."""

    api_version: str
    service_url: str
    chain_id: int
    contract: str
    custodian: str
    jwks: KeySet
    finality: str
    signature_max_age: Annotated[int, Field(description="seconds around `created`")]
    answers_kept: Annotated[int, Field(description="seconds that an answer can be had again")]
    rate_limit: Annotated[int, Field(description="requests a minute")]
    purposes: list[Purpose]
    attributes: list[Attribute]


class Health(Model):
    """`ok`, or what is not."""

    status: str
    chain: str | None = None
    database: str | None = None
    keys: str | None = None
    writer: str | None = None


def names(model: type[Model] = Model) -> frozenset[str]:
    """Every field of these models and of those made of them, as it is called on the wire."""
    mine = frozenset(field.alias or name for name, field in model.model_fields.items())
    return mine.union(*(names(each) for each in model.__subclasses__()))
