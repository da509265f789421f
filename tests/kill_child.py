"""A process that is killed at a step: run as `python kill_child.py JOB.json`, see `Job`. It never tidies up."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ledger import erase
from ledger.config import Config
from ledger.consent import Hex32
from ledger.custodian import Custodian
from ledger.signatures import HttpRequest
from ledger.typed_data import parse_grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do, and at which step (and which time around) to die. `arguments` are those of the deed."""

    data: str
    rpc_url: str
    deed: str
    step: str
    times: int = 1
    arguments: dict[str, Any]

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path


def main(path: str) -> None:
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    left = job.times

    def step(name: str) -> None:
        nonlocal left
        if name == job.step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    erase.CHUNK = 2  # type: ignore[misc] # so that a handful of rows is several chunks
    config = Config(data=Path(job.data), rpc_url=job.rpc_url)
    DEEDS[job.deed](Custodian(config, step=step), job.arguments)


def release(custodian: Custodian, arguments: dict[str, Any]) -> None:
    message = arguments["message"]
    custodian.releases.release(HttpRequest(**message | {"body": message["body"].encode()}))


def grant(custodian: Custodian, arguments: dict[str, Any]) -> None:
    subject_id = custodian.vault.subject_of(arguments["subject_ref"])
    custodian.grants.grant(parse_grant(arguments["grant"]), bytes.fromhex(arguments["signature"]), subject_id)


def revoke(custodian: Custodian, arguments: dict[str, Any]) -> None:
    custodian.grants.revoke([Hex32(arguments["consent"])], bytes.fromhex(arguments["signature"]))


def erase_person(custodian: Custodian, arguments: dict[str, Any]) -> None:
    custodian.eraser.erase(arguments["subject_ref"])


def rotate(custodian: Custodian, _: dict[str, Any]) -> None:
    custodian.rotate_keys()


DEEDS: dict[str, Callable[[Custodian, dict[str, Any]], None]] = {
    "release": release,
    "grant": grant,
    "revoke": revoke,
    "erase": erase_person,
    "rotate": rotate,
}

if __name__ == "__main__":
    main(sys.argv[1])
