"""Merkle-Patricia tries that are kept: setting a key makes a new trie beside the old one, and shares what is the same.

Small and fast, for generated chains; a test compares it with the `trie` package. Keys are hex digits, none begins with
another one (hashes, or numbers in RLP), and nothing is ever deleted. RLP's encoding is here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from eth_hash.backends.pysha3 import keccak256

EMPTY_ROOT: Final = keccak256(b"\x80")


def text(raw: bytes) -> bytes:
    """A byte string in RLP."""
    if len(raw) == 1 and raw[0] < 0x80:
        return raw
    return _head(len(raw), 0x80) + raw


def number(value: int) -> bytes:
    """A number in RLP."""
    return text(value.to_bytes((value.bit_length() + 7) // 8))


def listed(content: bytes) -> bytes:
    """A list in RLP around its encoded items."""
    return _head(len(content), 0xC0) + content


def _head(size: int, base: int) -> bytes:
    if size < 56:
        return bytes((base + size,))
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((base + 55 + len(length),)) + length


def _path(digits: str, flag: int) -> bytes:
    if len(digits) & 1:
        return text(bytes.fromhex(f"{flag + 1:x}{digits}"))
    return text(bytes.fromhex(f"{flag:x}0{digits}"))


class Node:
    """A node that never changes. `encoded` is its RLP, made when it is first asked for."""

    __slots__ = ("_encoded", "_reference")

    def __init__(self) -> None:
        self._encoded: bytes | None = None
        self._reference: bytes | None = None

    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = self._encode()
        return self._encoded

    def reference(self) -> bytes:
        """How its parent names it: as it is while it is short, else by its hash."""
        if self._reference is None:
            encoded = self.encoded()
            self._reference = encoded if len(encoded) < 32 else b"\xa0" + keccak256(encoded)
        return self._reference

    def _encode(self) -> bytes:
        raise NotImplementedError

    def set(self, digits: str, value: bytes) -> Node:
        raise NotImplementedError

    def on_path(self, digits: str) -> tuple[str, Node | None]:
        """What is left of the key below this node, and the node there."""
        raise NotImplementedError


class Leaf(Node):
    __slots__ = ("digits", "value")

    def __init__(self, digits: str, value: bytes) -> None:
        super().__init__()
        self.digits, self.value = digits, value

    def _encode(self) -> bytes:
        return listed(_path(self.digits, 2) + text(self.value))

    def set(self, digits: str, value: bytes) -> Node:
        if digits == self.digits:
            return Leaf(digits, value)
        return _forked(digits, value, self.digits, lambda rest: Leaf(rest, self.value))

    def on_path(self, digits: str) -> tuple[str, Node | None]:
        return digits[len(self.digits) :], None


class Extension(Node):
    __slots__ = ("child", "digits")

    def __init__(self, digits: str, child: Node) -> None:
        super().__init__()
        self.digits, self.child = digits, child

    def _encode(self) -> bytes:
        return listed(_path(self.digits, 0) + self.child.reference())

    def set(self, digits: str, value: bytes) -> Node:
        if digits.startswith(self.digits):
            return Extension(self.digits, self.child.set(digits[len(self.digits) :], value))
        return _forked(digits, value, self.digits, lambda rest: Extension(rest, self.child) if rest else self.child)

    def on_path(self, digits: str) -> tuple[str, Node | None]:
        if digits.startswith(self.digits):
            return digits[len(self.digits) :], self.child
        return "", None


class Branch(Node):
    __slots__ = ("children",)

    def __init__(self, children: list[Node | None]) -> None:
        super().__init__()
        self.children = children

    def _encode(self) -> bytes:
        return listed(b"".join([b"\x80" if child is None else child.reference() for child in self.children]) + b"\x80")

    def set(self, digits: str, value: bytes) -> Node:
        at = int(digits[0], 16)
        children = self.children.copy()
        child = children[at]
        children[at] = Leaf(digits[1:], value) if child is None else child.set(digits[1:], value)
        return Branch(children)

    def on_path(self, digits: str) -> tuple[str, Node | None]:
        return digits[1:], self.children[int(digits[0], 16)]


def _forked(digits: str, value: bytes, other: str, rest_of: object) -> Node:
    same = 0
    while digits[same] == other[same]:
        same += 1
    children: list[Node | None] = [None] * 16
    children[int(digits[same], 16)] = Leaf(digits[same + 1 :], value)
    children[int(other[same], 16)] = rest_of(other[same + 1 :])  # type: ignore[operator]
    branch = Branch(children)
    return Extension(digits[:same], branch) if same else branch


class Trie:
    """One state of a trie."""

    __slots__ = ("top",)

    def __init__(self, top: Node | None = None) -> None:
        self.top = top

    def set(self, key: bytes, value: bytes) -> Trie:
        """The trie with this value too."""
        digits = key.hex()
        return Trie(Leaf(digits, value) if self.top is None else self.top.set(digits, value))

    def root(self) -> bytes:
        return EMPTY_ROOT if self.top is None else keccak256(self.top.encoded())

    def value(self, key: bytes) -> bytes | None:
        """What is under a key, if anything is."""
        digits, node = key.hex(), self.top
        while node is not None:
            if isinstance(node, Leaf):
                return node.value if node.digits == digits else None
            digits, node = node.on_path(digits)
        return None

    def proof(self, key: bytes) -> list[bytes]:
        """The nodes on the way to a key, as `eth_getProof` gives them: without those that a parent holds."""
        nodes: list[bytes] = []
        digits, node = key.hex(), self.top
        while node is not None:
            encoded = node.encoded()
            if not nodes or len(encoded) >= 32:
                nodes.append(encoded)
            digits, node = node.on_path(digits)
        return nodes


def root_of_list(values: Sequence[bytes] | Iterable[bytes]) -> bytes:
    """The root over values in order, as of transactions and receipts."""
    trie = Trie()
    for place, value in enumerate(values):
        trie = trie.set(number(place), value)
    return trie.root()
