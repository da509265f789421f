"""Smart accounts at the portal's door: asked on chain whether they signed (ERC-1271), and believed in nothing else."""

from __future__ import annotations

from typing import Final

import pytest
from actors import World
from browsing import Browser, code, invite, said
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from smart_account import MARK, deploy_wallet, hand_over

from ledger.chain import JsonRpcChain
from ledger.config import DEVNET_CHAIN_ID
from ledger.consent import Address, Domain, Hex32
from ledger.devnet import Devnet
from ledger.errors import ChainUnavailableError, SignInRefusedError
from ledger.jsonrpc import JsonRpc
from ledger.wallets import require_signed

TEXT: Final = "example wants you to sign in"
DIGEST: Final = Hex32("0x" + "ab" * 32)
MAGIC: Final = "631626ba7e60e01b"
"""PUSH the answer that is a yes. What follows are accounts as bytecode: MSTORE it, RETURN it, or something else."""
LIARS: Final = {
    "says no": "5f195f5260205ff3",
    "returns zero": "60205ff3",
    "the yes at the wrong end": "631626ba7e5f5260205ff3",
    "the yes and dirt": f"{MAGIC}6001175f5260205ff3",
    "only four bytes of yes": f"{MAGIC}5f5260045ff3",
    "returns nothing": "00",
    "reverts": "5f5ffd",
    "reverts with the yes": f"{MAGIC}5f5260205ffd",
    "burns its gas": "fe",
    "never ends": "5b5f56",
    "no account at all": "",
}


@pytest.fixture
def rpc(devnet: Devnet) -> JsonRpc:
    return JsonRpc(devnet.url)


@pytest.fixture
def chain(rpc: JsonRpc) -> JsonRpcChain:
    return JsonRpcChain(rpc, Domain(chain_id=DEVNET_CHAIN_ID, contract=Address("0x" + "11" * 20)))


def signed(owner: LocalAccount, text: str) -> bytes:
    return bytes(owner.sign_message(encode_defunct(text=text)).signature) + bytes.fromhex(MARK)


# ------------------------------------------------------------------------------------------------------- the real chain


@pytest.mark.devnet
def test_whoever_owns_the_account_today_is_who_signs_for_it(chain: JsonRpcChain, rpc: JsonRpc) -> None:
    first, second = Account.create(), Account.create()
    wallet = deploy_wallet(rpc, first.address)
    require_signed(TEXT, signed(first, TEXT), wallet, accepts=chain.accepts_signature)
    for owner, text in ((second, TEXT), (first, TEXT + " ")):
        with pytest.raises(SignInRefusedError):
            require_signed(TEXT, signed(owner, text), wallet, accepts=chain.accepts_signature)
    hand_over(rpc, wallet, first.address, second.address)
    with pytest.raises(SignInRefusedError):
        require_signed(TEXT, signed(first, TEXT), wallet, accepts=chain.accepts_signature)
    require_signed(TEXT, signed(second, TEXT), wallet, accepts=chain.accepts_signature)


@pytest.mark.devnet
def test_another_account_of_the_same_owner_does_not_sign(chain: JsonRpcChain, rpc: JsonRpc) -> None:
    owner = Account.create()
    mine = deploy_wallet(rpc, owner.address)
    theirs = deploy_wallet(rpc, Account.create().address)
    assert mine != theirs
    with pytest.raises(SignInRefusedError):
        require_signed(TEXT, signed(owner, TEXT), theirs, accepts=chain.accepts_signature)


@pytest.mark.devnet
@pytest.mark.parametrize("what", LIARS)
def test_only_a_yes_is_a_yes(chain: JsonRpcChain, rpc: JsonRpc, what: str) -> None:
    account = Address(Account.create().address)
    rpc("hardhat_setCode", account, "0x" + LIARS[what])
    assert not chain.accepts_signature(account, DIGEST, b"\x01" * 65)
    rpc("hardhat_setCode", account, f"0x{MAGIC}5f5260205ff3")
    assert chain.accepts_signature(account, DIGEST, b"\x01" * 65)


def test_a_chain_that_cannot_be_asked_says_neither_yes_nor_no() -> None:
    nowhere = JsonRpcChain(JsonRpc("http://127.0.0.1:9"), Domain(chain_id=1, contract=Address("0x" + "11" * 20)))
    with pytest.raises(ChainUnavailableError):
        nowhere.accepts_signature(Address("0x" + "22" * 20), DIGEST, b"")


# ------------------------------------------------------------------------------------------------------------- the door


SIGNATURE: Final = b"whatever this account takes for one"


class SmartBrowser(Browser):
    """Its wallet is a smart account, which gives one signature for every text."""

    def sign_text(self, text: str) -> str:  # noqa: ARG002 - whatever it says
        """In place of the key's."""
        return "0x" + SIGNATURE.hex()


def smart(world: World, *, accepts: bytes = SIGNATURE) -> Browser:
    """A smart account that takes this for its signature."""
    browser = SmartBrowser(world)
    world.chain.smart_accounts[Address(browser.wallet.address)] = lambda _digest, signature: signature == accepts
    return browser


def test_a_smart_account_enrols_signs_in_and_steps_up(world: World) -> None:
    browser = smart(world)
    assert browser.by_wallet("enrol", code=invite(world)).status_code == 200
    assert browser.is_signed_in()
    browser.submit("/sign-out")
    assert browser.by_wallet("sign-in").status_code == 200
    assert code(browser.by_wallet("step-up")) == ""
    (wallet,) = world.custodian.enrolment.wallets(
        world.custodian.enrolment.wallet_of(Address(browser.wallet.address)).account_id  # type: ignore[union-attr] # is there
    )
    assert wallet.address == browser.wallet.address


def test_a_smart_account_that_says_no_comes_in_nowhere(world: World) -> None:
    browser = smart(world, accepts=b"something else")
    assert code(browser.by_wallet("enrol", code=invite(world))) == "sign_in_refused"
    assert code(browser.by_wallet("sign-in")) == "sign_in_refused"
    assert not browser.is_signed_in()


def test_a_smart_account_that_nobody_linked_comes_in_nowhere(world: World) -> None:
    smart(world).by_wallet("enrol", code=invite(world))
    assert code(smart(world).by_wallet("sign-in")) == "sign_in_refused"


def test_while_the_chain_is_away_a_key_signs_in_and_a_smart_account_does_not(world: World) -> None:
    browser, plain = smart(world), Browser(world)
    browser.by_wallet("enrol", code=invite(world))
    plain.by_wallet("enrol", code=invite(world, world.another_subject()))
    for one in (browser, plain):
        one.submit("/sign-out")
    world.chain.down = True
    assert code(browser.by_wallet("sign-in")) == "sign_in_refused"
    assert plain.by_wallet("sign-in").status_code == 200
    world.chain.down = False
    assert browser.by_wallet("sign-in").status_code == 200


@pytest.mark.parametrize("signature", ["0x", "0x1", "0x" + "ab" * 4097, "ab", "0xzz", None])
def test_what_is_no_signature_of_any_kind_is_not_asked_about(world: World, signature: str | None) -> None:
    browser = smart(world)
    said(browser.ask_wallet("sign-in"))
    asked: list[bool] = []
    world.chain.before("accepts_signature", lambda: asked.append(True))
    assert code(browser.post("/auth/wallet", {"signature": signature})) == "malformed"
    assert asked == []
