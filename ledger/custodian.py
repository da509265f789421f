"""The composition root: everything a custodian runs, wired from one `Config`.

A `Custodian` holds one writer key for as long as it lives (`locks.py`), so several processes can share a data
directory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eth_account.signers.local import LocalAccount

from ledger import deploy
from ledger.access_records import AccessRecords
from ledger.accounts import Accounts
from ledger.activity import Activities
from ledger.artifact import contract_address
from ledger.attempts import Attempts
from ledger.authentication import Authentication
from ledger.chain import Chain, JsonRpcChain
from ledger.challenges import Challenges
from ledger.commit import MAX_BATCH, LogWriter
from ledger.concerns import Concerns
from ledger.config import Config
from ledger.consent import Address, Domain
from ledger.consent_requests import ConsentRequests
from ledger.disclosing import Disclosing
from ledger.disputes import Disputes
from ledger.duties import Duties
from ledger.enrolment import Enrolment
from ledger.erase import Eraser
from ledger.erasures import ERASURES, ErasureFile
from ledger.errors import AlreadyExistsError, ContractMissingError
from ledger.furnish import Furnish
from ledger.grants import Grants, Lanes
from ledger.invitations import Invitations
from ledger.journal import Journal
from ledger.json_forms import DAY_SECONDS
from ledger.jsonrpc import JsonRpc
from ledger.keys import KeyFile
from ledger.locks import FileLock
from ledger.notices import Notices
from ledger.order_book import OrderBook
from ledger.orders import Orders
from ledger.outbound import Outbound
from ledger.outbox import Outbox
from ledger.own_requests import OwnRequests
from ledger.prompts import Prompts
from ledger.proof import Proofs
from ledger.public_record import PublicRecords
from ledger.registry import Registry
from ledger.relay import Relay
from ledger.release import KEPT_SECONDS, Releases
from ledger.sessions import Sessions
from ledger.standing import Standings
from ledger.store import Store
from ledger.subject_data import SubjectData
from ledger.subject_export import SubjectExport
from ledger.sync import Sync, SyncReport
from ledger.vault import Vault
from ledger.webhooks import Webhooks
from ledger.writers import WriterLog, Writers

INIT_SECONDS: Final = 30.0
SQLITE_ENDS: Final = ("-wal", "-shm")
SYNC_SECONDS: Final = 60.0
PRESENCE_SECONDS: Final = 30.0
FORGET_SECONDS: Final = 600
EVENTS_KEPT_SECONDS: Final = 90 * DAY_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Outcome of a key rotation. `kept` are retired KEKs that another running process may still be using."""

    active: str
    destroyed: tuple[str, ...]
    kept: tuple[str, ...]


def unix_now() -> int:
    """The clock, in whole seconds."""
    return int(time.time())


