"""The portal's scripts: their own tests under Node, the vendored file's freshness, and what the pages must not do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from actors import World

from ledger.devnet import node_binary
from web.script_texts import script_texts

ROOT: Final = Path(__file__).parent.parent
SCRIPTS: Final = ROOT / "web" / "static" / "portal"
OWN: Final = sorted(path for path in SCRIPTS.glob("*.js") if path.name != "vendor.js")
TESTS: Final = sorted((ROOT / "tests" / "browser").glob("*.test.mjs"))
COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
UNSAFE: Final = re.compile(
    r"\beval\(|new Function\b|innerHTML|outerHTML|document\.write|insertAdjacentHTML"
    r"|\.style\b|setAttribute\(\"style\"|createElement\(\"script\"\)|\bimport\("
)
CODE: Final = re.compile(
    r"new PortalError\(\s*\"(\w+)\"|textOf\([\w.]*texts, \"(\w+)\"|\"((?:wallet|passkey)_[a-z_]+)\""
)


def node(*arguments: str, given: object = None) -> str:
    if not (ROOT / "node_modules" / "@noble" / "curves").exists():
        reason = "node_modules is not there: run `make setup`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [node_binary(), *arguments]
    text = json.dumps(given)
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.removesuffix(".test.mjs"))
def test_the_scripts_do_what_their_own_tests_say(path: Path) -> None:
    said = node("--test", "--test-reporter=tap", str(path))
    assert re.search(r"^# pass [1-9]", said, re.MULTILINE), said
    assert re.search(r"^# (?:fail|cancelled|skipped|todo) [1-9]", said, re.MULTILINE) is None, said


def test_the_vendored_file_is_what_the_packages_bundle_to() -> None:
    node("bin/vendor.mjs", "--check")


def test_the_scripts_stay_small() -> None:
    assert len((SCRIPTS / "vendor.js").read_bytes()) < 64_000
    assert sum(len(path.read_bytes()) for path in OWN) < 100_000
    assert all(len(path.read_text("utf-8").splitlines()) <= 250 for path in OWN)


def test_nothing_in_the_scripts_needs_more_than_the_policy_allows() -> None:
    for path in SCRIPTS.glob("*.js"):
        assert not UNSAFE.search(COMMENT.sub("", path.read_text("utf-8"))), path
    for path in OWN:
        assert not re.search(r"https?://", path.read_text("utf-8")), path
        for source in re.findall(r"(?:from|import) \"([^\"]+)\"", path.read_text("utf-8")):
            assert re.fullmatch(r"\./[a-z-]+\.js", source), (path, source)
            assert (SCRIPTS / source).exists()


def test_every_code_that_a_script_can_show_has_its_text() -> None:
    texts = script_texts(lambda text: text)
    used = {code for path in OWN for found in CODE.findall(path.read_text("utf-8")) for code in found if code}
    assert len(used) > 30
    assert sorted(used - set(texts)) == []
    for path in OWN:
        for prefix in re.findall(r"`(\w+_)\$\{", path.read_text("utf-8")):
            assert any(code.startswith(prefix) for code in texts), prefix


def test_what_the_custodian_signs_is_genuine_on_the_page(world: World) -> None:
    granted, held = world.grant(), world.custodian
    jwks = {"keys": [held.accounts.signing_key.as_dict(private=False)]}
    domain = held.chain.domain
    place: dict[str, object] = {"chainId": domain.chain_id, "contract": domain.contract}

    def checked(receipt: str) -> dict[str, object]:
        said: dict[str, object] = json.loads(
            node("tests/browser/verify.mjs", given={"receipt": receipt, "jwks": jwks, "place": place})
        )
        return said

    access = world.ask(granted).receipt
    assert checked(access) == {"verdict": "good", "failed": [], "names": ["custodian", "place", "entry"]}
    for name, other in (("chainId", 1), ("contract", "0x" + "11" * 20)):
        here = place[name]
        place[name] = other
        assert checked(access) == {"verdict": "bad", "failed": ["place"], "names": ["custodian", "place", "entry"]}
        place[name] = here
    names = ["custodian", "place", "consent", "subject"]
    assert checked(held.grants.receipt(granted)) == {"verdict": "good", "failed": [], "names": names}
    world.subject.revoke(held, granted)
    names = ["custodian", "place", "revocation"]
    assert checked(held.grants.revocation_receipt(granted)) == {"verdict": "good", "failed": [], "names": names}
    stopped = world.grant()
    held.grants.revoke_as_custodian([stopped])
    names = ["custodian", "place"]
    assert checked(held.grants.revocation_receipt(stopped)) == {"verdict": "good", "failed": [], "names": names}
    proof = held.eraser.erase(world.subject.ref).proof
    assert checked(proof) == {"verdict": "good", "failed": [], "names": ["custodian", "impersonal"]}
    for key in (jwks["keys"][0] | {"x": jwks["keys"][0]["y"]}, world.institution.signing_key.as_dict(private=False)):
        jwks["keys"] = [{name: value for name, value in key.items() if name != "kid"} | {"kid": jwks["keys"][0]["kid"]}]
        names = ["custodian", "impersonal"]
        assert checked(proof) == {"verdict": "bad", "failed": ["custodian"], "names": names}
