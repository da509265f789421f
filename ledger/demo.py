"""The demo: the main job on real data, told as a story and checked at every step.

What it claims it checks, most of it from outside: answers are opened with the institution's key, receipts are compared
with the chain through an endpoint of their own, heads are recomputed from the events. `Findings` counts every check
under the property of the design that it bears on; one that does not hold makes the demo fail.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ledger import deploy
from ledger.access import fold
from ledger.actors import PROPERTIES, Demo, Findings, Lender, Person
from ledger.chain import JsonRpcChain
from ledger.config import Config
from ledger.consent import ZERO32, Address, Hex32
from ledger.contract_events import batches_of
from ledger.custodian import Custodian
from ledger.devnet import Devnet, free_port, fund, mine
from ledger.envelope import TRIAL, open_envelope
from ledger.errors import DevnetError, KeyUnavailableError
from ledger.exchange import key_for, open_answer
from ledger.importer import Importer
from ledger.importmap import parse_map
from ledger.json_forms import DAY_SECONDS
from ledger.jsonrpc import JsonRpc, RpcError
from ledger.registry import StoredConsent
from ledger.release import Release
from ledger.store import Store, records, sqlite_url
from ledger.typed_data import grant_typed_data, revocation_typed_data, sign_typed_data
from ledger.vault import envelope_of


def run_demo(*, rpc_url: str | None, console: Console) -> Findings:
    """Run the story in a directory of its own, which is deleted afterwards. Raises `LedgerError` if it cannot run."""
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="consent-ledger-demo-"))
    try:
        with _chain(rpc_url, home) as (url, restart):
            config = Config(data=home / "data", rpc_url=url)
            Custodian.init(config)
            with Custodian(config) as custodian:
                witness = JsonRpcChain(JsonRpc(url), custodian.chain.domain)
                demo = Demo(custodian=custodian, witness=witness, findings=Findings(), console=console)
                _story(demo, restart, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    demo.findings.facts["seconds"] = round(time.monotonic() - started, 1)
    _verdict(demo)
    return demo.findings


@contextmanager
def _chain(rpc_url: str | None, home: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A chain, and a way to lose everything on it."""
    if rpc_url is not None:
        rpc = JsonRpc(rpc_url)
        # Told before anything is done, not in the ninth chapter.
        _reset(rpc)
        yield rpc_url, lambda: _reset(rpc)
        return
    with Devnet(port=free_port(), log=home / "devnet.log") as node:

        def restart() -> None:
            node.stop(kill=True)
            node.start()

        yield node.url, restart


def _reset(rpc: JsonRpc) -> None:
    """Raises `DevnetError` if the node cannot forget everything, as Hardhat's no longer can."""
    for method in ("hardhat_reset", "anvil_reset"):
        try:
            rpc(method)
        except RpcError:
            continue
        return
    raise DevnetError("the node cannot be reset: give an anvil, or no --rpc-url, and the demo starts a node of its own")


def _story(demo: Demo, restart: Callable[[], None], home: Path) -> None:
    _contract(demo)
    _data(demo, home)
    lenders = _lenders(demo)
    people = [Person.new(f"german-{number:04d}") for number in range(1, 101)]
    consents = _grants(demo, people, lenders)
    answers = _queries(demo, consents)
    _stopping(demo, people, lenders, consents)
    brief = _refusals(demo, people, lenders)
    _erasure(demo, people[0], consents[0], home)
    _lost_chain(demo, restart, consents, answers, brief)
    _log(demo)
    _privacy(demo, people, lenders)


def _contract(demo: Demo) -> None:
    demo.chapter("1. The contract")
    ledger = demo.custodian
    fund(ledger.rpc, [account.address for account in ledger.accounts.every()])
    ledger.deploy()
    found = deploy.verify(ledger.rpc)
    demo.tell(f"deployed at {found.contract}, the same address on every chain")
    demo.tell(
        f"verified: its {found.code_size} bytes are what {found.sources} source files compile to "
        f"(solc {found.compiler})"
    )
    demo.findings.facts["contract"] = found.contract


