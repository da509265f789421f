"""What an institution can check by itself, later and without us: receipts against the chain, bundles against a hash."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from actors import DAY, Institution, Subject, World
from altering import alterations
from joserfc.jwk import ECKey

from ledger import stateproof
from ledger.access import COMPELLED, AccessEntry, BatchKind, LoggedAccess, entry_hash_of, fold
from ledger.artifact import contract_address
from ledger.chain import JsonRpcChain
from ledger.compelled import NewOrder
from ledger.config import Config
from ledger.consent import ZERO32, Domain, Hex32, Reason
from ledger.contract import LogState
from ledger.contract_events import batches_of
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund, mine
from ledger.errors import AuditError, ChainUnavailableError, ConsentRevokedError, NotFoundError
from ledger.evidence import ProvenAccess, bundle_of, verify_bundle, verify_receipt
from ledger.exchange import RECEIPT_TYPE, new_institution_keys, receipt_claims, sign_claims, verify_claims
from ledger.jsonrpc import JsonRpc
from ledger.preparation import entry_of
from ledger.proof import Proofs
from ledger.release import Release
from ledger.stateproof import StateProof, block_hash_of, header_fields, log_of, log_slots, storage_root, storage_word

ROOT: Final = Path(__file__).parent.parent
OTHER32: Final = Hex32("0x" + "ab" * 32)
OTHER_ADDRESS: Final = "0x" + "12" * 20

# ------------------------------------------------------------------------------------------ receipts, against the chain


def resigned(world: World, receipt: str, change: Callable[[dict[str, Any]], object]) -> str:
    """The receipt of a custodian that signs whatever it likes."""
    key = world.custodian.accounts.signing_key
    claims = verify_claims(receipt, key, RECEIPT_TYPE)
    change(claims)
    return sign_claims(claims, key, RECEIPT_TYPE)


def test_a_receipt_leads_to_its_entry(world: World) -> None:
    release = world.ask(world.grant())
    seen = verify_receipt(release.receipt, world.chain, world.custodian.accounts.signing_key)
    assert seen.entry.release_id == release.release_id
    assert [seen.outcome.access.entry_hash] == world.logged()


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *((f"entry.{name}", OTHER32) for name in ("consentId", "releaseId", "requestHash", "recordsHash", "salt")),
        ("entry.institution", "bank-2"),
        ("entry.purpose", "account-review"),
        ("entry.attributes", ["savings"]),
        ("entry.salt", "0x1"),
        ("entry.salt", 7),
        ("entry", None),
        ("entryHash", OTHER32),
        ("late", True),
        ("proof.chainId", 1),
        ("proof.contract", OTHER_ADDRESS),
        ("proof.custodian", OTHER_ADDRESS),
        ("proof.writer", OTHER_ADDRESS),
        ("proof.transactionHash", OTHER32),
        ("proof.transactionHash", "latest"),
        ("proof.blockNumber", 1),
        ("proof.blockHash", OTHER32),
        ("proof.logIndex", 1),
        ("proof.size", 7),
        ("proof.head", OTHER32),
        ("proof", []),
    ],
)
def test_a_custodian_that_signs_another_claim_is_found_out(world: World, claim: str, value: object) -> None:
    world.ask(world.grant())
    release = world.ask(world.grant())

    def change(claims: dict[str, Any]) -> None:
        *path, name = claim.split(".")
        for step in path:
            claims = claims[step]
        assert claims[name] != value
        claims[name] = value

    with pytest.raises(AuditError):
        verify_receipt(resigned(world, release.receipt, change), world.chain, world.custodian.accounts.signing_key)


def test_a_receipt_with_another_entrys_opening_is_found_out(world: World) -> None:
    first, second = world.ask(world.grant()), world.ask(world.grant())
    key = world.custodian.accounts.signing_key
    other = verify_claims(second.receipt, key, RECEIPT_TYPE)

    def swap(claims: dict[str, Any]) -> None:
        claims.update(entry=other["entry"], entryHash=other["entryHash"])

    with pytest.raises(AuditError, match=r"another consent|another entry"):
        verify_receipt(resigned(world, first.receipt, swap), world.chain, key)


def test_an_opening_of_other_words_with_the_same_hash_is_found_out(world: World) -> None:
    release = world.ask(world.grant())

    def shift(claims: dict[str, Any]) -> None:
        entry = claims["entry"]
        entry["requestHash"] += entry["recordsHash"][2:4]
        entry["recordsHash"] = "0x" + entry["recordsHash"][4:]
        assert entry_hash_of(AccessEntry.from_json(entry)) == claims["entryHash"]

    def upper(claims: dict[str, Any]) -> None:
        claims["entry"]["requestHash"] = "0x" + claims["entry"]["requestHash"][2:].upper()
        assert entry_hash_of(AccessEntry.from_json(claims["entry"])) == claims["entryHash"]

    for change in (shift, upper):
        with pytest.raises(AuditError):
            verify_receipt(resigned(world, release.receipt, change), world.chain, world.custodian.accounts.signing_key)


def test_a_receipt_of_someone_else_than_the_custodian_is_worth_nothing(world: World) -> None:
    release = world.ask(world.grant())
    with pytest.raises(AuditError, match="not signed by the custodian"):
        verify_receipt(release.receipt, world.chain, new_institution_keys().keys[0])  # type: ignore[arg-type]


def test_an_entry_that_a_reorganisation_took_away_does_not_verify(world: World) -> None:
    release = world.ask(world.grant())
    world.chain.reorg(1)
    with pytest.raises(AuditError, match="not on chain"):
        verify_receipt(release.receipt, world.chain, world.custodian.accounts.signing_key)


# ------------------------------------------------------------------------------------------------ the chain's own forms


@pytest.fixture
def anvil() -> Iterator[JsonRpc]:
    """A node of another make."""
    binaries = list((ROOT / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil"))
    if not binaries:
        pytest.skip("anvil is not installed: run `make setup`")
    port = free_port()
    command = [str(binaries[0]), "--port", str(port), "--silent", "--hardfork", "osaka"]
    with subprocess.Popen(command) as process:
        try:
            rpc = JsonRpc(f"http://127.0.0.1:{port}")
            for _ in range(200):
                try:
                    rpc("eth_chainId")
                except ChainUnavailableError:
                    time.sleep(0.05)
                else:
                    break
            yield rpc
        finally:
            process.terminate()


def assert_headers_are_understood(rpc: JsonRpc) -> None:
    mine(rpc)
    for number in ("0x0", "latest"):
        block = rpc("eth_getBlockByNumber", number, False)
        header = stateproof.header_rlp(block)
        assert block_hash_of(header) == block["hash"]
        fields = header_fields(header)
        assert fields == {name: block[name] for name in fields}
        assert set(fields) >= {"stateRoot", "baseFeePerGas", "requestsHash"}


@pytest.mark.devnet
def test_the_header_of_a_block_hashes_to_what_hardhat_says(devnet: Devnet) -> None:
    assert_headers_are_understood(JsonRpc(devnet.url))


@pytest.mark.devnet
def test_the_header_of_a_block_hashes_to_what_anvil_says(anvil: JsonRpc) -> None:
    assert_headers_are_understood(anvil)


def test_the_header_of_a_block_of_the_main_network_hashes_to_its_hash() -> None:
    # Block 1 of Ethereum, of 2015: none of the later fields.
    block = {
        "parentHash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
        "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "miner": "0x05a56e2d52c817161883f50c441c3228cfe54d9f",
        "stateRoot": "0xd67e4d450343046425ae4271474353857ab860dbc0a1dde64b41b5cd3a532bf3",
        "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "logsBloom": "0x" + "00" * 256,
        "difficulty": "0x3ff800000",
        "number": "0x1",
        "gasLimit": "0x1388",
        "gasUsed": "0x0",
        "timestamp": "0x55ba4224",
        "extraData": "0x476574682f76312e302e302f6c696e75782f676f312e342e32",
        "mixHash": "0x969b900de27b6ac6a67742365dd65f55a0526c41fd18e1b16f1a1215c2e66f59",
        "nonce": "0x539bd4979fef1ec4",
    }
    header = stateproof.header_rlp(block)
    assert block_hash_of(header) == "0x88e96d4537bea4d9c05d12549907b32561d3bf31f45aae734cdc119f13406cb6"
    assert header_fields(header) == block


# -------------------------------------------------------------------------------------------------------------- bundles


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A custodian on a real chain with three releases, the first two in a batch; the first one's bundle."""

    custodian: Custodian
    institution: Institution
    releases: list[Release]
    bundle: dict[str, Any]
    block_hash: Hex32

    def verify(self, bundle: dict[str, Any], block_hash: Hex32 | None = None) -> ProvenAccess:
        return verify_bundle(
            bundle,
            self.custodian.accounts.signing_key,
            domain=self.custodian.chain.domain,
            block_hash=block_hash or self.block_hash,
        )

    def proofs(self, chain: JsonRpcChain) -> Proofs:
        custodian = self.custodian
        return Proofs(
            custodian.journal,
            custodian.releases,
            chain,
            custodian=custodian.address,
            signing_key=custodian.accounts.signing_key,
            finality="latest",
        )

    def party(self) -> Any:
        return self.custodian.registry.institution(self.institution.institution_id)


