"""What the custodian's verbs of the command line share: the custodian itself, and how a consent is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.cli_terminal import plain
from ledger.config import Config
from ledger.custodian import Custodian
from ledger.json_forms import iso_time
from ledger.registry import StoredConsent


def open_custodian() -> Custodian:
    """The custodian that the environment names."""
    return Custodian(Config.from_env())


def consent_fields(custodian: Custodian, consent: StoredConsent) -> dict[str, Any]:
    """A consent with its state on chain."""
    state = custodian.chain.consent(consent.consent_id)
    reason = custodian.chain.statuses([consent.consent_id], custodian.address)[0]
    terms = consent.grant.terms
    return {
        "consent": consent.consent_id,
        "institution": terms.institution,
        "purpose": terms.purpose,
        "attributes": list(terms.attributes),
        "subject": consent.grant.subject,
        "status": "in_force" if not reason else reason.name.lower(),
        "validFrom": iso_time(consent.grant.valid_from),
        "expiresAt": iso_time(consent.grant.expires_at),
        "used": state.accesses,
        "maxAccesses": consent.grant.max_accesses,
    }


def consent_text(fields: Mapping[str, Any]) -> str:
    """A consent for a person to read: its id alone on a line, to be copied."""
    window = f"from {fields['validFrom']} to {fields['expiresAt']}"
    return (
        f"{fields['consent']}\n"
        f"    {fields['status']}, used {fields['used']} of {fields['maxAccesses']}, {window}\n"
        f"    {plain(fields['institution'])}, {fields['purpose']}: {', '.join(fields['attributes'])}"
    )
