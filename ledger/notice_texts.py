"""Notices: what a person is told before granting, for each purpose, in every language at once. Pure.

A notice is one text: JSON as RFC 8785 writes it, with the same parts in English and in Simplified Chinese. What a grant
signs (`noticeHash`) is the Keccak-256 of that text's UTF-8 bytes, so whoever signed in one language signed the other as
well, and what was shown can be shown again, in either. A text is hashed and read as it is on file, never written anew.

Every notice says why, what happens in each case of the answer, and how long the same institution may not ask again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import Any, Final

from eth_utils import keccak

from ledger.consent import Hex32, hex32_of
from ledger.errors import MalformedError
from ledger.purposes import PURPOSES, Purpose

NOTICE_VERSION: Final = 1
QUIET_DAYS: Final = 30
"""After a "no" the same institution's next requests are kept and not put before the person for so many days."""

ENGLISH: Final = "en"
CHINESE: Final = "zh-Hans"
LANGUAGES: Final = (ENGLISH, CHINESE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePart:
    """A notice in one language. Every field is one or more whole sentences, but for `title`.

    `if_accepted`, `if_declined`: what follows from each answer. `withdrawal`: how it is ended, and what stays.
    `asking_again`: the quiet period. An older notice may have nothing but its `why`.
    """

    title: str
    why: str
    if_accepted: str
    if_declined: str
    withdrawal: str
    asking_again: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice: the whole text as it is hashed, and what it says by language."""

    notice_hash: Hex32
    text: str
    purpose: str | None
    parts: Mapping[str, NoticePart]

    def part(self, language: str) -> NoticePart:
        """In that language (`zh-Hans`, `zh_Hans_CN`, `en-GB`), else in English."""
        wanted = CHINESE if language.lower().startswith("zh") else ENGLISH
        return self.parts.get(wanted) or self.parts[ENGLISH]


_CHINESE_TEXTS: Final[Mapping[str, tuple[str, str, str]]] = {
    # purpose: (title, why, if_declined)
    "loan-origination": (
        "决定是否放贷",
        "用于决定您申请的贷款或信用卡是否获批。",
        (
            "该机构将无法从这里读取您的信用数据。它必须仅凭从别处了解的情况作出决定，可能会要求您以其他方式证明，"
            "也可能拒绝您的申请。您已有的合同不受影响。"
        ),
    ),
    "account-review": (
        "复核现有账户",
        "用于判断您现有的授信是否仍适合您的情况。",
        "您现有的授信按已签订的合同继续有效。该机构将仅凭自己掌握的情况进行复核。",
    ),
    "tenancy-check": (
        "租客审查",
        "用于判断您是否有能力按时支付房租。",
        "该机构将无法从这里读取您的信用数据。它可能会要求您以其他方式证明，也可能选择其他租客。",
    ),
    "model-audit": (
        "检验评分模型是否公平",
        "用于检验评分模型是否对不同人群区别对待。不会据此对您作出任何决定。",
        "对您没有任何影响。检验时不使用您的数据。",
    ),
    "audit": (
        "检查谁读取了我的数据",
        "用于让独立审计者检查对您数据的每一次访问。他们看到谁、何时、为何请求，但看不到任何数值。",
        "对您没有任何影响。审计者看不到您的记录；您仍可在“访问记录”中自行查看。",
    ),
}
_ENGLISH_IF_DECLINED: Final[Mapping[str, str]] = {
    "loan-origination": (
        "The institution cannot read your credit data here. It has to decide by what it knows from elsewhere, may ask "
        "you for other proof, and may say no to your application. Contracts that you have already do not change."
    ),
    "account-review": (
        "The credit that you have goes on under the contract that you signed. The institution reviews it by what it "
        "knows itself."
    ),
    "tenancy-check": (
        "The institution cannot read your credit data here. It may ask you for other proof, or choose another tenant."
    ),
    "model-audit": "Nothing follows for you. The measurement is made without your data.",
    "audit": "Nothing follows for you. The auditor does not see your records; you see them under Activity as before.",
}
_ENGLISH_COMMON: Final = {
    "if_accepted": (
        "The institution may read the data that you allowed, as often and as long as you allowed. Every time is put on "
        "a public log first, which names nobody and from which nobody can remove it, and you see it under Activity."
    ),
    "withdrawal": (
        "You can pause or stop it at any time, without giving a reason; it takes effect at once. What was read before "
        "may be kept for as long as you allowed, and must be deleted then."
    ),
    "asking_again": (
        f"If you say no, further requests of the same institution are not shown to you for {QUIET_DAYS} days, unless "
        "you open one yourself."
    ),
}
_CHINESE_COMMON: Final = {
    "if_accepted": (
        "该机构可以在您允许的次数和期限内读取您允许的数据。每一次读取都会先记入公开日志，该日志不含任何人的姓名，"
        "也无人能够删除；您可以在“查询记录”中看到。"
    ),
    "withdrawal": (
        "您可以随时暂停或撤回，无需说明理由，立即生效。此前已读取的数据可以保存到您允许的期限届满，之后必须删除。"
    ),
    "asking_again": f"如果您拒绝，{QUIET_DAYS} 天内同一机构的新请求不会再提示您，除非您自己打开。",
}


def _text_of(chosen: Purpose) -> str:
    title, why, if_declined = _CHINESE_TEXTS[chosen.code]
    texts = {
        ENGLISH: {
            "title": chosen.label,
            "why": chosen.description,
            "if_declined": _ENGLISH_IF_DECLINED[chosen.code],
            **_ENGLISH_COMMON,
        },
        CHINESE: {"title": title, "why": why, "if_declined": if_declined, **_CHINESE_COMMON},
    }
    fields = {"version": NOTICE_VERSION, "purpose": chosen.code, "texts": texts}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def hash_of(text: str) -> Hex32:
    """What a grant signs of a notice: Keccak-256 of its UTF-8 bytes."""
    return hex32_of(keccak(text=text))


def read_notice(text: str) -> Notice:
    """A notice from its text; one of an older form, which is no JSON object, is its own `why` in English.

    Raises `MalformedError` for a form that is not known.
    """
    if not text.startswith("{"):
        return plain_notice(text)
    try:
        fields: dict[str, Any] = json.loads(text)
        parts = {language: NoticePart(**found) for language, found in fields["texts"].items()}
        purpose, version = fields["purpose"], fields["version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise MalformedError("notice: not of a form that is known here", field="notice") from exc
    said = [purpose, *(sentence for part in parts.values() for sentence in astuple(part))]
    if version != NOTICE_VERSION or ENGLISH not in parts or not all(isinstance(one, str) for one in said):
        raise MalformedError("notice: not of a form that is known here", field="notice")
    return Notice(notice_hash=hash_of(text), text=text, purpose=purpose, parts=parts)


def plain_notice(text: str) -> Notice:
    """A text that is of no form at all: its own `why`, in English."""
    plain = NoticePart(title="", why=text, if_accepted="", if_declined="", withdrawal="", asking_again="")
    return Notice(notice_hash=hash_of(text), text=text, purpose=None, parts={ENGLISH: plain})


CURRENT: Final[Mapping[str, Notice]] = MappingProxyType(
    {code: read_notice(_text_of(chosen)) for code, chosen in PURPOSES.items()}
)
"""By purpose, the notice that is shown from now on."""

KNOWN: Final[Mapping[Hex32, str]] = MappingProxyType(
    # Before there were notices in two languages, a purpose's description was the whole of it.
    {hash_of(chosen.description): chosen.description for chosen in PURPOSES.values()}
    | {notice.notice_hash: notice.text for notice in CURRENT.values()}
)
"""By hash, every text that this version of the code has."""


def notice_hash_of(chosen: Purpose) -> Hex32:
    """What a grant for this purpose signs where no other text was shown."""
    return CURRENT[chosen.code].notice_hash