@pytest.fixture(scope="module")
def proven(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proven]:
    config = Config(data=tmp_path_factory.mktemp("evidence") / "data", rpc_url=devnet.url)
    Custodian.init(config)
    institution, subject = Institution(), Subject()
    with Custodian(config) as custodian:
        fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
        custodian.deploy()
        institution.register(custodian)
        subject.furnish(custodian)
        consents = [subject.grant(custodian, institution) for _ in range(2)]
        releases = [custodian.releases.release(institution.request(custodian, one)) for one in (*consents, consents[0])]
        party = custodian.registry.institution(institution.institution_id)
        bundle = json.loads(json.dumps(custodian.proofs.bundle(releases[0].release_id, party)))
        number = int(bundle["header"]["number"], 16)
        block = custodian.rpc("eth_getBlockByNumber", hex(number), False)
        yield Proven(
            custodian=custodian,
            institution=institution,
            releases=releases,
            bundle=bundle,
            block_hash=Hex32(block["hash"]),
        )


class Forgetful(JsonRpcChain):
    """A node that is no archive: it has the state of the last block only."""

    def __init__(self, chain: Custodian) -> None:
        super().__init__(chain.rpc, chain.chain.domain)

    def state_proof(self, number: int, slots: Sequence[Hex32]) -> StateProof:
        if number < self.latest().number:
            raise ChainUnavailableError("missing trie node")
        return super().state_proof(number, slots)


