"""Write what ships of the contract: `ledger/abi/ConsentLedger.json`, from Hardhat's build (`make abi`).

It holds the ABI, the bytecode, and the compiler's whole input (sources in full), so that anyone can recompile it.
With `--check`, writes nothing and fails if the file is not what a fresh build gives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "ledger" / "abi" / "ConsentLedger.json"


def built_artifact() -> dict[str, Any]:
    """The artifact of the last `hardhat build`, with only the sources that the contract needs."""
    artifact = json.loads((ROOT / "artifacts/contracts/ConsentLedger.sol/ConsentLedger.json").read_text())
    build = json.loads((ROOT / f"artifacts/build-info/{artifact['buildInfoId']}.json").read_text())
    output = json.loads((ROOT / f"artifacts/build-info/{artifact['buildInfoId']}.output.json").read_text())
    source = artifact["inputSourceName"]
    metadata = json.loads(output["output"]["contracts"][source]["ConsentLedger"]["metadata"])
    compiler_input = build["input"]
    return {
        "contract": f"{source}:ConsentLedger",
        "compiler": build["solcLongVersion"],
        "abi": artifact["abi"],
        "bytecode": artifact["bytecode"],
        "deployedBytecode": artifact["deployedBytecode"],
        # Without the compiler's node numbers, which depend on whatever else was compiled with it.
        "immutables": sorted(
            (place["start"], place["length"]) for places in artifact["immutableReferences"].values() for place in places
        ),
        "input": {
            "language": "Solidity",
            "settings": compiler_input["settings"],
            "sources": {name: compiler_input["sources"][name] for name in sorted(metadata["sources"])},
        },
    }


def main() -> int:
    """Write or check."""
    text = json.dumps(built_artifact(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != text:
            print(f"{TARGET.relative_to(ROOT)} is not what the sources compile to: run `make abi`")
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
