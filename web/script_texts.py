"""What the portal's scripts say, by code. A page hands them to its scripts in the language that it is in.

Codes that errors of the service have (`ledger/errors.py`) and that people can meet in a script are here as well; a
script shows the service's own words for any other. `{names}` in braces are filled in by the script.
"""

from __future__ import annotations

from collections.abc import Callable


def script_texts(_: Callable[[str], str]) -> dict[str, str]:
    """Every text of the scripts, translated by `_` (gettext)."""
    return {
        # What is going on.
        "touch_passkey": _("Your device asks for your passkey now."),
        "touch_new_passkey": _("Your device makes the new passkey now."),
        "look_at_wallet": _("Your wallet asks you now."),
        "wallet_switched": _("The wallet is on the right chain now. Please try again."),
        "sending": _("Signed. Waiting until the chain has it."),
        "not_signed": _("You did not sign. Nothing was sent."),
        "signed_before": _(
            "You signed an answer to this request before, and no reply came. Send the same answer again to finish."
        ),
        "granted_yes": _("Granted. The chain has exactly what you signed, in block {blockNumber}, after {seconds} s."),
        "granted_pending": _("Signed and on file. The chain does not have it yet; nothing can be read until it has."),
        "granted_unknown": _("Granted, says the service. The chain could not be asked whether it has it."),
        "granted_revoked": _("This consent was stopped already. Nothing can be read under it."),
        "stopped_yes": _("Stopped. The chain has it, after {seconds} s."),
        "stopped_pending": _("Stopped: nothing is released any more. The chain does not have it yet."),
        "stopped_unknown": _("Stopped: nothing is released any more. The chain could not be asked whether it has it."),
        "stopped_some": _(
            "Stopped: {revoked}. Granted with a key that is not here: {unsigned}. The custodian can stop those for you."
        ),
        "paused_yes": _("Paused. The chain has it, after {seconds} s."),
        "paused_pending": _("Paused: nothing is released. The chain does not have it yet."),
        "paused_unknown": _("Paused: nothing is released. The chain could not be asked whether it has it."),
        "resumed_yes": _("Resumed. The chain has it, after {seconds} s."),
        "resumed_pending": _("Signed and on file. It is still paused until the chain has it."),
        "resumed_unknown": _("Signed and on file. The chain could not be asked whether it has it."),
        "state_revoked": _("Stopped"),
        "state_paused": _("Paused"),
        "state_active": _("In force"),
        "registered_without_prf": _(
            "Your passkey is set up, and you can sign in with it. It cannot sign consents, because this device or "
            "browser does not support it (the WebAuthn extension PRF). To grant a consent, add another passkey or a "
            "wallet."
        ),
        # Passkeys.
        "passkey_unsupported": _("This browser has no passkeys. Use another browser, or a wallet."),
        "passkey_cancelled": _("The passkey was not used: you cancelled, or it took too long. Nothing was sent."),
        "passkey_known": _("This device has a passkey for this account already."),
        "passkey_wrong_site": _("Passkeys work only on the address that they were made for. Nothing was sent."),
        "passkey_unsuitable": _("This device cannot make a passkey that asks for your fingerprint, face or PIN."),
        "passkey_failed": _("The passkey did not work. Please try again."),
        "prf_missing": _(
            "This passkey cannot sign consents, because this device or browser does not support it (the WebAuthn "
            "extension PRF). You can use another passkey, or a wallet."
        ),
        "root_missing": _("This passkey was set up without the key that signs consents. Use another one, or a wallet."),
        "root_needed": _("To add a passkey, use one first that can sign consents."),
        "root_does_not_open": _("Your key could not be opened with this passkey. Use another passkey, or a wallet."),
        # Wallets.
        "wallet_missing": _("No wallet was found in this browser. Install one, or use a passkey."),
        "wallet_not_linked": _("No wallet is linked to your account. You can link one under Security."),
        "wallet_rejected": _("You declined in the wallet. Nothing was sent."),
        "wallet_locked": _("The wallet shows no account. Unlock it and try again."),
        "wallet_busy": _("The wallet is still waiting for an answer to an earlier question. Open it."),
        "wallet_disconnected": _("The wallet has no connection."),
        "wallet_wrong_chain": _("The wallet is on another chain."),
        "wallet_unknown_chain": _("The wallet does not know the chain that is needed. Add it in the wallet."),
        "wallet_wrong_account": _("The wallet is on another account. Choose {field} in the wallet."),
        "wallet_text_foreign": _("The text to sign is not for this site. Nothing was signed."),
        "wallet_failed": _("The wallet did not answer as expected. Nothing was sent."),
        # Signing.
        "draft_differs": _("What should be signed is not what you chose ({field}). Nothing was signed."),
        "unexpected_typed_data": _("What should be signed has an unknown form ({field}). Nothing was signed."),
        "choice_outside": _("Please choose a number from {detail} ({field})."),
        "bad_signature": _("The signature is not valid. Nothing was sent."),
        "answer_differs": _(
            "The answer is not about what you signed. Look under Consents before you do anything else."
        ),
        "chain_differs": _("The chain has something else than what you signed ({field}). Please tell an auditor."),
        "nothing_signed": _("There is nothing signed to send."),
        "nothing_to_stop": _("There is nothing to stop."),
        "no_key_for_these": _(
            "This was granted with a key that is not here. The custodian can stop it for you, without your key."
        ),
        # The service.
        "network_lost": _(
            "No answer came. It is not known whether it was carried out. Sending again does nothing twice."
        ),
        "chain_unreachable": _("The chain cannot be asked at present."),
        "chain_unavailable": _("The chain cannot be reached. What you signed is kept and can be sent again."),
        "confirmation_timeout": _("The chain is slow. What you signed is kept; look again in a while."),
        "already_revoked": _("This consent was stopped already."),
        "stale_pause_sequence": _("This consent was paused or resumed elsewhere meanwhile. Load the page again."),
        "conflict": _("This was answered already, perhaps in another tab. Load the page again."),
        "cross_site": _("This page is too old. Load it again."),
        "code_refused": _("This code cannot be used. Check it, or ask for a new one."),
        "sign_in_refused": _("This passkey or wallet is not known here."),
        "passkey_cloned": _("There may be a copy of this passkey, so it is not accepted. Use another one."),
        "stale_challenge": _("That took too long. Please begin again."),
        "rate_limited": _("Too many attempts. Please wait a minute."),
        "step_up_required": _("Please confirm again that it is you, then send again."),
        "sign_in_required": _("You are signed out. Sign in again; what you signed in this tab is kept."),
        "unexpected": _("Something went wrong. Nothing more is known."),
        "malformed": _("Something is not as it should be: {detail}"),
        "code_empty": _("Please enter your code."),
        "name_empty": _("Please give the passkey a name, such as the device's."),
        # Checking on chain, and receipts.
        "check_asking": _("Asking the chain."),
        "check_same": _("The entry on the chain is exactly this access: block {blockNumber}, {time}."),
        "check_other": _("The entry on the chain is not this access. Please tell an auditor."),
        "check_absent": _("The chain has no such entry in that transaction. Please tell an auditor."),
        "check_hash_differs": _("What is shown does not make the entry that the service says. Please tell an auditor."),
        "receipt_good": _("Genuine."),
        "receipt_bad": _("Not genuine, or altered."),
        "receipt_undecided": _("All that can be checked here is right. One signature only the chain can confirm."),
        "receipt_not_one": _("This is no receipt or proof of this service."),
        "receipt_custodian": _("Signed by the custodian."),
        "receipt_custodian_bad": _("Not signed by this custodian."),
        "receipt_consent": _("The consent's id is the hash of the grant in it."),
        "receipt_consent_bad": _("The consent's id is not the hash of the grant in it."),
        "receipt_subject": _("Signed by the account that granted."),
        "receipt_subject_bad": _("Not signed by the account that granted."),
        "receipt_subject_contract": _("Signed by a smart account, which only the chain can confirm."),
        "receipt_revocation": _("Stopped by the account that granted."),
        "receipt_revocation_bad": _("Not stopped by the account that granted."),
        "receipt_revocation_contract": _("Stopped by a smart account, which only the chain can confirm."),
        "receipt_entry": _("The entry's hash is the one that its content makes."),
        "receipt_entry_bad": _("The entry's hash is not the one that its content makes."),
        "receipt_impersonal": _("Names nobody."),
        "receipt_impersonal_bad": _("Says more than a proof of erasure may say."),
        # What is signed, member by member.
        "term_institution": _("Who may read"),
        "term_purpose": _("What for"),
        "term_attributes": _("What they may read"),
        "term_validFrom": _("From"),
        "term_expiresAt": _("Until"),
        "term_maxAccesses": _("How many times in all"),
        "term_accessesPerDay": _("How many times a day"),
        "term_retentionDays": _("How many days they may keep it"),
        "term_not_kept": _("0: they may not keep it"),
        "term_replaces": _("Replaces the consent"),
        "term_noticeHash": _("Hash of the notice"),
        "term_salt": _("Random number (salt)"),
        "term_subject": _("Your account for this institution"),
        "term_custodian": _("Custodian"),
        "term_chainId": _("Chain"),
        "term_verifyingContract": _("Contract"),
    }