def _data(demo: Demo, home: Path) -> None:
    demo.chapter("2. The data: 1,000 German credit records, each value under a key of its own")
    package = files("ledger")
    text = package.joinpath("maps/german.toml").read_text(encoding="utf-8")
    source = home / "german.csv"
    source.write_bytes(package.joinpath("data/german_statlog_1000.csv").read_bytes())
    importer = Importer(demo.custodian.store, demo.custodian.vault, clock=demo.custodian.clock)
    with demo.progress() as bar:
        task = bar.add_task("importing", total=1000)
        result = importer.run(source, parse_map(text), text, progress=lambda done: bar.update(task, completed=done))
        again = importer.run(source, parse_map(text), text)
    demo.findings.check("P8", result.imported == 1000 and result.bad == 0, "the German file is imported whole")  # noqa: PLR2004
    demo.findings.check("P3", again.versions == 0, "importing it again changes nothing")
    counts = demo.custodian.vault.count()
    demo.tell(
        f"{counts['subjects']} people, {counts['records']} values, {result.bad} bad rows; "
        "importing it again adds nothing"
    )
    stored = b"".join(path.read_bytes() for path in (home / "data").glob("ledger.db*"))
    leaked = [word for word in (b"german-0", b"no_checking_account", b"car_new", b"skilled") if word in stored]
    demo.findings.check("P9", not leaked, f"the database shows {leaked}")
    demo.tell("no reference and no value of it can be found in the database's files")
    demo.findings.facts["records"] = counts["records"]


def _lenders(demo: Demo) -> tuple[Lender, Lender]:
    demo.chapter("3. Two institutions with keys of their own")
    lenders = tuple(
        Lender.new(f"did:web:{host}", name)
        for host, name in (("nordbank.example", "Nordbank"), ("suedkredit.example", "Südkredit"))
    )
    for lender in lenders:
        demo.custodian.registry.add_institution(lender.institution_id, lender.name, lender.keys, at=int(time.time()))
        demo.tell(f"{lender.name} ({lender.institution_id})")
    return lenders[0], lenders[1]


def _grants(demo: Demo, people: Sequence[Person], lenders: tuple[Lender, Lender]) -> list[tuple[Lender, StoredConsent]]:
    demo.chapter("4. 100 people sign what they allow, and pay nothing for it")
    north, south = lenders
    plans: list[tuple[Lender, str, tuple[str, ...], dict[str, int]]] = [
        (
            north,
            "loan-origination",
            ("age", "checking_account_status", "credit_amount", "credit_history", "savings"),
            {"max_accesses": 3, "per_day": 3, "retention_days": 31},
        ),
        (
            south,
            "account-review",
            ("credit_amount", "credit_duration", "installment_rate"),
            {"max_accesses": 12, "expires_at": int(time.time()) + 300 * DAY_SECONDS},
        ),
        (south, "tenancy-check", ("credit_history", "employment_duration"), {"retention_days": 0}),
        (north, "model-audit", ("age", "creditability", "foreign_worker"), {"max_accesses": 4, "retention_days": 90}),
    ]
    consents = []
    with demo.progress() as bar:
        for number, person in enumerate(bar.track(people, description="signing")):
            lender, code, attributes, limits = plans[number % len(plans)]
            consents.append((lender, demo.new_consent(person, lender, code, attributes, **limits)))
    states = [demo.witness.consent(consent.consent_id) for _, consent in consents]
    demo.findings.check("P5", all(state.expires_at for state in states), "a grant is not on chain", count=len(states))
    demo.table(
        [
            (lender.name, code, ", ".join(attributes), sum(1 for _, c in consents if c.grant.terms.purpose == code))
            for lender, code, attributes, _ in plans
        ],
        "institution",
        "purpose",
        "attributes",
        "consents",
    )
    # Someone else's signature over the same grant is worth nothing, and neither is a grant sent twice.
    stranger = Person.new(people[0].ref)
    grant = consents[0][1].grant
    forged = sign_typed_data(grant_typed_data(grant, demo.witness.domain), stranger.key)
    ledger = demo.custodian
    subject_id = ledger.vault.subject_of(people[0].ref)
    own = consents[0][1].signature
    changed = replace(grant, expires_at=grant.expires_at + 1)
    rows = [
        demo.refused(
            "P5",
            "invalid_signature",
            "signed by someone else",
            lambda: ledger.grants.grant(changed, forged, subject_id),
        ),
        demo.refused(
            "P5",
            "invalid_signature",
            "a limit changed after signing",
            lambda: ledger.grants.grant(changed, own, subject_id),
        ),
        demo.refused(
            "P5", "already_granted", "the same grant sent again", lambda: ledger.grants.grant(grant, own, subject_id)
        ),
        demo.refused(
            "P5",
            "ceiling_exceeded",
            "longer than the purpose allows",
            lambda: demo.new_consent(
                people[0], north, "loan-origination", ["age"], expires_at=int(time.time()) + 99 * DAY_SECONDS
            ),
        ),
        demo.refused(
            "P5",
            "ceiling_exceeded",
            "an attribute that the purpose may not see",
            lambda: demo.new_consent(people[0], north, "loan-origination", ["foreign_worker"]),
        ),
    ]
    demo.table(rows, "attempt", "refused with")
    demo.findings.facts["consents"] = len(consents)
    return consents


