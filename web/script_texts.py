"""Every sentence that the portal's scripts say, by the code that they know it by (`static/portal/*.js`).

`{name}` is filled in by the script. A test holds the codes against those that the scripts use.
"""

from __future__ import annotations

from collections.abc import Callable

Translate = Callable[[str], str]


def script_texts(_: Translate) -> dict[str, str]:
    """All of them, translated by `_` (gettext)."""
    parts = (_progress, _outcomes, _checks, _terms, _passkey_errors, _wallet_errors, _other_errors)
    return {code: text for part in parts for code, text in part(_).items()}


def _progress(_: Translate) -> dict[str, str]:
    return {
        "touch_passkey": _("Your device asks for your passkey now."),
        "touch_new_passkey": _("Your device asks to make a new passkey now."),
        "look_at_wallet": _("Look at your wallet: it asks you now."),
        "sending": _("Signed. Waiting for the public log to have it …"),
        "not_signed": _("Nothing was signed and nothing was sent."),
        "signed_before": _("You signed this before, and no answer came. Send it again to see it through."),
        "wallet_switched": _("Your wallet has changed its network. Go on."),
        "registered_without_prf": _(
            "Your passkey was made. It can sign you in and stop consents, but it cannot sign new ones: this passkey or "
            "browser lacks a function for that (PRF). To accept requests, link a wallet, or add another passkey."
        ),
        "state_revoked": _("Stopped"),
        "state_paused": _("Paused"),
        "state_active": _("Active"),
        "why_revoked": _("It was stopped, for ever. Nothing more is given out under it."),
        "why_paused": _("Nothing is given out until you make it active again."),
        "why_active": _("It is active again."),
    }


def _outcomes(_: Translate) -> dict[str, str]:
    return {
        "granted_yes": _("Done: your consent is on the public log. It took {seconds} seconds."),
        "granted_pending": _("Your consent is on file here. The public log does not have it yet; it counts from then."),
        "granted_revoked": _("This consent is stopped already. It cannot be used."),
        "granted_unknown": _(
            "Your consent is on file here. The public log could not be asked, so whether it is there is not known yet."
        ),
        "stopped_yes": _("Stopped. The public log has it; it took {seconds} seconds. Nothing more can be read."),
        "stopped_pending": _(
            "Stopped here: nothing more is given out. The public log does not have it yet; we keep sending it."
        ),
        "stopped_unknown": _(
            "Stopped here: nothing more is given out. The public log cannot be asked now; we keep sending it."
        ),
        "stopped_some": _(
            "Stopped here: {revoked}. Not stopped yet: {unsigned}, because another passkey or wallet signed them, or "
            "the signature was not accepted. Use “Stop without a key” on the page of the consent."
        ),
        "paused_yes": _("Paused. The public log has it; it took {seconds} seconds."),
        "paused_pending": _("Paused here: nothing is given out. The public log does not have it yet."),
        "paused_unknown": _("Paused here: nothing is given out. The public log cannot be asked now."),
        "resumed_yes": _("Active again. The public log has it; it took {seconds} seconds."),
        "resumed_pending": _("Still paused: it becomes active when the public log has it."),
        "resumed_unknown": _("The public log cannot be asked now, so whether it is active again is not known."),
    }


def _checks(_: Translate) -> dict[str, str]:
    return {
        "check_asking": _("Making the fingerprint and asking the public log …"),
        "check_same": _("The same. The public log has exactly this, in block {blockNumber} of {time}."),
        "check_hash_differs": _(
            "Not the same: the facts on this page make another fingerprint ({detail}). Please tell us."
        ),
        "check_absent": _("The public log does not have it. It may be on its way; if that stays so, please tell us."),
        "check_other": _("The public log has something else in its place. Please tell us."),
        "receipt_good": _("This is genuine."),
        "receipt_bad": _("This is not genuine, or it was changed."),
        "receipt_undecided": _("Most of it is genuine. One signature can only be checked on the public log."),
        "receipt_not_one": _("This is not a receipt of this service."),
        "receipt_custodian": _("Signed by this custodian."),
        "receipt_custodian_bad": _("Not signed by this custodian."),
        "receipt_place": _("It is about this public log."),
        "receipt_place_bad": _("It is about another public log than the one of this service."),
        "receipt_consent": _("The number of the consent follows from its terms."),
        "receipt_consent_bad": _("The number of the consent does not follow from its terms: they were changed."),
        "receipt_subject": _("The consent is signed by the account that it names."),
        "receipt_subject_bad": _("The consent is not signed by the account that it names."),
        "receipt_subject_contract": _(
            "The consent names a smart account. Only the public log can say whether it signed."
        ),
        "receipt_revocation": _("It was stopped by the account that had made it."),
        "receipt_revocation_bad": _("The signature that is to have stopped it is not of the account that made it."),
        "receipt_revocation_contract": _("A smart account stopped it. Only the public log can say whether it signed."),
        "receipt_entry": _("The fingerprint follows from the facts of the access."),
        "receipt_entry_bad": _("The fingerprint does not follow from the facts of the access: they were changed."),
        "receipt_impersonal": _("It names nobody: it has only numbers in it."),
        "receipt_impersonal_bad": _("It has more in it than numbers."),
    }


def _terms(_: Translate) -> dict[str, str]:
    return {
        "term_institution": _("Who may read"),
        "term_purpose": _("What for"),
        "term_attributes": _("What they may read"),
        "term_validFrom": _("From"),
        "term_expiresAt": _("Until"),
        "term_maxAccesses": _("How often in all"),
        "term_accessesPerDay": _("How often on one day"),
        "term_retentionDays": _("How many days they may keep it"),
        "term_replaces": _("Replaces your consent"),
        "term_noticeHash": _("Fingerprint of the notice"),
        "term_salt": _("Random number, so that nobody can guess the terms"),
        "term_subject": _("Your account for this institution"),
        "term_custodian": _("Custodian"),
        "term_chainId": _("Chain"),
        "term_verifyingContract": _("Contract"),
        "term_not_kept": _("may not be kept"),
    }


