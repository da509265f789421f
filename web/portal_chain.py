"""What is on chain about the person, every byte of it; receipts; and a way to ask the chain that is not our word.

`POST /rpc` hands a question on to the node, unchanged: reading only, about our contract, a transaction's receipt or a
block's header. Whoever does not want to rely on it asks a node of their own, or through a wallet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from flask import Blueprint, Response, jsonify, render_template
from pydantic import Field

from ledger import contract
from ledger.attempts import RPC
from ledger.consent import parse_hex32
from ledger.errors import MalformedError
from ledger.jsonrpc import RpcError
from ledger.stateproof import quantity
from web.door import client, custodian
from web.json_body import body_of
from web.models import Model
from web.signed_in import signed_in

MAX_RPC: Final = 8 * 1024
METHODS: Final = {
    "eth_chainId": 0,
    "eth_getTransactionReceipt": 1,
    "eth_getBlockByNumber": 2,
    "eth_call": 2,
    "eth_getLogs": 1,
}
"""What may be asked, and how many parameters each question has."""
NODE_ERROR: Final = -32000
MOST_BLOCKS: Final = 10_000
VIEWS: Final = frozenset(f"0x{contract.SELECTORS[name].hex()}" for name in contract.VIEWS)

routes = Blueprint("chain", __name__)


class Question(Model):
    """A JSON-RPC request."""

    jsonrpc: Literal["2.0"]
    id: Annotated[int, Field(ge=0, le=2**53)]
    method: Annotated[str, Field(max_length=64)]
    params: Annotated[list[Any], Field(max_length=3)]


@routes.get("/chain")
def page() -> str:
    """Every consent of the person, as everybody can see it."""
    me, held = signed_in(), custodian()
    return render_template(
        "portal/chain.html",
        record=held.public_records.of_subject(me.subject_id),
        names={one.consent_id: one.grant.terms.institution_name for one in held.registry.consents(me.subject_id)},
    )


@routes.post("/rpc")
def rpc() -> Response:
    """One question to the chain. Errors of the node come back as they are."""
    held = custodian()
    held.attempts.count(RPC, client())
    asked = body_of(Question, most=MAX_RPC)
    _require_allowed(asked.method, asked.params)
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.id}
    (found,) = held.rpc.each((asked.method, asked.params))
    if isinstance(found, RpcError):
        answer["error"] = {"code": NODE_ERROR, "message": found.message}
    else:
        answer["result"] = found
    return jsonify(answer)


def _require_allowed(method: str, params: list[Any]) -> None:
    if METHODS.get(method) != len(params):
        raise MalformedError(f"method: expected one of {', '.join(METHODS)} with its parameters", field="method")
    if method == "eth_call":
        _require_contract(params[0], "to", {"to", "data"})
        _require_view(params[0].get("data"))
        params = params[1:]
    if method == "eth_getLogs":
        require_log_filter(params[0])
        params = params[1:]
    require_plain(method, params)


def require_log_filter(given: Any) -> None:  # noqa: ANN401 - JSON
    """Raises `MalformedError` unless it asks for the contract's events in not too many blocks."""
    _require_contract(given, "address", {"address", "topics", "fromBlock", "toBlock", "blockHash"})
    if "blockHash" in given and not {"fromBlock", "toBlock"} & set(given):
        parse_hex32(given["blockHash"], "params")
    # Nodes take a hash of null for none, and all the blocks that stand beside it.
    elif "blockHash" in given or not 0 <= _blocks(given) <= MOST_BLOCKS:
        raise MalformedError(f"params: expected at most {MOST_BLOCKS} blocks, by their numbers", field="params")


def require_plain(method: str, params: Sequence[Any]) -> None:
    """Raises `MalformedError` unless they are numbers and hashes, and ask for no whole transactions."""
    if method in ("eth_getBlockByNumber", "eth_getBlockByHash"):
        if params[1] is not False:
            raise MalformedError("params: expected no whole transactions", field="params")
        params = params[:1]
    if not all(isinstance(param, str) and len(param) <= len("0x") + 64 for param in params):
        raise MalformedError("params: expected numbers and hashes", field="params")


def _require_contract(given: object, name: str, fields: set[str]) -> None:
    ours = custodian().chain.domain.contract.lower()
    if not isinstance(given, dict) or not set(given) <= fields or str(given.get(name)).lower() != ours:
        raise MalformedError("params: expected a question about the contract", field="params")


def _require_view(data: object) -> None:
    # Anything else would have the node run code of the asker's own.
    if not isinstance(data, str) or data[: len("0x") + 8].lower() not in VIEWS:
        raise MalformedError("params: expected a call of a view of the contract", field="params")


def _blocks(given: dict[str, Any]) -> int:
    try:
        return quantity(given["toBlock"]) - quantity(given["fromBlock"])
    except (KeyError, TypeError, ValueError):
        return -1