def _queries(demo: Demo, consents: Sequence[tuple[Lender, StoredConsent]]) -> list[Release]:
    demo.chapter("5. The institutions ask; each access is logged first, then answered")
    before = demo.custodian.chain.latest().number
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pair: demo.ask(*pair), consents))
    took = time.monotonic() - started
    blocks = demo.custodian.chain.latest().number - before
    for (lender, consent), answer in zip(consents, answers, strict=True):
        demo.verify(lender, consent, answer)
    demo.findings.check("P8", len(answers) == len(consents), "a request was not answered", count=len(answers))
    demo.tell(f"{len(answers)} answers in {took:.1f} s, logged by {blocks} transactions (those who wait share one)")
    demo.tell("each was opened with the institution's key, and its receipt found on chain through another connection")
    lender, consent = consents[0]
    claims = open_answer(answers[0].sealed, key_for(lender.keys, "enc"), demo.custodian.accounts.signing_key)
    demo.table(
        [(name, held["value"], held["unit"] or "", held["asOf"]) for name, held in claims["values"].items()],
        f"{lender.name} reads",
        "value",
        "unit",
        "as of",
    )
    demo.findings.facts["answers"] = len(answers)
    return answers


def _stopping(
    demo: Demo,
    people: Sequence[Person],
    lenders: tuple[Lender, Lender],
    consents: Sequence[tuple[Lender, StoredConsent]],
) -> None:
    demo.chapter("6. One click stops it: revoked, paused, resumed")
    ledger = demo.custodian
    north = lenders[0]
    person = people[4]
    mine = [
        consents[4][1],
        *(
            demo.new_consent(person, north, "loan-origination", ["savings"], max_accesses=3, per_day=3)
            for _ in range(2)
        ),
    ]
    ids = [consent.consent_id for consent in mine]
    signature = sign_typed_data(revocation_typed_data(ids, demo.witness.domain), person.key)
    started = time.monotonic()
    result = ledger.grants.revoke(ids, signature)
    took = (time.monotonic() - started) * 1000
    block = result.receipt.block_number if result.receipt else "?"
    demo.tell(f"one signature revoked {len(ids)} consents, on chain after {took:.0f} ms, in block {block}")
    rows = [
        demo.refused("P4", "revoked", f"ask under revoked consent {number}", partial(demo.ask, north, consent))
        for number, consent in enumerate(mine, 1)
    ]

    consent = consents[8][1]
    demo.pause(people[8], consent, paused=True, sequence=1)
    rows.append(demo.refused("P4", "paused", "ask under a paused consent", lambda: demo.ask(north, consent)))
    demo.pause(people[8], consent, paused=False, sequence=2)
    demo.verify(north, consent, demo.ask(north, consent))
    rows.append(
        demo.refused(
            "P5",
            "invalid_signature",
            "a stranger resumes",
            lambda: demo.pause(people[9], consent, paused=False, sequence=3),
        )
    )
    rows.append(
        demo.refused(
            "P5",
            "stale_pause_sequence",
            "the old pause sent again",
            lambda: demo.pause(people[8], consent, paused=True, sequence=1),
        )
    )
    demo.table(rows, "attempt", "refused with")
    demo.tell("resumed by the person's own key: answered again")