def _passkey_errors(_: Translate) -> dict[str, str]:
    return {
        "passkey_unsupported": _("This browser has no passkeys. Use another browser, or a wallet."),
        "passkey_known": _("This device has a passkey of your account already."),
        "passkey_wrong_site": _("Passkeys do not work at this address. Open the portal under its own name."),
        "passkey_cancelled": _("No passkey was used. Nothing has changed; you can try again."),
        "passkey_unsuitable": _("This device cannot make a passkey that checks that it is you. Try another one."),
        "passkey_failed": _("The passkey did not work. Nothing has changed; you can try again."),
        "prf_missing": _(
            "This passkey cannot sign: it or your browser lacks a function for that (PRF). You can use a wallet, or "
            "another passkey."
        ),
        "root_missing": _(
            "This passkey does not hold your signing key: it was made without one. Use the passkey that you made "
            "first, or a wallet."
        ),
        "root_needed": _("To add this passkey, use a passkey that can sign first."),
        "root_does_not_open": _("This passkey could not open your signing key. Nothing was signed."),
        "no_key_for_these": _(
            "Another passkey or wallet of yours signed this consent. Use that one, or “Stop without a key” on the page "
            "of the consent."
        ),
        "code_empty": _("Type the code that you were given."),
        "name_empty": _("Give the passkey a name, such as “my phone”."),
    }


def _wallet_errors(_: Translate) -> dict[str, str]:
    return {
        "wallet_missing": _("No wallet was found in this browser."),
        "wallet_rejected": _("You said no in your wallet. Nothing was signed and nothing has changed."),
        "wallet_locked": _("Your wallet is locked. Unlock it and try again."),
        "wallet_busy": _("Your wallet waits for an answer to an earlier question. Open it first."),
        "wallet_disconnected": _("Your wallet has no connection. Try again later."),
        "wallet_failed": _("Your wallet did not do it. Nothing has changed; you can try again."),
        "wallet_wrong_chain": _("Your wallet is on another network. Change it, then try again."),
        "wallet_unknown_chain": _("Your wallet does not know this network. Add it in the wallet first."),
        "wallet_wrong_account": _("Your wallet uses another account. Choose this one: {field}"),
        "wallet_not_linked": _("No wallet is linked to your account here. Link it under Security first."),
        "wallet_text_foreign": _("The text to sign is of another site. Nothing was signed."),
        "bad_signature": _("The signature is not valid. Nothing was sent."),
    }


def _other_errors(_: Translate) -> dict[str, str]:
    return {
        "network_lost": _(
            "No answer came, so it is not known whether it was done. Look at the page again in a moment."
        ),
        "draft_differs": _("What would be signed is not what you chose ({field}). Nothing was signed. Please tell us."),
        "unexpected_typed_data": _("What would be signed is not a consent. Nothing was signed. Please tell us."),
        "answer_differs": _("The answer is about another consent than you signed. Look under Consents."),
        "chain_differs": _("The public log has something else than you signed ({field}). Please tell us."),
        "chain_unreachable": _("The public log cannot be asked now. Try again later."),
        "choice_outside": _("A limit is not within what was asked ({field}: {detail})."),
        "nothing_signed": _("There is nothing signed to send."),
        "nothing_to_stop": _("There is nothing to stop."),
        "malformed": _("This is not of the expected form: {detail}"),
        "sign_in_required": _("You are signed out. Sign in again; nothing has changed."),
        "sign_in_refused": _("That did not show who you are. Try again, or use another passkey or wallet."),
        "code_refused": _("This code does not work. It may be mistyped, used, or over. Ask for a new one."),
        "step_up_required": _("Show once more that it is you, and try again."),
        "cross_site": _("This page is too old. Load it again; nothing has changed."),
        "rate_limited": _("Too many tries. Wait a little and try again."),
        "conflict": _("This was answered already, perhaps in another window. Load the page again."),
        "account_full": _("You have as many of these as you can have. Remove one first. Nothing has changed."),
        "chain": _("The public log did not confirm it yet. What you signed is on file and is sent again."),
        "chain_unavailable": _(
            "The public log cannot be reached now. If what you signed is on file, it is sent again: look at the page "
            "again in a moment."
        ),
        "confirmation_timeout": _(
            "The public log is slow and has not confirmed it yet. What you signed is on file and is sent again."
        ),
        "store_unavailable": _(
            "The service cannot write now, or has too much to do. It may have been done all the same: look at the page "
            "again in a moment."
        ),
        "not_found": _("There is no such thing here, or it is someone else's. Load the page again."),
        "erased": _("This was erased. Nobody can bring it back."),
        "institution_suspended": _("This institution is barred at present. Nothing is given out to it."),
        "invalid_signature": _("The signature is not valid. Nothing has changed."),
        "vault": _("The service cannot do this now. Nothing was given out. Try again in a moment."),
        "already_revoked": _("This consent was stopped already."),
        "stale_pause_sequence": _("This was paused or made active in another window meanwhile. Load the page again."),
        "passkey_cloned": _("There may be a copy of this passkey, so it is not accepted. Use another one."),
        "stale_challenge": _("That took too long. Begin again."),
        "unexpected": _("Something went wrong on our side. Look at the page again in a moment."),
    }
