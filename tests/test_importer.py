"""Import: what is good comes in, what is bad is reported, and being killed half way changes neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import func, select

from ledger.envelope import TRIAL
from ledger.errors import LedgerError, MapError, RowsRejectedError, UnreadableFileError
from ledger.importer import Importer, ImportResult
from ledger.importmap import BadCell, parse_map
from ledger.keys import KeyFile
from ledger.store import Store, import_refs, imports
from ledger.vault import Value, Vault

ROOT: Final = Path(__file__).parent.parent
TAIWAN: Final = ROOT.parent / "shared" / "data" / "taiwan_default_30000.csv"
IDENTITY: Final = {"key_file": "test"}
MAP: Final = """
[map]
format = 1
name = "test"
version = "1"
source = "urn:test"
as_of = 2026-01-01
encoding = "utf-8"
delimiter = ","
nulls = [""]
[subject]
column = "id"
[columns."age"]
attribute = "age"
[columns."phone"]
attribute = "telephone"
[columns."phone".values]
"ja" = "true"
"keins" = "false"
"""


@dataclass
class Place:
    """A vault, and what its imports reported."""

    data: Path
    store: Store
    vault: Vault
    reported: list[BadCell] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)

    @classmethod
    def at(cls, data: Path) -> Place:
        data.mkdir()
        keys = KeyFile.create(data / "kek.json")
        store = Store.create(data / "ledger.db", IDENTITY)
        return cls(data, store, Vault(store, keys))

    @classmethod
    def again(cls, data: Path) -> Place:
        store = Store.open(data / "ledger.db", IDENTITY)
        return cls(data, store, Vault(store, KeyFile(data / "kek.json")))

    def run(self, path: Path, map_text: str = MAP, **options: Any) -> ImportResult:
        self.reported.clear()
        self.progress.clear()
        importer = Importer(self.store, self.vault, clock=lambda: TODAY)
        callbacks = {"report": self.reported.append, "progress": self.progress.append}
        return importer.run(path, parse_map(map_text), map_text, **callbacks | options)

    def text(self, content: str | bytes, map_text: str = MAP, **options: Any) -> ImportResult:
        path = self.data / "import.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.run(path, map_text, **options)

    def value(self, ref: str, attribute: str = "age") -> Value:
        (record,) = self.vault.find(self.vault.subject_of(ref), [attribute])
        return self.vault.open(record, TRIAL).value

    def everything(self) -> list[tuple[str, str, int]]:
        """Every newest value, in a form in which two vaults with other keys and ids can be compared."""
        with self.store.read() as tx:
            places = tx.exec_driver_sql("SELECT DISTINCT subject_id, attribute FROM records").all()
        found = [self.vault.find(subject_id, [attribute])[0] for subject_id, attribute in places]
        return sorted((record.attribute, repr(self.vault.open(record, TRIAL)), record.version) for record in found)

    def lines(self) -> list[tuple[int, str | None]]:
        return [(cell.line, cell.column) for cell in self.reported]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place.at(tmp_path / "data")
    yield made
    made.store.close()


TODAY: Final = 1_769_904_000
"""2026-02-01."""
GOOD: Final = "id,age,phone\nanna,67,ja\nboris,22,keins\n"


# ----------------------------------------------------------------------------------------------------------- good files


def test_a_good_file_is_imported_whole(place: Place) -> None:
    result = place.text(GOOD)
    assert result == ImportResult(rows=2, imported=2, bad=0, resumed_at=0, versions=4, older=0, already_done=False)
    assert (place.value("anna"), place.value("anna", "telephone")) == (67, True)
    assert (place.value("boris"), place.value("boris", "telephone")) == (22, False)
    assert place.reported == []


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\ufeff" + GOOD,
        GOOD.rstrip("\n"),
        GOOD + "\n\n",
        GOOD.replace("boris", "\nboris"),
        'id,age,phone\n"anna","67","ja"\n"boris",22,keins\n',
        "phone,id,age\nja,anna,67\nkeins,boris,22\n",
    ],
    ids=["CRLF", "CR", "BOM", "no last newline", "blank lines after", "blank line within", "quotes", "other order"],
)
def test_the_same_file_in_another_form_says_the_same(place: Place, content: str) -> None:
    assert place.text(content).versions == 4
    assert (place.value("anna"), place.value("boris", "telephone")) == (67, False)
    assert place.reported == []


def test_an_empty_cell_that_the_map_calls_none_is_no_value(place: Place) -> None:
    result = place.text("id,age,phone\nanna,,ja\n")
    assert (result.imported, result.versions) == (1, 1)


def test_progress_is_reported_after_every_batch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.importer.BATCH_ROWS", 10)
    place.text("id,age,phone\n" + "".join(f"p{n},{n},ja\n" for n in range(25)))
    assert place.progress == [10, 20, 25]


# ------------------------------------------------------------------------------------------------------------ bad rows


def test_bad_rows_are_reported_with_line_column_and_reason_and_the_good_ones_come_in(place: Place) -> None:
    rows = ["anna,67,ja", "boris,canary,ja", "carla,canary,canary", "dirk,1", "emil,1,ja,1", ",1,ja", "fritz,22,keins"]
    result = place.text("\n".join(["id,age,phone", *rows]))
    assert (result.rows, result.imported, result.bad) == (7, 2, 5)
    assert place.lines() == [(3, "age"), (4, "age"), (4, "phone"), (5, None), (6, None), (7, "id")]
    assert all(cell.reason.startswith("expected ") for cell in place.reported)
    assert "canary" not in str(place.reported)
    assert (place.value("anna"), place.value("fritz")) == (67, 22)
    assert place.vault.count() == {"subjects": 2, "erased": 0, "records": 4}


def test_strict_imports_all_or_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.importer.BATCH_ROWS", 2)
    content = "id,age,phone\n" + "".join(f"p{n},{n},ja\n" for n in range(9)) + "bad,x,ja\n"
    with pytest.raises(RowsRejectedError, match="1 of 10"):
        place.text(content, strict=True)
    assert place.lines() == [(11, "age")]
    assert place.vault.count() == {"subjects": 0, "erased": 0, "records": 0}
    # Nothing was imported, so nothing counts as done.
    assert place.text(content).imported == 9
    assert place.text(GOOD, strict=True).imported == 2


def test_a_cell_in_another_encoding_spoils_its_row_and_no_other(place: Place) -> None:
    result = place.text(b"id,age,phone\nanna,67,ja\nb\xf6ris,22,ja\ncarla,1,ja\n")
    assert (result.imported, result.bad) == (2, 1)
    assert [(cell.line, cell.column, cell.reason) for cell in place.reported] == [
        (3, "id", "not text in the file's encoding")
    ]


def test_bytes_that_are_no_text_in_a_single_byte_encoding_spoil_their_row_only(place: Place) -> None:
    content = b"id,age,phone\nb\xf6ris,22,ja\nc\x81rla,1,ja\n"
    result = place.text(content, MAP.replace("utf-8", "windows-1252"))
    assert (result.imported, place.lines()) == (1, [(3, "id")])
    assert place.value("böris") == 22


def test_nul_bytes_spoil_their_row_only(place: Place) -> None:
    result = place.text("id,age,phone\nan\0na,67,ja\nboris,2\0,ja\ncarla,1,ja\n")
    assert (result.imported, result.bad) == (1, 2)
    assert place.lines() == [(2, "id"), (3, "age")]


def test_a_quote_that_is_not_closed_is_reported_with_all_that_it_swallowed(place: Place) -> None:
    result = place.text('id,age,phone\nanna,67,ja\n"boris,22,ja\ncarla,1,ja\n')
    assert (result.rows, result.imported, result.bad) == (2, 1, 1)
    assert place.lines() == [(3, None)]
    assert "up to line 4" in place.reported[0].reason


def test_a_quote_in_the_wrong_place_spoils_its_row_only(place: Place) -> None:
    result = place.text('id,age,phone\nanna,67,ja\n"bo"ris,22,ja\ncarla,1,ja\n')
    assert (result.imported, place.lines()) == (2, [(3, None)])


def test_a_huge_field_spoils_its_row_only(place: Place) -> None:
    result = place.text(f"id,age,phone\nanna,67,ja\n{'x' * 1_000_000},22,ja\n{'y' * 1000},1,ja\ncarla,1,ja\n")
    assert (result.imported, place.lines()) == (2, [(3, None), (4, "id")])
    assert all(len(cell.reason) < 200 for cell in place.reported)


def test_a_row_over_several_lines_is_one_row(place: Place) -> None:
    result = place.text('id,age,phone\n"an\nna",67,ja\nboris,22,ja\n')
    assert (result.rows, result.imported, place.lines()) == (2, 1, [(3, "id")])


def test_a_subject_twice_in_a_file_is_a_bad_row_wherever_it_comes_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.importer.BATCH_ROWS", 3)
    rows = ["anna,1,ja", "anna,2,ja", "boris,3,ja", "carla,4,ja", "anna,5,ja"]
    result = place.text("id,age,phone\n" + "\n".join(rows))
    assert (result.imported, result.bad) == (3, 2)
    assert [(cell.line, cell.reason) for cell in place.reported] == [
        (3, "the same subject as in line 2"),
        (6, "the same subject as in line 2"),
    ]
    assert place.value("anna") == 1


def test_an_erased_person_is_not_taken_in_again(place: Place) -> None:
    place.text(GOOD)
    with place.store.begin() as tx:
        place.vault.erase(tx, place.vault.subject_of("anna"), at=9)
    result = place.text(GOOD.replace("67", "68").replace("22", "23"))
    assert (result.imported, result.bad) == (1, 1)
    assert place.lines() == [(2, None)]
    assert "erased" in place.reported[0].reason
    assert place.vault.count() == {"subjects": 2, "erased": 1, "records": 3}
    assert place.value("boris") == 23


# ---------------------------------------------------------------------------------------------------- unreadable files


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", UnreadableFileError),
        ("\n", UnreadableFileError),
        ("\r\n\r\n", UnreadableFileError),
        ('"id,age', UnreadableFileError),
        ("x" * 1_000_000, UnreadableFileError),
        ("anna,67,ja\nboris,22,ja\n", MapError),
        ("id,age\nanna,67\n", MapError),
        ("id,age,phone,more\nanna,67,ja,1\n", MapError),
        ("id,age,phone,age\nanna,67,ja,1\n", MapError),
        ("id;age;phone\nanna;67;ja\n", MapError),
        (GOOD.encode("utf-16"), MapError),
        (bytes(range(256)), UnreadableFileError),
    ],
)
def test_a_file_that_is_not_what_the_map_describes_is_refused_whole(
    place: Place, content: str | bytes, error: type[LedgerError]
) -> None:
    with pytest.raises(LedgerError) as caught:
        place.text(content)
    assert isinstance(caught.value, error | MapError)
    assert place.vault.count()["subjects"] == 0


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_said_to_be_unreadable(place: Place, name: str) -> None:
    with pytest.raises(UnreadableFileError) as caught:
        place.run(place.data / name)
    assert caught.value.field == "file"


def test_a_pipe_is_refused_at_once_because_it_could_be_read_only_once(place: Place) -> None:
    pipe = place.data / "pipe.csv"
    os.mkfifo(pipe)
    # Open at both ends and full of rows: whoever reads it waits for nobody.
    both = os.open(pipe, os.O_RDWR)
    os.write(both, GOOD.encode())
    try:
        for path in (Path("/dev/null"), pipe, Path(f"/dev/fd/{both}")):
            with pytest.raises(UnreadableFileError, match="expected a regular file") as caught:
                place.run(path)
            assert caught.value.field == "file"
        assert os.read(both, 999) == GOOD.encode()
    finally:
        os.close(both)
    assert place.vault.count()["subjects"] == 0


def test_a_header_alone_is_a_file_without_rows(place: Place) -> None:
    assert place.text("id,age,phone\n") == ImportResult(
        rows=0, imported=0, bad=0, resumed_at=0, versions=0, older=0, already_done=False
    )


# ------------------------------------------------------------------------------------------------------ again and again


def test_the_same_file_twice_is_imported_once(place: Place) -> None:
    first = place.text(GOOD)
    again = place.text(GOOD)
    assert again == ImportResult(rows=2, imported=2, bad=0, resumed_at=2, versions=0, older=0, already_done=True)
    assert first.versions == place.vault.count()["records"] == 4


def test_a_later_file_adds_versions_for_what_changed_and_nothing_else(place: Place) -> None:
    place.text(GOOD)
    result = place.text(GOOD.replace("67", "68") + "carla,30,ja\n")
    assert (result.imported, result.versions) == (3, 3)
    (record,) = place.vault.find(place.vault.subject_of("anna"), ["age"])
    assert (record.version, place.value("anna"), place.value("boris")) == (2, 68, 22)


def test_the_same_file_by_another_map_is_another_import(place: Place) -> None:
    place.text(GOOD)
    result = place.text(GOOD, MAP.replace("2026-01-01", "2026-02-01"))
    assert (result.already_done, result.versions) == (False, 4)


def test_a_file_of_an_earlier_day_replaces_no_value_of_a_later_one_and_brings_what_is_new(place: Place) -> None:
    place.text(GOOD, MAP.replace("2026-01-01", "2026-01-20"))
    result = place.text("id,age,phone\nanna,66,ja\ncarla,30,ja\n", MAP.replace("2026-01-01", "2026-01-10"))
    assert (result.imported, result.versions, result.older) == (2, 2, 2)
    assert (place.value("anna"), place.value("carla")) == (67, 30)
    # Of the day of the file that is held, and of a later one, it is replaced.
    for day, age in (("2026-01-20", 68), ("2026-01-21", 69)):
        result = place.text(f"id,age,phone\nanna,{age},ja\n", MAP.replace("2026-01-01", day))
        assert (result.older, place.value("anna")) == (0, age)


@pytest.mark.parametrize("day", ["2026-02-02", "2999-01-01", "1899-12-31"])
def test_values_of_a_day_to_come_are_not_taken_in_which_nobody_could_correct(place: Place, day: str) -> None:
    with pytest.raises(MapError) as refused:
        place.text(GOOD, MAP.replace("2026-01-01", day))
    assert refused.value.field == "map.as_of"
    assert place.everything() == []
    assert place.text(GOOD, MAP.replace("2026-01-01", "2026-02-01")).imported == 2


def test_what_is_kept_of_who_was_in_a_file_is_gone_when_the_import_is(place: Place) -> None:
    place.text(GOOD)
    with place.store.read() as tx:
        assert tx.scalar(select(func.count()).select_from(import_refs)) == 0
        assert tx.scalar(select(imports.c.finished_at)) == TODAY


# ---------------------------------------------------------------------------------------------------- killed half way


CHILD: Final = """
import os, signal, sys
from pathlib import Path
import ledger.importer
from ledger.importer import Importer
from ledger.importmap import parse_map
from ledger.keys import KeyFile
from ledger.store import Store
from ledger.vault import Vault