def _refusals(demo: Demo, people: Sequence[Person], lenders: tuple[Lender, Lender]) -> StoredConsent:
    demo.chapter("7. What is not allowed is refused, with the exact reason")
    north, south = lenders
    now = int(time.time())
    loan = demo.new_consent(people[10], north, "loan-origination", ["age", "savings"], max_accesses=3, per_day=2)
    once = demo.new_consent(people[11], south, "tenancy-check", ["credit_history"])
    brief = demo.new_consent(
        people[12],
        north,
        "loan-origination",
        ["savings"],
        valid_from=now - 60,
        expires_at=now + 6,
        max_accesses=2,
        per_day=2,
    )
    later = demo.new_consent(
        people[13],
        north,
        "loan-origination",
        ["savings"],
        valid_from=now + DAY_SECONDS,
        expires_at=now + 2 * DAY_SECONDS,
    )
    first = demo.ask(north, loan, "retried", attributes=["savings"])
    second = demo.ask(north, loan, "retried", attributes=["savings"])
    demo.findings.check("P3", first.sealed == second.sealed, "a retry got other bytes")
    demo.findings.check("P3", demo.witness.consent(loan.consent_id).accesses == 1, "a retry was counted")
    demo.verify(south, once, demo.ask(south, once))
    captured = demo.request(north, loan, "captured", at=now - 3600)
    tampered = demo.request(north, loan, "tampered")
    tampered = replace(tampered, body=tampered.body.replace(b"age", b"job"))
    replayed = demo.request(north, loan, "retried", attributes=["savings"])
    demo.custodian.releases.release(replayed)
    rows = [
        demo.refused(
            "P8",
            "attribute_not_consented",
            "over-asking: one attribute more",
            lambda: demo.ask(north, loan, attributes=["age", "savings", "credit_amount"]),
        ),
        demo.refused(
            "P8", "purpose_mismatch", "for another purpose", lambda: demo.ask(north, loan, purpose="account-review")
        ),
        demo.refused("P8", "wrong_institution", "by another institution", lambda: demo.ask(south, loan)),
        demo.refused("P8", "exhausted", "once more than allowed", lambda: demo.ask(south, once)),
        demo.refused("P8", "not_yet_valid", "before its time", lambda: demo.ask(north, later)),
        demo.refused(
            "P3",
            "idempotency_conflict",
            "an old key for another question",
            lambda: demo.ask(north, loan, "retried", attributes=["age"]),
        ),
        demo.refused(
            "P3",
            "stale_request",
            "a captured request, an hour later",
            lambda: demo.custodian.releases.release(captured),
        ),
        demo.refused(
            "P3", "replayed", "a captured request, sent again", lambda: demo.custodian.releases.release(replayed)
        ),
        demo.refused(
            "P8",
            "authentication",
            "a request that was tampered with",
            lambda: demo.custodian.releases.release(tampered),
        ),
    ]
    demo.ask(north, loan, attributes=["age"])
    rows.append(demo.refused("P8", "daily_limit", "a third time on one day", lambda: demo.ask(north, loan)))
    demo.verify(north, brief, demo.ask(north, brief))
    # Expiry is judged by the time of blocks, which need not be this machine's.
    deadline = time.monotonic() + 120
    while demo.witness.latest().timestamp < brief.grant.expires_at and time.monotonic() < deadline:
        time.sleep(0.5)
        mine(demo.custodian.rpc)
    rows.append(demo.refused("P8", "expired", "after its time", lambda: demo.ask(north, brief)))
    demo.table(rows, "attempt", "refused with")
    logged = demo.custodian.sync().refusals_logged
    demo.tell(f"{logged} refusals are on the log too, so that the person sees who tried")
    demo.findings.facts["refusals"] = len(rows)
    return brief


