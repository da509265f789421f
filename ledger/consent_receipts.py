"""Consent receipts for other software: ISO/IEC TS 27560:2023 in the terms of the Data Privacy Vocabulary. Pure.

A receipt is a JSON-LD document (`dpv:ConsentReceipt`) around one consent record (`dpv:ConsentRecord`), as the W3C
community group's guide lays it out (https://w3id.org/dpv/guides/consent-27560), profiles `dpv-27560#receipt-record` and
`dpv-27560#record`. The fields that the guide calls mandatory are all there; a test lists them. Where this service does
not know what a field asks for (postal address and contact of the institution, where it stores), the document says so in
so many words instead of inventing something.

It is a copy for reading and is not signed: what proves is the signed receipt (`receipts.py`), whose digest of the grant
is the record's identifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ledger.attribute_texts import description_of
from ledger.attributes import ACCESS_OPENINGS, ASKABLE, Sensitivity
from ledger.consent import ZERO32, ConsentGrant, Domain, Hex32
from ledger.json_forms import iso_time
from ledger.notice_texts import Notice

RECEIPT_PROFILE: Final = "https://w3id.org/dpv/schema/dpv-27560#receipt-record"
RECORD_PROFILE: Final = "https://w3id.org/dpv/schema/dpv-27560#record"
CONTEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dct": "http://purl.org/dc/terms/",
        "dpv": "https://w3id.org/dpv#",
        "pd": "https://w3id.org/dpv/pd#",
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "skos": "http://www.w3.org/2004/02/skos/core#",
        "xsd": "http://www.w3.org/2001/XMLSchema#",
    }
)
NOT_RECORDED: Final = "not recorded by this custodian: ask the institution"

PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "loan-origination": "dpv:CreditChecking",
        "account-review": "dpv:CreditChecking",
        "tenancy-check": "dpv:CreditChecking",
        "model-audit": "dpv:ResearchAndDevelopment",
        "audit": "dpv:LegalCompliance",
    }
)
"""The category of DPV's taxonomy that each purpose belongs to."""
PERSONAL_DATA: Final[Mapping[str, str]] = MappingProxyType(
    {"age": "pd:Age", "sex": "pd:Gender", "marriage": "pd:MaritalStatus", ACCESS_OPENINGS: "pd:Historical"}
)
"""As well for the attributes; all others are `pd:Financial`, since they are about money and who owes it."""