data, path, map_path = map(Path, sys.argv[1:4])
batches, strict = int(sys.argv[4]), sys.argv[5] == "strict"
ledger.importer.BATCH_ROWS = 10
store = Store.open(data / "ledger.db", {"key_file": "test"})
vault = Vault(store, KeyFile(data / "kek.json"))
done = 0

def step(_):
    global done
    done += 1
    if done == batches:
        os.kill(os.getpid(), signal.SIGKILL)

text = map_path.read_text()
Importer(store, vault, clock=lambda: 1_769_904_000).run(path, parse_map(text), text, strict=strict, step=step)
"""


def killed(place: Place, path: Path, *, batches: int, strict: bool = False) -> None:
    map_path = path.with_suffix(".toml")
    map_path.write_text(MAP)
    arguments = [str(place.data), str(path), str(map_path), str(batches), "strict" if strict else "lenient"]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False, timeout=60)
    assert done.returncode == -9


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file of 45 rows, with bad and repeated ones in several batches of ten."""
    path = tmp_path / "mixed.csv"
    bad = {7: "p7,x,ja", 23: "p1,23,ja", 24: '"p24,24', 25: 'x",25,ja', 38: "p38,38", 44: "p2,44,ja"}
    path.write_text("id,age,phone\n" + "".join(bad.get(n, f"p{n},{n},ja") + "\n" for n in range(45)))
    return path


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_an_import_killed_half_way_goes_on_to_the_same_end(
    place: Place, tmp_path: Path, mixed: Path, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.importer.BATCH_ROWS", 10)
    whole = Place.at(tmp_path / "whole")
    expected = whole.run(mixed)
    killed(place, mixed, batches=batches)
    result = place.run(mixed)
    assert result.resumed_at == 10 * batches
    assert (result.rows, result.imported, result.bad) == (expected.rows, expected.imported, expected.bad) == (44, 39, 5)
    assert place.everything() == whole.everything()
    assert place.vault.count() == whole.vault.count()
    # What is reported after going on is what the whole run reported from there on.
    assert place.reported == whole.reported[len(whole.reported) - len(place.reported) :]
    assert place.run(mixed).already_done
    whole.store.close()


def test_a_strict_import_killed_half_way_leaves_nothing(place: Place, mixed: Path) -> None:
    killed(place, mixed, batches=3, strict=True)
    assert place.vault.count() == {"subjects": 0, "erased": 0, "records": 0}
    assert place.run(mixed).resumed_at == 0


# ---------------------------------------------------------------------------------------------------------- real files


def test_the_german_file_comes_in_whole(place: Place) -> None:
    map_text = (ROOT / "ledger/maps/german.toml").read_text("utf-8")
    result = place.run(ROOT / "ledger/data/german_statlog_1000.csv", map_text, strict=True)
    columns = len(parse_map(map_text).columns)
    assert (result.rows, result.imported, result.bad, result.versions) == (1000, 1000, 0, 1000 * columns)
    assert place.vault.count() == {"subjects": 1000, "erased": 0, "records": 1000 * columns}
    # The first row of the file.
    assert (place.value("german-0001"), place.value("german-0001", "credit_amount")) == (67, 1169)


@pytest.mark.slow
def test_the_taiwan_file_comes_in_whole(place: Place) -> None:
    if not TAIWAN.exists():
        pytest.skip(f"{TAIWAN} is not there")
    map_text = (ROOT / "ledger/maps/taiwan.toml").read_text("utf-8")
    result = place.run(TAIWAN, map_text)
    assert (result.rows, result.imported, result.bad) == (30_000, 30_000, 0)
    assert place.vault.count()["subjects"] == 30_000
    assert place.progress[-1] == 30_000


MEMORY: Final = """
import json, sys
from pathlib import Path
from ledger.importer import Importer
from ledger.importmap import parse_map
from ledger.keys import KeyFile
from ledger.store import Store
from ledger.vault import Vault

data, rows, text = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
path = data / "big.csv"
with path.open("w") as file:
    file.write("id,age,phone\\n")
    file.writelines(f"person-{n},{n % 100},\\n" for n in range(rows))
store = Store.create(data / "ledger.db", {"key_file": "test"})
vault = Vault(store, KeyFile.create(data / "kek.json"))
held = []
def look(done=0):
    # Pages now, and not the most that there ever were: that was before, when modules were loaded.
    held.append((done, int(Path("/proc/self/statm").read_text().split()[1]) * 4096))
look()
result = Importer(store, vault, clock=lambda: 1_769_904_000).run(path, parse_map(text), text, progress=look)
print(json.dumps({"rows": result.imported, "held": held}))
"""
ROWS: Final = 200_000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path), str(ROWS), MAP]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    measured = json.loads(done.stdout)
    assert measured["rows"] == ROWS
    begun = measured["held"][0][1]
    settled = max(held for done, held in measured["held"] if done <= ROWS // 10)
    most = max(held for _, held in measured["held"])
    # In bytes. The number of a row alone, kept for each, would be seven million; all rows at once a hundred.
    assert most - settled < 2_000_000
    assert most - begun < 20_000_000