def _erasure(demo: Demo, person: Person, asked: tuple[Lender, StoredConsent], home: Path) -> None:
    demo.chapter("8. A person is erased")
    ledger = demo.custodian
    subject_id = ledger.vault.subject_of(person.ref)
    backup = home / "backup.db"
    ledger.store.backup(backup)
    erasure = ledger.eraser.erase(person.ref)
    rotation = ledger.rotate_keys()
    demo.tell(
        f"values destroyed: {erasure.envelopes}, openings of consents: {erasure.consents}; keys rotated, "
        f"{', '.join(rotation.destroyed)} destroyed"
    )
    lender, consent = asked
    rows = [
        demo.refused("P6", "erased", "ask for the erased person's data", lambda: demo.ask(lender, consent)),
        demo.refused("P6", "erased", "take the person in again", lambda: ledger.vault.subject_of(person.ref)),
    ]
    demo.table(rows, "attempt", "refused with")
    old = Store(sqlite_url(backup))
    with old.read() as tx:
        kept = [row for row in tx.execute(records.select()) if row.subject_id == subject_id]
    opened = 0
    for row in kept:
        context = {
            "kind": "attribute",
            "subject": subject_id,
            "attribute": row.attribute,
            "version": str(row.version),
            "schema": "1",
        }
        try:
            open_envelope(envelope_of(row), context, ledger.keys, TRIAL)
            opened += 1
        except KeyUnavailableError:
            pass
    old.close()
    demo.findings.check("P6", opened == 0 and len(kept) > 0, "a backup still opens", count=len(kept))
    demo.tell(f"a backup from before still holds {len(kept)} of the envelopes: {opened} of them can be opened")


def _lost_chain(
    demo: Demo,
    restart: Callable[[], None],
    consents: Sequence[tuple[Lender, StoredConsent]],
    answers: Sequence[Release],
    brief: StoredConsent,
) -> None:
    demo.chapter("9. The chain is killed and comes back empty")
    ledger = demo.custodian
    entries = _recorded(demo)
    restart()
    fund(ledger.rpc, [account.address for account in ledger.accounts.every()])
    lender, consent = consents[16]
    row = demo.refused("P2", "contract_missing", "ask while the log is gone", lambda: demo.ask(lender, consent))
    demo.table([row], "attempt", "refused with")
    ledger.deploy()
    report = ledger.sync()
    demo.tell(
        f"put back in the old order: {report.replayed_acts} signed acts and {report.replayed_accesses} accesses, "
        f"{report.late} of them marked late"
    )
    after = _recorded(demo)
    # One consent that was used has expired meanwhile, unless the new chain's clock starts before that.
    expired = int(demo.witness.latest().timestamp >= brief.grant.expires_at)
    demo.findings.check("P2", report.late == expired, f"{report.late} entries came back late, not {expired}")
    demo.findings.check("P2", entries <= after, f"{len(entries - after)} entries were lost", count=len(entries))
    for (owner, one), answer in list(zip(consents, answers, strict=True))[1:]:
        fresh = Release(
            release_id=answer.release_id,
            sealed=answer.sealed,
            receipt=ledger.releases.receipt(answer.release_id),
            late=False,
        )
        demo.verify(owner, one, fresh)
    demo.tell(f"{len(answers) - 1} receipts verified once more, against the new chain")
    demo.verify(lender, consent, demo.ask(lender, consent))
    demo.tell("and the next question is answered")
    demo.findings.facts["reanchored"] = report.replayed_acts + report.replayed_accesses


