"""What the portal's scripts send to sign in, as pydantic models: strict, and bounded before anything reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from web.models import Model, Signature

Code = Annotated[str, Field(max_length=64)]
Next = Annotated[str, Field(max_length=2000, description="where the person was going; only paths of ours are used")]


class Nothing(Model):
    """An empty object."""


class Registration(Model):
    """`code` to enrol; without it, a passkey is added to the account that is signed in."""

    code: Code | None = None


class NewCredential(Model):
    """The browser's answer (`RegistrationResponseJSON`), and the root secret as this passkey wraps it."""

    credential: dict[str, Any]
    wrapped_root: Annotated[str, Field(max_length=512)] | None = None
    name: Annotated[str, Field(max_length=200)]
    next: Next | None = None


class Credential(Model):
    """The browser's answer (`AuthenticationResponseJSON`)."""

    credential: dict[str, Any]
    next: Next | None = None


class WalletChallenge(Model):
    """Which wallet is to sign, and what for."""

    address: Annotated[str, Field(max_length=42)]
    chain_id: Annotated[int, Field(ge=1, le=2**53)]
    use: Literal["enrol", "sign-in", "step-up", "link"]
    code: Code | None = None


class WalletSignature(Model):
    """The signature over the text that was given (`personal_sign`), in hex; a smart account's may be of any form."""

    signature: Signature
    next: Next | None = None
