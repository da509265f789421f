"""The second auditor (`auditor.mjs`) in a process of its own, which asks this one's endpoints through a pipe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tampering import Trap

from ledger.audit_report import AuditReport, ConsentSummary
from ledger.devnet import node_binary
from ledger.errors import ChainUnavailableError
from ledger.jsonrpc import RpcError

SCRIPT: Final = Path(__file__).parent / "auditor.mjs"


class SecondAuditor:
    """Use as a context manager. One audit at a time."""

    def __enter__(self) -> SecondAuditor:
        self._process = subprocess.Popen(
            [node_binary(), str(SCRIPT), "--pipe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="ascii",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def audit(self, trap: Trap) -> dict[str, Any]:
        domain = trap.history.domain
        asked = {"chainId": domain.chain_id, "contract": domain.contract, "block": trap.block}
        answer: dict[str, Any] = self._told(asked | {"first": trap.history.first_block, "endpoints": len(trap.rpcs)})
        while "ask" in answer:
            endpoint, calls = answer["ask"]
            answer = self._told(_answered(trap.rpcs[endpoint], calls))
        return answer

    def _told(self, message: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the second auditor ended"
        return json.loads(line)


def _answered(rpc: Any, calls: Sequence[Any]) -> list[dict[str, Any]]:
    try:
        answers = rpc.each(*[(method, params) for method, params in calls])
    except ChainUnavailableError:
        return []
    return [{"error": str(one)} if isinstance(one, RpcError) else {"result": one} for one in answers]


def consents_digest(report: AuditReport) -> str:
    """The consents of a report as the second auditor digests its own."""
    return sha256("\n".join(sorted(map(_line, report.consents))).encode()).hexdigest()


def _line(one: ConsentSummary) -> str:
    accounts = [None if account is None else account[2:].lower() for account in (one.subject, one.custodian)]
    numbers = (int(one.state), one.valid_from, one.expires_at, one.max_accesses, one.recorded, one.refused, one.late)
    values = (one.consent_id[2:], *numbers, *accounts, one.granted_at, one.revoked_at, one.last_access_at)
    return " ".join("-" if value is None else str(value) for value in values)


def logs_of(report: AuditReport) -> list[list[Any]]:
    """The logs of a report as the second auditor lists its own."""
    return sorted(
        [one.custodian[2:].lower(), one.writer[2:].lower(), str(one.size), one.head[2:], one.allowed]
        for one in report.logs
    )