@pytest.mark.devnet
class TestBundle:
    def test_proves_the_entry_by_the_hash_of_its_block_and_nothing_else(self, proven: Proven) -> None:
        seen = proven.verify(proven.bundle)
        assert seen.anchored
        assert seen.entry.release_id == proven.releases[0].release_id
        assert seen.block_hash == proven.block_hash
        assert not seen.late
        # The node still had the state of that block, so that nothing later had to come with it.
        assert len(proven.bundle["batches"]) == 1

    def test_says_that_it_is_anchored_to_nothing_if_no_hash_was_given(self, proven: Proven) -> None:
        key, domain = proven.custodian.accounts.signing_key, proven.custodian.chain.domain
        seen = verify_bundle(proven.bundle, key, domain=domain, block_hash=None)
        assert not seen.anchored

    def test_does_not_hold_by_the_hash_of_another_block(self, proven: Proven) -> None:
        with pytest.raises(AuditError, match="another hash"):
            proven.verify(proven.bundle, OTHER32)

    def test_does_not_hold_for_another_chain_or_contract(self, proven: Proven) -> None:
        domain = proven.custodian.chain.domain
        for other in (
            replace(domain, chain_id=1),
            Domain(chain_id=domain.chain_id, contract=proven.custodian.address),
        ):
            with pytest.raises(AuditError, match="another c"):
                verify_bundle(proven.bundle, proven.custodian.accounts.signing_key, domain=other, block_hash=None)

    def test_does_not_hold_by_another_custodians_key(self, proven: Proven) -> None:
        other = proven.institution.signing_key
        with pytest.raises(AuditError, match="not signed by the custodian"):
            verify_bundle(proven.bundle, other, domain=proven.custodian.chain.domain, block_hash=None)  # type: ignore[arg-type]

    def test_of_a_node_without_old_states_leads_through_all_later_batches(self, proven: Proven) -> None:
        bundle = proven.proofs(Forgetful(proven.custodian)).bundle(proven.releases[0].release_id, proven.party())
        assert len(bundle["batches"]) == 3
        latest = proven.custodian.chain.latest()
        seen = proven.verify(bundle, latest.block_hash)
        assert seen.block_number == latest.number
        assert seen.entry.release_id == proven.releases[0].release_id

    def test_does_not_hold_if_a_later_batch_is_left_out_put_in_or_moved(self, proven: Proven) -> None:
        bundle = proven.proofs(Forgetful(proven.custodian)).bundle(proven.releases[0].release_id, proven.party())
        block_hash = proven.custodian.chain.latest().block_hash
        first, second, third = bundle["batches"]
        for batches in ([], [first], [first, second], [second, third], [first, third], [third], [first, third, second]):
            with pytest.raises(AuditError):
                proven.verify(bundle | {"batches": batches}, block_hash)
        with pytest.raises(AuditError):
            proven.verify(bundle | {"batches": [first, second, third, third]}, block_hash)
        assert proven.verify(bundle, block_hash)

    def test_does_not_hold_with_any_part_of_it_altered(self, proven: Proven) -> None:
        long = proven.proofs(Forgetful(proven.custodian)).bundle(proven.releases[0].release_id, proven.party())
        held = []
        for bundle, block_hash in (
            (proven.bundle, proven.block_hash),
            (long, proven.custodian.chain.latest().block_hash),
        ):
            altered = list(alterations(bundle))
            assert len(altered) > 100
            for path, other in altered:
                try:
                    proven.verify(other, block_hash)
                except AuditError:
                    continue
                held.append(path)
        assert held == []

    def test_does_not_hold_if_it_was_never_a_bundle(self, proven: Proven) -> None:
        empty: dict[str, Any] = {name: [] for name in proven.bundle}
        shapes: list[Any] = [{}, {"version": 1}, dict.fromkeys(proven.bundle), empty, [], None]
        for other in shapes:
            with pytest.raises(AuditError):
                proven.verify(other)

    def test_does_not_hold_with_a_log_that_the_chain_does_not_have(self, proven: Proven) -> None:
        """The custodian signs a receipt for an entry of its own making, with batches that lead to it."""
        key = proven.custodian.accounts.signing_key
        claims = verify_claims(proven.bundle["receipt"], key, RECEIPT_TYPE)
        forged = copy.deepcopy(proven.bundle)
        entry = replace(AccessEntry.from_json(claims["entry"]), purpose="account-review")
        made_up = LoggedAccess(consent_id=entry.consent_id, entry_hash=entry_hash_of(entry))
        head = fold(forged["batches"][0]["expectedHead"], BatchKind.ACCESSES, [made_up], [Reason.NONE])
        claims.update(entry=entry.as_json(), entryHash=made_up.entry_hash, proof=claims["proof"] | {"head": head})
        forged["receipt"] = sign_claims(claims, key, RECEIPT_TYPE)
        forged["batches"][0]["accesses"] = [[made_up.consent_id, made_up.entry_hash]]
        with pytest.raises(AuditError, match="log's head"):
            proven.verify(forged)

    @pytest.mark.parametrize(
        ("claim", "value"),
        [
            ("chainId", 1),
            ("contract", OTHER_ADDRESS),
            ("custodian", OTHER_ADDRESS),
            ("writer", OTHER_ADDRESS),
            ("blockNumber", 10**6),
            ("blockHash", OTHER32),
            ("size", 7),
            ("head", OTHER32),
        ],
    )
    def test_does_not_hold_with_another_claim_of_the_custodian(self, proven: Proven, claim: str, value: object) -> None:
        key = proven.custodian.accounts.signing_key
        claims = verify_claims(proven.bundle["receipt"], key, RECEIPT_TYPE)
        lie = sign_claims(claims | {"proof": claims["proof"] | {claim: value}}, key, RECEIPT_TYPE)
        with pytest.raises(AuditError):
            proven.verify(proven.bundle | {"receipt": lie})

    def test_of_a_refused_entry_is_none_of_an_access(self, proven: Proven) -> None:
        custodian, institution, subject = proven.custodian, proven.institution, Subject("refused-1")
        subject.furnish(custodian)
        consent_id = subject.grant(custodian, institution)
        subject.revoke(custodian, consent_id)
        with pytest.raises(Exception, match="revoked"):
            custodian.releases.release(institution.request(custodian, consent_id))
        custodian.releases.log_refusals()
        (row,) = custodian.journal.history([consent_id])
        assert row.log_index is not None
        with pytest.raises(ConsentRevokedError):
            custodian.proofs.bundle(row.release_id, proven.party())
        # Put together all the same, it does not pass for one.
        batch = custodian.journal.batch_row(row.batch_id)
        state = custodian.chain.state_proof(batch.block_number, log_slots(custodian.address, batch.writer))
        mined = custodian.chain.receipt(batch.transaction_hash)
        assert mined is not None
        place = custodian.journal.proof_of(row, custodian.chain.domain, custodian.address)
        claims = receipt_claims(entry_of(row, custodian.keys), row.entry_hash, place, at=custodian.clock())
        receipt = sign_claims(claims, custodian.accounts.signing_key, RECEIPT_TYPE)
        bundle = bundle_of(receipt, state, [(batch.expected_head, one) for one in batches_of(mined.events)])
        with pytest.raises(AuditError, match="the entry was refused"):
            proven.verify(bundle, batch.block_hash)
        with pytest.raises(AuditError, match="the entry was refused"):
            verify_receipt(receipt, custodian.chain, custodian.accounts.signing_key)

    def test_is_not_for_another_institution(self, proven: Proven) -> None:
        other = Institution("bank-x", "Other Bank")
        other.register(proven.custodian)
        with pytest.raises(NotFoundError):
            proven.custodian.proofs.bundle(
                proven.releases[0].release_id, proven.custodian.registry.institution(other.institution_id)
            )

    def test_is_refused_if_too_much_came_since(self, proven: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
        proofs = proven.proofs(Forgetful(proven.custodian))
        for limit in ("MAX_ENTRIES", "MAX_BLOCKS"):
            with monkeypatch.context() as patch:
                patch.setattr(f"ledger.proof.{limit}", 1)
                with pytest.raises(ChainUnavailableError, match="too much was logged since"):
                    proofs.bundle(proven.releases[0].release_id, proven.party())

    def test_is_not_handed_out_if_the_endpoint_lies(self, proven: Proven) -> None:
        class Lying(JsonRpcChain):
            def state_proof(self, number: int, slots: Sequence[Hex32]) -> StateProof:
                return super().state_proof(number, slots[::-1])

        chain = Lying(proven.custodian.rpc, proven.custodian.chain.domain)
        with pytest.raises(ChainUnavailableError, match="does not prove"):
            proven.proofs(chain).bundle(proven.releases[0].release_id, proven.party())

    def test_the_slots_hold_what_the_contract_says_of_the_log(self, proven: Proven) -> None:
        custodian, chain = proven.custodian, proven.custodian.chain
        slots = log_slots(custodian.address, custodian.log.address)
        number = chain.latest().number
        state = chain.state_proof(number, slots)
        state_root = Hex32(header_fields(state.header)["stateRoot"])
        root = storage_root(state_root, chain.domain.contract, state.account)
        first, second = (storage_word(root, slot, nodes) for slot, nodes in zip(slots, state.storage, strict=True))
        log: LogState = chain.log(custodian.address, custodian.log.address)
        assert log_of((first, second)) == (log.head, log.size)
        assert log.size >= 3
        # What is not there is proven, too: nothing was stored for another writer.
        nobody = log_slots(custodian.address, custodian.address)
        state = chain.state_proof(number, nobody)
        assert [storage_word(root, slot, nodes) for slot, nodes in zip(nobody, state.storage, strict=True)] == [0, 0]
        assert log_of((0, 0)) == (ZERO32, 0)


@pytest.fixture
def own_custodian(data: Path, tmp_path: Path) -> Iterator[Custodian]:
    """On a chain of its own, whose past and clock it may change."""
    with Devnet(port=free_port(), log=tmp_path / "node.log") as node:
        config = Config(data=data, rpc_url=node.url)
        Custodian.init(config)
        with Custodian(config) as custodian:
            fund(custodian.rpc, [account.address for account in custodian.accounts.every()])
            custodian.deploy()
            yield custodian


@pytest.mark.devnet
def test_a_bundle_is_made_anew_when_a_reorganisation_moved_its_entry(own_custodian: Custodian) -> None:
    custodian, institution, subject = own_custodian, Institution(), Subject()
    institution.register(custodian)
    subject.furnish(custodian)
    consent_id = subject.grant(custodian, institution)
    snapshot = custodian.rpc("evm_snapshot")
    release = custodian.releases.release(institution.request(custodian, consent_id))
    party = custodian.registry.institution(institution.institution_id)
    key, chain = custodian.accounts.signing_key, custodian.chain
    before = custodian.proofs.bundle(release.release_id, party)

    custodian.rpc("evm_revert", snapshot)
    mine(custodian.rpc)
    custodian.sync()
    after = custodian.proofs.bundle(release.release_id, party)
    block_hash = chain.block_hash(int(after["header"]["number"], 16))
    assert verify_bundle(after, key, domain=chain.domain, block_hash=block_hash).entry.release_id == release.release_id
    # It came back by its own bytes, so it is an access like any other, in another block.
    assert after["batches"][0]["kind"] == BatchKind.ACCESSES
    # The old one stays what it was, and is about a block that the chain does not have.
    old = verify_bundle(before, key, domain=chain.domain, block_hash=None)
    assert old.block_hash != chain.block_hash(old.block_number)


@pytest.mark.devnet
def test_an_entry_is_proven_that_shares_its_block_with_an_earlier_batch(own_custodian: Custodian) -> None:
    custodian, institution, subject = own_custodian, Institution(), Subject()
    institution.register(custodian)
    subject.furnish(custodian)
    consent_id = subject.grant(custodian, institution)
    rpc, snapshot = custodian.rpc, custodian.rpc("evm_snapshot")
    releases = [custodian.releases.release(institution.request(custodian, consent_id)) for _ in range(2)]
    rows = [custodian.journal.release_row(one.release_id) for one in releases]
    sent = [custodian.journal.batch_row(row.batch_id).raw for row in rows if row is not None]
    # A reorganisation after which both are in one block.
    rpc("evm_revert", snapshot)
    rpc("evm_setAutomine", False)
    for raw in sent:
        rpc("eth_sendRawTransaction", "0x" + raw.hex())
    mine(rpc)
    rpc("evm_setAutomine", True)
    assert custodian.sync().moved == 2
    key, chain = custodian.accounts.signing_key, custodian.chain
    party = custodian.registry.institution(institution.institution_id)
    for release, batches in zip(releases, (2, 1), strict=True):
        bundle = custodian.proofs.bundle(release.release_id, party)
        assert len(bundle["batches"]) == batches
        seen = verify_bundle(bundle, key, domain=chain.domain, block_hash=chain.latest().block_hash)
        assert seen.entry.release_id == release.release_id


def holds(bundle: dict[str, Any], key: ECKey, domain: Domain, block_hash: Hex32) -> bool:
    try:
        verify_bundle(bundle, key, domain=domain, block_hash=block_hash)
    except AuditError:
        return False
    return True


@pytest.mark.devnet
def test_an_entry_is_proven_in_a_log_in_which_an_authority_ordered_accesses(own_custodian: Custodian) -> None:
    custodian, institution, subject, court = own_custodian, Institution(), Subject(), Institution("court-1", "Court")
    institution.register(custodian)
    custodian.registry.add_authority("court-1", "Court", court.jwks, at=custodian.clock())
    subject.furnish(custodian)
    consent_id = subject.grant(custodian, institution)
    release = custodian.releases.release(institution.request(custodian, consent_id))
    order = NewOrder(
        authority="court-1",
        reference="1/26",
        document_hash=OTHER32,
        subject_id=custodian.vault.subject_of(subject.ref),
        attributes=("savings",),
        embargo_until=custodian.clock() + DAY,
    )
    ordered = custodian.orders.execute(order)
    custodian.releases.release(institution.request(custodian, consent_id))
    key, domain, party = (
        custodian.accounts.signing_key,
        custodian.chain.domain,
        custodian.registry.institution("bank-1"),
    )
    # Of a node without the state of that day: every batch since is in it.
    proofs = Proofs(
        custodian.journal,
        custodian.releases,
        Forgetful(custodian),
        custodian=custodian.address,
        signing_key=key,
        finality="latest",
    )
    bundle = proofs.bundle(release.release_id, party)
    assert [batch["kind"] for batch in bundle["batches"]] == [0, 3, 0]
    assert (bundle["version"], bundle["batches"][1]["embargoUntil"]) == (2, order.embargo_until)
    newest = custodian.chain.latest().block_hash
    assert verify_bundle(bundle, key, domain=domain, block_hash=newest).entry.release_id == release.release_id
    for path, altered in alterations(bundle["batches"][1]):
        changed = bundle | {"batches": [bundle["batches"][0], altered, bundle["batches"][2]]}
        assert not holds(changed, key, domain, newest), path
    for version in (1, 3, True, "2"):
        with pytest.raises(AuditError):
            verify_bundle(bundle | {"version": version}, key, domain=domain, block_hash=newest)
    # A log without orders is what it was, for verifiers that know version 1 only.
    assert custodian.proofs.bundle(release.release_id, party)["version"] == 1

    # What was ordered is proven as what it is.
    proof = verify_claims(ordered.receipt, key, RECEIPT_TYPE)["proof"]
    mined = custodian.chain.receipt(proof["transactionHash"])
    assert mined is not None
    state = custodian.chain.state_proof(mined.block_number, log_slots(custodian.address, proof["writer"]))
    head = bundle["batches"][1]["expectedHead"]
    own = bundle_of(ordered.receipt, state, [(head, one) for one in batches_of(mined.events)])
    seen = verify_bundle(own, key, domain=domain, block_hash=mined.block_hash)
    assert (seen.entry.purpose, seen.entry.consent_id) == (COMPELLED, ordered.order_hash)


@pytest.mark.devnet
def test_a_late_entry_is_proven_as_late(own_custodian: Custodian) -> None:
    custodian, institution, subject = own_custodian, Institution(), Subject()
    institution.register(custodian)
    subject.furnish(custodian)
    snapshot = custodian.rpc("evm_snapshot")
    consent_id = subject.grant(custodian, institution)
    release = custodian.releases.release(institution.request(custodian, consent_id))
    custodian.rpc("evm_revert", snapshot)
    custodian.rpc("evm_mine", hex(int(time.time()) + 40 * DAY))
    custodian.sync()
    party = custodian.registry.institution(institution.institution_id)
    bundle = custodian.proofs.bundle(release.release_id, party)
    key, domain = custodian.accounts.signing_key, custodian.chain.domain
    assert verify_bundle(bundle, key, domain=domain, block_hash=None).late
    claims = verify_claims(bundle["receipt"], key, RECEIPT_TYPE)
    unsaid = sign_claims(claims | {"late": False}, key, RECEIPT_TYPE)
    with pytest.raises(AuditError, match="late"):
        verify_bundle(bundle | {"receipt": unsaid}, key, domain=domain, block_hash=None)


def test_made_up_nodes_and_headers_are_an_audit_error_and_nothing_else() -> None:
    root, account = OTHER32, contract_address()
    for node in (b"", b"\x00", b"\xc0", b"\xc1\x80", b"\xc2\xc1\x80\x80", b"\xff" * 40, b"\xc0" * 17, b"\xf9\xff\xff"):
        with pytest.raises(AuditError):
            storage_root(root, account, [node])
        with pytest.raises(AuditError):
            storage_root(block_hash_of(node), account, [node])
        with pytest.raises(AuditError):
            header_fields(node)
    for block in ({}, {"parentHash": 1}, dict.fromkeys(stateproof.HEADER_FIELDS, "0xzz")):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            stateproof.header_rlp(block)