class Custodian:
    """Vault, journal, chain and the flows between them."""

    def __init__(
        self,
        config: Config,
        *,
        chain: Chain | None = None,
        clock: Callable[[], int] = unix_now,
        max_batch: int = MAX_BATCH,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config, self.clock, self._step = config, clock, step
        self.keys = KeyFile(config.key_file, clock=clock)
        self.accounts = Accounts.load(config.account_file)
        self.address = Address(self.accounts.custodian.address)
        self.store = Store.open(config.database, _identity(config, self.keys, self.accounts))
        self.rpc = JsonRpc(config.rpc_url)
        self.chain: Chain = chain or JsonRpcChain(
            self.rpc, _domain(config), priority_fee=config.priority_fee, max_fee=config.max_fee
        )
        self._presence = FileLock(config.locks / "presence", shared=True)
        self._be_present()

        self.journal = Journal(self.store)
        self.order_book = OrderBook(self.store, self.keys)
        self.vault = Vault(self.store, self.keys)
        self.outbox = Outbox(self.store)
        self.notices = Notices(self.store)
        self.prompts = Prompts(self.store, clock=clock)
        self.registry = Registry(self.store, self.keys, self.outbox)
        self.access_records = AccessRecords(self.store, self.journal, self.registry, self.vault)
        lanes = (self.accounts.custodian, self.accounts.grants, self.accounts.revocations)
        self.relay = Relay(
            self.journal, self.chain, lanes, locks=config.locks, timeout=config.finality.timeout, step=step
        )
        signing_key = self.accounts.signing_key
        self.grants = Grants(
            self.store,
            self.journal,
            self.registry,
            self.relay,
            self.chain,
            self.notices,
            lanes=Lanes(
                grants=Address(self.accounts.grants.address),
                revocations=Address(self.accounts.revocations.address),
                custodian=self.address,
            ),
            signing_key=signing_key,
            clock=clock,
            step=step,
        )
        self.requests = ConsentRequests(
            self.store,
            self.registry,
            self.grants,
            self.notices,
            self.prompts,
            self.keys,
            service_url=config.service_url,
            clock=clock,
        )
        self.own_requests = OwnRequests(self.store, self.requests, self.prompts, clock=clock)
        self.disputes = Disputes(self.store, self.vault, self.keys, clock=clock)
        self.subject_data = SubjectData(self.vault, self.registry, self.disputes)
        self.duties = Duties(self.store, self.registry, self.journal, self.keys, clock=clock)
        self.concerns = Concerns(self.duties, self.registry, clock=clock)
        self.attempts = Attempts(self.store, self.keys, clock=clock)
        self.challenges = Challenges(self.store, self.keys, clock=clock)
        self.sessions = Sessions(self.store, self.keys, clock=clock)
        self.invitations = Invitations(self.store, self.keys, clock=clock)
        self.furnish = Furnish(
            self.store,
            self.vault,
            self.registry,
            self.journal,
            self.outbox,
            self.invitations,
            self.keys,
            clock=clock,
        )
        self.enrolment = Enrolment(self.store, self.keys, self.invitations, self.sessions, clock=clock)
        self.eraser = Eraser(
            self.store,
            self.vault,
            self.registry,
            self.journal,
            self.grants,
            self.keys,
            self.order_book,
            self.enrolment,
            self.challenges,
            ErasureFile(config.key_file.with_name(ERASURES)),
            custodian=self.address,
            signing_key=signing_key,
            clock=clock,
            step=step,
        )
        self.authentication = Authentication(
            self.store,
            self.registry,
            service_url=config.service_url,
            clock=clock,
            rate_limit=config.rate_limit,
            max_batch=max_batch,
        )
        self.webhooks = Webhooks(
            self.registry,
            self.outbox,
            Outbound(insecure=config.insecure_webhooks),
            custodian=self.address,
            signing_key=signing_key,
            clock=clock,
            step=step,
        )
        self._forgot_at = 0
        self.writers = Writers(
            self.accounts.writers,
            self.store,
            self.journal,
            self.chain,
            self.relay,
            custodian=self.address,
            locks=config.locks,
            clock=clock,
        )
        self._writer_lock, account = self.writers.take()
        self.log = self._log_writer(account, another=self._another_writer)
        self.standings = Standings(
            self.store, self.journal, self.registry, self.chain, custodian=self.address, clock=clock
        )
        self.activity = Activities(
            self.store,
            self.journal,
            self.registry,
            self.keys,
            self.order_book,
            self.chain.domain,
            custodian=self.address,
            clock=clock,
        )
        self.public_records = PublicRecords(
            self.store,
            self.journal,
            self.order_book,
            self.registry,
            self.chain,
            custodian=self.address,
            clock=clock,
        )
        self.orders = Orders(
            self.store,
            self.journal,
            self.order_book,
            self.registry,
            self.vault,
            self.chain,
            self.log,
            custodian=self.address,
            signing_key=signing_key,
            clock=clock,
            lock=config.locks / "orders",
            recover=self._recover_writer,
            kept_seconds=KEPT_SECONDS,
            step=step,
        )
        self.subject_export = SubjectExport(
            self.registry,
            self.grants,
            self.standings,
            self.own_requests,
            self.activity,
            self.orders,
            self.subject_data,
            self.disputes,
            self.duties,
            self.concerns,
            self.notices,
            self.public_records,
            self.enrolment,
            self.sessions,
            self.invitations,
            service_url=config.service_url,
            clock=clock,
        )
        self.releases = Releases(
            self.store,
            self.journal,
            self.registry,
            self.vault,
            self.access_records,
            self.keys,
            self.chain,
            self.log,
            self.authentication,
            custodian=self.address,
            signing_key=signing_key,
            clock=clock,
            recover=self._recover_writer,
            # Made of receipts and proofs, which there are once there are releases.
            disclose=lambda record_ids, at: self.disclosing.of_records(record_ids, at=at).disclosure.as_json(),
            max_batch=max_batch,
            step=step,
        )
        self.proofs = Proofs(
            self.journal,
            self.releases,
            self.chain,
            custodian=self.address,
            signing_key=signing_key,
            finality=config.finality.tag,
        )
        self.disclosing = Disclosing(
            self.store,
            self.journal,
            self.registry,
            self.access_records,
            self.order_book,
            self.proofs,
            self.keys,
            self.chain.domain,
            custodian=self.address,
            signing_key=signing_key,
        )

    @classmethod
    def init(cls, config: Config) -> None:
        """Make keys, accounts and database, all or nothing. Raises `AlreadyExistsError`: nothing is overwritten.

        `StoreUnavailableError` or `OSError` if they cannot be written.
        """
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = (config.key_file, config.account_file, config.database)
        # Two at once would take each other's files for what they left behind.
        with FileLock(config.locks / "init").hold(timeout=INIT_SECONDS):
            for path in made:
                if path.exists():
                    raise AlreadyExistsError(f"{path} exists already and is not overwritten")
            try:
                keys = KeyFile.create(config.key_file)
                accounts = Accounts.create(config.account_file)
                Store.create(config.database, _identity(config, keys, accounts)).close()
            except BaseException:
                # A full disk, Ctrl-C, whatever it was: nothing was there before, and half of it would be of no use.
                for path in (*made, *(config.database.with_name(config.database.name + end) for end in SQLITE_ENDS)):
                    path.unlink(missing_ok=True)
                raise

    def close(self) -> None:
        """Let the writer and the database go, once the webhooks that are under way have ended."""
        self.webhooks.close()
        self._writer_lock.release()
        self._presence.release()
        self.keys.sync_unwraps(end=True)
        self.store.close()

    def __enter__(self) -> Custodian:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------------------------------------- chain

    def deploy(self) -> bool:
        """Deploy the contract unless it is there, and let the writers append. Returns whether it was deployed."""
        with suppress(ContractMissingError):
            self.chain.check()
        deployed = deploy.deploy(self.config.rpc_url, self.accounts.custodian, max_fee=self.config.max_fee)
        self.allow_writers()
        return deployed

    def allow_writers(self) -> None:
        """Make sure that every writer key may append to this custodian's log, but those taken out of use."""
        self.writers.allow()

    def sync(self, **options: int) -> SyncReport:
        """Make chain and journal agree again, see `sync.py`. One at a time."""
        with FileLock(self.config.locks / "sync").hold(timeout=SYNC_SECONDS):
            writers, locks = {str(self.log.address): self.log}, list[FileLock]()

            def take(address: str) -> None:
                """That writer too, if no other process has it."""
                for account in self.accounts.writers:
                    if account.address == address and (lock := self.writers.lock_of(account)).acquire():
                        locks.append(lock)
                        writers[address] = self._log_writer(account)

            try:
                # Only those that left something behind: a process that starts meanwhile finds the others free.
                for address in self.journal.writers_with_work() - writers.keys():
                    take(address)
                return Sync(
                    self.store,
                    self.journal,
                    self.registry,
                    self.relay,
                    self.grants,
                    self.releases,
                    self.orders,
                    self.chain,
                    self.log,
                    writers,
                    self.writers,
                    self.eraser,
                    take=take,
                    clock=self.clock,
                ).run(**options)
            finally:
                for lock in locks:
                    lock.release()

    def housekeeping(self) -> None:
        """What no request waits for: events told; old events, nonces and answers forgotten.

        About once a second; any process may. Raises `StoreUnavailableError`: what was not done is done the next time.
        """
        now = self.clock()
        self.registry.tell_expired(now)
        self.webhooks.deliver()
        self.keys.sync_unwraps()
        if now - self._forgot_at >= FORGET_SECONDS:
            self.outbox.forget(now - EVENTS_KEPT_SECONDS)
            self.authentication.forget_nonces()
            self.journal.forget_answers(now - KEPT_SECONDS)
            self.orders.forget_answers()
            with self.store.begin() as tx:
                for each in (self.attempts, self.challenges, self.sessions, self.invitations):
                    each.forget(tx)
            self._forgot_at = now

    # ------------------------------------------------------------------------------------------------------------ keys

    def _be_present(self) -> None:
        """From now on no KEK is destroyed. Raises `StoreUnavailableError`, `KeyFileError`.

        A rotation may have ended since the keys were read: what would be written under a destroyed KEK is lost.
        """
        self._presence.wait(timeout=PRESENCE_SECONDS)
        self.keys.look_again()

    def rotate_keys(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Rotation:
        """Re-wrap everything under a new KEK, then destroy the old one if no other process is at work here."""
        active = self.eraser.rotate(progress)
        self._presence.release()
        alone = FileLock(self.config.locks / "presence")
        try:
            destroyed = self.eraser.destroy_retired() if alone.acquire() else []
        finally:
            alone.release()
            self._be_present()
        kept = tuple(kek_id for kek_id in self.keys.kek_ids if kek_id != active)
        return Rotation(active=active, destroyed=tuple(destroyed), kept=kept)

    # --------------------------------------------------------------------------------------------------------- writers

    def add_writer(self) -> WriterLog:
        """Make one more writer key and let it append. Other processes know it from their next start on.

        Raises `KeyFileError`; `ChainError`, after which there is a key that `deploy` lets in.
        """
        self.chain.check()  # rather no key than one that nothing lets in
        account = Accounts.add_writer(self.config.account_file)
        self.accounts = Accounts.load(self.config.account_file)
        return self.writers.add(account)

    def require_writer(self) -> None:
        """Raise unless this process can append to a log. Raises `LogAheadError`, `NotWriterError`, `ChainError`."""
        self.writers.require_usable(self.log.address)

    def _another_writer(self) -> LocalAccount | None:
        taken = self.writers.another(self.log.address)
        if taken is None:
            return None
        self._writer_lock.release()
        self._writer_lock, account = taken
        return account

    def _recover_writer(self, address: str, made_at_ms: int) -> bool:
        """Take up what a dead process left in flight on its writer.

        Returns False if the process that made a release at that time with this writer may be alive.
        """
        for account in self.accounts.writers:
            if account.address == address:
                lock = self.writers.lock_of(account)
                if not lock.acquire():
                    # Its successor has the writer and knows nothing of the release, but finds out about its batch.
                    return lock.held_since_ms() > made_at_ms
                try:
                    self._log_writer(account).resolve()
                finally:
                    lock.release()
        return True

    def _log_writer(
        self, account: LocalAccount, *, another: Callable[[], LocalAccount | None] = lambda: None
    ) -> LogWriter:
        return LogWriter(
            self.store,
            self.journal,
            self.chain,
            writer=account,
            custodian=self.address,
            finality=self.config.finality,
            clock=self.clock,
            another=another,
            step=self._step,
        )


def _domain(config: Config) -> Domain:
    return Domain(chain_id=config.chain_id, contract=contract_address())


def _identity(config: Config, keys: KeyFile, accounts: Accounts) -> dict[str, str]:
    """What a database belongs to: opened with anything else, it would be read or written wrongly."""
    return {
        "chain_id": str(config.chain_id),
        "contract": contract_address(),
        "custodian": accounts.custodian.address,
        "key_file": keys.index("check", "consent-ledger"),
    }