def _recorded(demo: Demo) -> set[Hex32]:
    """Hashes of every access that is on this custodian's logs as recorded or late."""
    batches = batches_of(demo.witness.events(0, demo.witness.latest().number))
    return {
        one.access.entry_hash
        for batch in batches
        for one in batch.outcomes
        if batch.custodian == demo.custodian.address and (one.late or not one.reason)
    }


def _log(demo: Demo) -> None:
    demo.chapter("10. The log, recomputed from the chain alone")
    batches = batches_of(demo.witness.events(0, demo.witness.latest().number))
    heads: dict[tuple[Address, Address], tuple[Hex32, int]] = {}
    for batch in batches:
        log = (batch.custodian, batch.writer)
        head, size = heads.get(log, (ZERO32, 0))
        head = fold(head, batch.kind, [one.access for one in batch.outcomes], [one.reason for one in batch.outcomes])
        heads[log] = (head, size + len(batch.outcomes))
        demo.findings.check("P7", heads[log] == (batch.head, batch.size), f"batch at size {batch.size} does not fold")
    for (custodian, writer), expected in heads.items():
        state = demo.witness.log(custodian, writer)
        demo.findings.check("P7", (state.head, state.size) == expected, "the stored head is another one")
    entries = Counter(one.access.entry_hash for batch in batches for one in batch.outcomes)
    demo.findings.check("P3", max(entries.values()) == 1, "an entry stands twice on the log", count=len(entries))
    unfinished = demo.custodian.journal.unfinished(demo.custodian.log.address)
    demo.findings.check("P8", not unfinished, f"{len(unfinished)} requests have not ended")
    demo.tell(f"{len(batches)} batches, {len(entries)} entries: every head and size is the fold of the events")
    demo.findings.facts["entries"] = len(entries)


def _privacy(demo: Demo, people: Sequence[Person], lenders: tuple[Lender, Lender]) -> None:
    demo.chapter("11. What the chain gives away")
    words = [person.ref for person in people] + [
        word for lender in lenders for word in (lender.institution_id, lender.name)
    ]
    words += ["loan-origination", "account-review", "tenancy-check", "model-audit", "credit_amount", "savings"]
    latest = demo.witness.latest().number
    blocks = (demo.custodian.rpc("eth_getBlockByNumber", hex(number), True) for number in range(latest + 1))
    transactions = [transaction for block in blocks for transaction in block["transactions"]]
    for transaction in transactions:
        data = bytes.fromhex(transaction["input"][2:])
        found = [word for word in words if word.encode() in data]
        demo.findings.check("P9", not found, f"{found} in the calldata of {transaction['hash']}")
    demo.tell(f"{len(transactions)} transactions searched for {len(words)} names, purposes and attributes: none found")


def _verdict(demo: Demo) -> None:
    demo.chapter("What was proven")
    findings = demo.findings
    demo.table(
        [
            (
                prop,
                text,
                findings.checks[prop],
                "holds" if not any(b.startswith(prop) for b in findings.broken) else "BROKEN",
            )
            for prop, text in PROPERTIES.items()
        ],
        "",
        "property",
        "checks",
        "",
    )
    for claim in findings.broken:
        demo.console.print(Text.assemble(("does not hold", "bold red"), f" {claim}"))
    total = sum(findings.checks.values())
    demo.console.print(
        f"\n{total} checks, {len(findings.broken)} broken, {findings.facts['seconds']} s", highlight=False
    )
    demo.console.print(json.dumps(findings.facts), highlight=False, style="dim")
