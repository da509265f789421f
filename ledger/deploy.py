"""Deployment and verification of the contract.

It is deployed by CREATE2 through the usual deterministic deployer (Arachnid's), whose own deployment is a transaction
signed in advance by a key nobody has. The contract takes no argument, so its address follows from its code alone: the
same on every chain, also on a devnet that was restarted empty, and old signatures stay valid there.

Verification recompiles the sources with py-solc-x and compares the result with what ships and with the code on chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eth_account.signers.local import LocalAccount
from eth_utils import to_checksum_address
from hexbytes import HexBytes
from requests.exceptions import RequestException

from ledger.artifact import DEPLOYER, SALT, artifact, contract_address, require_code
from ledger.chain import MAX_FEE
from ledger.compiler import recompile
from ledger.consent import Address, Domain
from ledger.errors import (
    ChainUnavailableError,
    ConfirmationTimeoutError,
    ContractMismatchError,
    ContractMissingError,
    FeeTooHighError,
)
from ledger.json_forms import origin_of
from ledger.jsonrpc import JsonRpc, RpcError

if TYPE_CHECKING:
    from web3 import Web3

DEPLOYER_SIGNER: Final = "0x3fAB184622Dc19b6109349B94811493BF2a45362"
DEPLOYER_COST: Final = 10**16
DEPLOYER_TRANSACTION: Final = (
    "0xf8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf31ba0222222222222222222"
    "2222222222222222222222222222222222222222222222a02222222222222222222222222222222222222222222222222222222222222222"
)

GAS: Final = 5_000_000
WAIT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was compared, all of it equal."""

    contract: Address
    compiler: str
    sources: int
    code_size: int


def deploy(rpc_url: str, payer: LocalAccount, *, max_fee: int = MAX_FEE) -> bool:
    """Deploy unless it is there already. Returns whether it did. The payer needs gas.

    Raises `ChainUnavailableError`, `ConfirmationTimeoutError`, `ContractMissingError` if the chain did not take it, and
    `FeeTooHighError`: a unit of gas costs more than `max_fee` wei.
    """
    # To load it takes longer than most verbs do, and nothing but this needs it.
    from web3 import HTTPProvider, Web3  # noqa: PLC0415 - as said
    from web3.exceptions import TimeExhausted, Web3Exception  # noqa: PLC0415 - as said

    w3 = Web3(HTTPProvider(rpc_url, exception_retry_configuration=None))
    address = to_checksum_address(contract_address())
    try:
        if w3.eth.get_code(address):
            return False
        if not w3.eth.get_code(DEPLOYER):
            _pay(w3, payer, max_fee, to=DEPLOYER_SIGNER, value=DEPLOYER_COST)
            sent = w3.eth.send_raw_transaction(HexBytes(DEPLOYER_TRANSACTION))
            w3.eth.wait_for_transaction_receipt(sent, timeout=WAIT_SECONDS)
        _pay(w3, payer, max_fee, to=DEPLOYER, data=SALT + artifact().bytecode, gas=GAS)
        if not w3.eth.get_code(address):
            raise ContractMissingError(f"the deployment left no contract at {address}")
    except TimeExhausted as exc:
        raise ConfirmationTimeoutError("the deployment is not in a block") from exc
    except (Web3Exception, RequestException, ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        # web3 lets through what its formatters stumble over in an answer that is none.
        raise ChainUnavailableError(f"no usable answer from the chain at {origin_of(rpc_url)}") from exc
    return True


def verify(rpc: JsonRpc, compiler: Path | None = None) -> Verification:
    """Recompile the shipped sources and compare: sources = shipped bytecode = code on chain, at the address it implies.

    Raises `ContractMismatchError`, `ContractMissingError`, `ConfigError` if there is no compiler.
    """
    shipped = artifact()
    compiled = recompile(compiler)
    if bytes.fromhex(compiled["evm"]["bytecode"]["object"]) != shipped.bytecode:
        raise ContractMismatchError("the shipped bytecode is not what the sources compile to")
    address = contract_address()
    on_chain, chain_id = _asked(rpc, "eth_getCode", address, "latest"), _asked(rpc, "eth_chainId")
    if not on_chain:
        raise ContractMissingError(f"no contract at {address}: run `consent-ledger deploy`")
    recompiled = bytes.fromhex(compiled["evm"]["deployedBytecode"]["object"])
    require_code(on_chain, recompiled, Domain(chain_id=int.from_bytes(chain_id), contract=address))
    return Verification(
        contract=address,
        compiler=shipped.compiler,
        sources=len(shipped.compiler_input["sources"]),
        code_size=len(on_chain),
    )


def _asked(rpc: JsonRpc, method: str, *params: object) -> bytes:
    try:
        digits = rpc(method, *params).removeprefix("0x")
        return bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
    except RpcError as exc:
        raise ChainUnavailableError(f"the chain refused {method}: {exc.message[:200]}") from exc
    except (AttributeError, TypeError, ValueError) as exc:
        raise ChainUnavailableError(f"{method}: the endpoint's answer is not that of an Ethereum node") from exc


def _pay(
    w3: Web3, payer: LocalAccount, max_fee: int, *, to: str, value: int = 0, data: bytes = b"", gas: int = 50_000
) -> None:
    price = w3.eth.gas_price
    if price > max_fee:
        raise FeeTooHighError(f"the gas price is {price} wei: expected at most {max_fee} (CONSENT_LEDGER_MAX_FEE)")
    fields: dict[str, Any] = {
        "chainId": w3.eth.chain_id,
        "nonce": w3.eth.get_transaction_count(payer.address, "pending"),
        "to": to,
        "value": value,
        "data": data,
        "gas": gas,
        # All of it is paid.
        "gasPrice": min(2 * price, max_fee),
    }
    signed = payer.sign_transaction(fields)
    w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(signed.raw_transaction), timeout=WAIT_SECONDS)
