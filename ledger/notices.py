"""Notices on file: every text that was ever signed for stays readable, whatever the code says by then.

The first time that anything is asked or granted under a text of this code, all of its texts go into the table, so that
the table does not tell which it was. Texts are about purposes, not about people: an erasure leaves them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from ledger.consent import Hex32
from ledger.errors import MalformedError, NotFoundError
from ledger.notice_texts import CURRENT, KNOWN, Notice, hash_of, plain_notice, read_notice
from ledger.purposes import purpose
from ledger.store import Store, notices

MAX_TEXT_LENGTH: Final = 20_000


class Notices:
    """Keeps texts by their hash."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def current(self, purpose_code: str) -> Notice:
        """The notice that is shown for a purpose from now on. Raises `UnknownPurposeError`."""
        return CURRENT[purpose(purpose_code).code]

    def keep(self, tx: Connection, notice_hash: Hex32) -> None:
        """Put this code's texts on file within the caller's transaction, if one of them is meant and it is not there.

        A hash of another text says nothing here: whoever showed that text keeps it (`keep_text`).
        """
        if notice_hash in KNOWN and _find(tx, notice_hash) is None:
            for text in KNOWN.values():
                _put(tx, text)

    def keep_text(self, text: str) -> Hex32:
        """Put a text of one's own on file. Returns its hash. Raises `MalformedError` if it is empty or too long."""
        if not 1 <= len(text) <= MAX_TEXT_LENGTH:
            raise MalformedError(f"notice: expected text of 1 to {MAX_TEXT_LENGTH} characters", field="notice")
        with self._store.begin() as tx:
            return _put(tx, text)

    def text(self, notice_hash: Hex32) -> str:
        """The very text of which this is the hash. Raises `NotFoundError`."""
        with self._store.read() as tx:
            kept = _find(tx, notice_hash)
        found = KNOWN.get(notice_hash) if kept is None else kept
        if found is None:
            raise NotFoundError("notice: no text of that hash is on file", field="notice")
        return found

    def notice(self, notice_hash: Hex32) -> Notice:
        """As `text`, read. One that somebody wrote in a form of their own is shown as it is."""
        text = self.text(notice_hash)
        try:
            return read_notice(text)
        except MalformedError:
            return plain_notice(text)


def _find(tx: Connection, notice_hash: Hex32) -> str | None:
    return tx.scalar(select(notices.c.text).where(notices.c.notice_hash == notice_hash))


def _put(tx: Connection, text: str) -> Hex32:
    notice_hash = hash_of(text)
    if _find(tx, notice_hash) is None:
        tx.execute(notices.insert(), [{"notice_hash": notice_hash, "text": text}])
    return notice_hash
