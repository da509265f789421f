"""The sources that ship, compiled once more with py-solc-x: that the bytecode is theirs need not be believed."""

from __future__ import annotations

from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Final

import solcx
from solcx.exceptions import (
    DownloadError,
    SolcError,
    SolcInstallationError,
    SolcNotInstalled,
    UnexpectedVersionError,
)

from ledger.artifact import artifact
from ledger.errors import ConfigError

_UNUSABLE: Final = (DownloadError, SolcError, SolcInstallationError, SolcNotInstalled, UnexpectedVersionError)


def recompile(compiler: Path | None = None) -> dict[str, Any]:
    """Compile the shipped sources with py-solc-x. Raises `ConfigError` without a compiler of that very version."""
    shipped = artifact()
    version = shipped.compiler.split("+")[0]
    binary = compiler or _bundled_compiler()
    try:
        if binary is None:
            solcx.install_solc(version)
            output = solcx.compile_standard(shipped.compiler_input, solc_version=version)
        else:
            output = solcx.compile_standard(shipped.compiler_input, solc_binary=str(binary))
        source, name = shipped.contract.rsplit(":", 1)
        compiled: dict[str, Any] = output["contracts"][source][name]
    except (*_UNUSABLE, SubprocessError, OSError, ValueError, KeyError) as exc:
        raise ConfigError(f"no usable Solidity compiler {version}: give one by --solc") from exc
    return compiled


def _bundled_compiler() -> Path | None:
    """`bin/solc` of a checkout whose npm packages are installed."""
    root = Path(__file__).parent.parent
    wrapper = root / "bin" / "solc"
    return wrapper if wrapper.exists() and (root / "node_modules" / "solc").exists() else None