GIVEN: Final = "dpv:ConsentGiven"
WITHDRAWN: Final = "dpv:ConsentWithdrawn"
EXPIRED: Final = "dpv:ConsentExpired"
REVOKED: Final = "dpv:ConsentRevoked"
"""By another than the data subject; what the subject ends is withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedConsent:
    """What a receipt is made of. Times are Unix seconds; `ended_at` and `ended_by` are None while it is not revoked."""

    consent_id: Hex32
    grant: ConsentGrant
    granted_at: int
    ended_at: int | None
    ended_by: str | None
    notice: Notice | None
    sources: tuple[str, ...]


def receipt_document(
    consent: RecordedConsent, domain: Domain, *, service_url: str, receipt_id: str, at: int
) -> dict[str, Any]:
    """The receipt of one consent as JSON-LD; `receipt_id` is a UUID, `service_url` where it can be withdrawn."""
    return {
        "@context": dict(CONTEXT),
        "@id": f"urn:uuid:{receipt_id}",
        "@type": "dpv:ConsentReceipt",
        "dct:conformsTo": RECEIPT_PROFILE,
        "dpv:hasIdentifier": receipt_id,
        "dct:created": iso_time(at),
        "dct:publisher": {"@id": _account(domain, consent.grant.custodian)},
        "dct:audience": "dpv:DataSubject",
        "dpv:hasRecordOfActivity": [_record(consent, domain, service_url, at)],
    }


def _record(consent: RecordedConsent, domain: Domain, service_url: str, at: int) -> dict[str, Any]:
    grant, terms = consent.grant, consent.grant.terms
    record = {
        "@id": f"urn:consent-ledger:{domain.chain_id}:{domain.contract}:{consent.consent_id}",
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": RECORD_PROFILE,
        "dct:identifier": consent.consent_id,
        "dpv:hasDataSubject": {
            "@id": _account(domain, grant.subject),
            "@type": "dpv:DataSubject",
            "dct:identifier": grant.subject,
        },
        "dpv:hasDataController": _institution(consent),
        "dpv:hasEntity": [_institution(consent), _custodian(consent, domain, service_url)],
        "dpv:hasLegalBasis": "dpv:ExplicitlyExpressedConsent",
        "dpv:hasJurisdiction": {"@type": "dpv:Jurisdiction", "dct:description": NOT_RECORDED},
        "dpv:hasProcess": [_process(consent)],
        "dpv:hasNotice": _notice(consent, service_url),
        "dpv:hasConsentControl": {
            "@type": ["dpv:WithdrawConsent"],
            "dpv:isExercisedAt": f"{service_url}/consents/{consent.consent_id}",
        },
        "dpv:hasRight": [
            {"@type": "dpv:DataSubjectRight", "dct:title": title, "dpv:isExercisedAt": f"{service_url}/{page}"}
            for title, page in (
                ("Withdraw consent", "consents"),
                ("See who read the data", "activity"),
                ("Dispute, export and erase the data", "data"),
            )
        ],
        "dpv:hasConsentStatus": _statuses(consent, domain, at),
    }
    if terms.replaces != ZERO32:
        record["dct:replaces"] = terms.replaces
    return record


def _institution(consent: RecordedConsent) -> dict[str, Any]:
    terms = consent.grant.terms
    return {
        "@id": _party(terms.institution),
        "@type": ["dpv:DataController", "dpv:Recipient"],
        "dct:identifier": terms.institution,
        "dpv:hasName": terms.institution_name,
        "dpv:hasAddress": NOT_RECORDED,
        "dpv:hasContact": NOT_RECORDED,
    }


def _custodian(consent: RecordedConsent, domain: Domain, service_url: str) -> dict[str, Any]:
    return {
        "@id": _account(domain, consent.grant.custodian),
        "@type": ["dpv:DataExporter"],
        "dct:identifier": consent.grant.custodian,
        "dpv:hasName": "The custodian of the data",
        "dpv:hasAddress": NOT_RECORDED,
        "dpv:hasContact": service_url,
    }


def _process(consent: RecordedConsent) -> dict[str, Any]:
    grant, terms = consent.grant, consent.grant.terms
    part = consent.notice.part("en") if consent.notice else None
    return {
        "@type": "dpv:Process",
        "dpv:hasPurpose": {
            "@type": "dpv:Purpose",
            "skos:broader": PURPOSES.get(terms.purpose, "dpv:Purpose"),
            "dct:identifier": terms.purpose,
            "dct:title": part.title if part else terms.purpose,
            "dct:description": part.why if part else terms.purpose,
        },
        "dpv:hasPersonalData": [_personal_data(name) for name in terms.attributes],
        "dpv:hasProcessing": ["dpv:Obtain", "dpv:Use", *(["dpv:Store"] if terms.retention_days else [])],
        "dpv:hasDataSource": [
            {"@id": _party(source), "@type": "dpv:ThirdPartyDataSource", "dct:identifier": source}
            for source in consent.sources
        ],
        "dpv:hasDataController": {"@id": _party(terms.institution)},
        "dpv:hasRecipient": [{"@id": _party(terms.institution)}],
        "dpv:hasStorageCondition": [
            {"@type": "dpv:StorageLocation", "dpv:hasLocation": NOT_RECORDED},
            {
                "@type": "dpv:StorageDuration",
                "dpv:hasDuration": {"@type": "dpv:TemporalDuration", "rdf:value": f"P{terms.retention_days}D"},
            },
        ],
        "dpv:hasFrequency": {
            "@type": "dpv:Frequency",
            "dct:description": f"at most {grant.max_accesses} in all, {terms.accesses_per_day} a day",
        },
    }


def _personal_data(name: str) -> dict[str, Any]:
    entry = ASKABLE.get(name)
    is_sensitive = entry is not None and entry.sensitivity is not Sensitivity.ORDINARY
    return {
        "@type": "dpv:SensitivePersonalData" if is_sensitive else "dpv:PersonalData",
        "skos:broader": PERSONAL_DATA.get(name, "pd:Financial"),
        "dct:identifier": name,
        "dct:title": entry.label if entry else name,
        "dct:description": description_of(name) or name,
        "dpv:hasNecessity": "dpv:Required",
    }


def _notice(consent: RecordedConsent, service_url: str) -> dict[str, Any]:
    notice_hash = consent.grant.terms.notice_hash
    return {
        "@id": f"{service_url}/notices/{notice_hash}",
        "@type": "dpv:ConsentNotice",
        "dct:identifier": notice_hash,
        "dct:language": list(consent.notice.parts) if consent.notice else ["en"],
    }


def _statuses(consent: RecordedConsent, domain: Domain, at: int) -> list[dict[str, Any]]:
    grant = consent.grant
    subject, custodian = ({"@id": _account(domain, one)} for one in (grant.subject, grant.custodian))
    statuses: list[dict[str, Any]] = [
        {
            "@type": [GIVEN, "dpv:ExplicitlyExpressedConsent"],
            "dpv:isIndicatedBy": subject,
            "dpv:isIndicatedAtTime": iso_time(consent.granted_at),
            "dpv:hasIndicationMethod": "signature over the grant (EIP-712)",
            "dct:valid": f"{iso_time(grant.valid_from)}/{iso_time(grant.expires_at)}",
        }
    ]
    if consent.ended_at is not None:
        by_subject = consent.ended_by in ("subject", "chain")
        statuses.append(
            {
                "@type": [WITHDRAWN if by_subject else REVOKED],
                "dpv:isIndicatedBy": subject if by_subject else custodian,
                "dpv:isIndicatedAtTime": iso_time(consent.ended_at),
                "dpv:hasIndicationMethod": "revocation",
            }
        )
    elif grant.expires_at <= at:
        statuses.append(
            {
                "@type": [EXPIRED],
                "dpv:isIndicatedBy": subject,
                "dpv:isIndicatedAtTime": iso_time(grant.expires_at),
                "dpv:hasIndicationMethod": "the end of the time that was agreed",
            }
        )
    return statuses


def _party(party_id: str) -> str:
    return party_id if party_id.startswith(("did:", "urn:", "https://")) else f"urn:consent-ledger:party:{party_id}"


def _account(domain: Domain, account: str) -> str:
    # CAIP-10.
    return f"did:pkh:eip155:{domain.chain_id}:{account}"
