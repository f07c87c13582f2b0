"""The certificate of a deleted recording (销毁证明): what went, by whose word, on which basis.

A JSON text signed with the house's key (as the manifest was), kept in the database and beside the
manifest, its digest in the audit log; and the same on paper. It names offices and members of staff,
never a petitioner.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from cases.retention import COOLING, LEGAL_BASIS, Rule
from core.clock import LOCAL_ZONE
from core.errors import Malformed
from core.paper import compile_pdf
from media.erasure import Erasure
from media.signing import Signature

FORMAT = "reception-deletion-certificate"
VERSION = 1
Body = dict[str, Any]
"""JSON values of the certificate's own shape, as `make` writes them."""

_CLASSES = {
    "instruction": "有领导人重要批示并有处理结果",
    "result": "有处理结果",
    "no_result": "没有处理结果",
}


@dataclass(frozen=True, slots=True)
class Signatory:
    """One of the two. `words`: the appraisal, of the one who proposed."""

    account_id: str
    name: str
    at: datetime
    words: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the certificate says beside the list of files."""

    recording_id: str
    session_id: str
    case_number: str
    held_at: datetime
    closed_on: date
    keep_until: date
    rule: Rule
    proposed: Signatory
    confirmed: Signatory
    cooled_s: int
    decided_at: datetime
    deleted_at: datetime


def make(facts: Facts, erasure: Erasure) -> str:
    """The exact text to sign and to keep."""
    body: Body = {
        "format": FORMAT,
        "version": VERSION,
        "recording_id": facts.recording_id,
        "session_id": facts.session_id,
        "case_number": facts.case_number,
        "held_at": facts.held_at.isoformat(),
        "matter_class": facts.rule.matter_class.value,
        "closed_on": facts.closed_on.isoformat(),
        "keep_until": facts.keep_until.isoformat(),
        "period": {
            "years": facts.rule.years,
            "source": facts.rule.source,
            "is_estimated": facts.rule.is_estimated,
        },
        "legal_basis": LEGAL_BASIS,
        "proposed": _signed(facts.proposed),
        "confirmed": _signed(facts.confirmed),
        "cooling": {
            "required_s": int(COOLING.total_seconds()),
            "counted_s": facts.cooled_s,
        },
        "decided_at": facts.decided_at.isoformat(),
        "deleted_at": facts.deleted_at.isoformat(),
        "manifest_sha256": erasure.manifest_sha256,
        "manifest_signed_by": erasure.signed_by,
        "files": [asdict(file) for file in erasure.files],
        "not_covered": "Copies in back-ups, which go when their own time is over.",
    }
    return json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _signed(by: Signatory) -> Body:
    return {
        "account_id": by.account_id,
        "name": by.name,
        "at": by.at.isoformat(),
        "words": by.words,
    }


def sha256(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def read(body: str) -> Body:
    """Raises `Malformed` for what `make` does not write."""
    try:
        value: Body = json.loads(body)
        if value["format"] != FORMAT or value["version"] != VERSION:
            raise ValueError("format")
    except (ValueError, KeyError, TypeError) as problem:
        raise Malformed("This is not a certificate that this program reads.") from problem
    return value


def holds(body: bytes, signature: bytes) -> bool:
    """Whether the key that `signature` names signed exactly these bytes. Raises `Malformed`."""
    return Signature.decode(signature).is_over(body)


async def certificate_pdf(body: str, signature: str) -> bytes:
    """The certificate on paper: A4, Chinese first."""
    value = read(body)
    signed: Body = json.loads(signature)
    return await compile_pdf(
        TEMPLATE,
        {
            **value,
            "matter": _CLASSES[value["matter_class"]],
            "held": _day(value["held_at"]),
            "deleted": _moment(value["deleted_at"]),
            "proposed": {**value["proposed"], "at": _moment(value["proposed"]["at"])},
            "confirmed": {**value["confirmed"], "at": _moment(value["confirmed"]["at"])},
            "cooled_h": value["cooling"]["counted_s"] // 3600,
            "total": sum(file["bytes"] for file in value["files"]),
            "sha256": sha256(body),
            "public_key": signed["public_key"],
        },
    )


def _day(instant: str) -> str:
    return f"{datetime.fromisoformat(instant).astimezone(LOCAL_ZONE):%Y-%m-%d}"


def _moment(instant: str) -> str:
    return f"{datetime.fromisoformat(instant).astimezone(LOCAL_ZONE):%Y-%m-%d %H:%M}"


TEMPLATE = """\
#let data = json(bytes(sys.inputs.data))
#set document(title: data.case_number, date: none)
#set page(paper: "a4", margin: (x: 22mm, y: 20mm), numbering: "1 / 1")
#set text(
  font: ("Noto Sans SC", "Noto Sans CJK SC", "Noto Serif Tibetan"),
  lang: "zh", region: "cn", size: 10.5pt,
)
#set par(leading: 0.7em)
#let en(words) = text(size: 8pt, fill: luma(70), lang: "en", words)
#let mono(words) = text(
  font: ("Noto Sans SC", "Noto Sans CJK SC"), size: 7.5pt, tracking: 0.2pt,
  words.clusters().chunks(16).map(part => part.join()).join(sym.zws),
)
#let cell(zh, english) = [#zh \\ #en(english)]
#align(center)[
  #text(size: 18pt, weight: "bold")[录音录像销毁证明] \\
  #en[Certificate of deletion of a recording]
]
#v(4mm)
#let period = if data.period.years == none { "永久" } else { str(data.period.years) + " 年" }
#table(
  columns: (42mm, 1fr), stroke: 0.4pt + luma(120), inset: 6pt,
  cell("信访件编号", "case"), strong(data.case_number),
  cell("接访日期", "held on"), data.held,
  cell("类别", "class of matter"), data.matter,
  cell("保管期限", "period"),
  [#period，自 #data.closed_on 办结，保管至 #data.keep_until \\
   依据：#data.period.source
   #if data.period.is_estimated [（本机关保管期限表尚未录入，按此推定 #en[estimated]）]],
  cell("销毁依据", "legal basis"), data.legal_basis,
  cell("提出并鉴定", "proposed by"),
  [#data.proposed.name，#data.proposed.at \\ #data.proposed.words],
  cell("核准", "confirmed by"), [#data.confirmed.name，#data.confirmed.at],
  cell("冷静期", "cooling"), [#data.cooled_h 小时 #en[hours counted, 72 required]],
  cell("销毁时间", "deleted"), strong(data.deleted),
  cell("原始记录清单摘要", "SHA-256 of the manifest"),
  if data.manifest_sha256 == none [无清单 #en[none]] else { mono(data.manifest_sha256) },
)
#v(3mm)
#text(weight: "bold")[销毁的文件] #en[#data.files.len() files, #data.total bytes; SHA-256 of each]
#table(
  columns: (1fr, auto, 66mm), stroke: 0.3pt + luma(160), inset: 4pt,
  table.header([文件 #en[file]], [字节 #en[bytes]], [SHA-256]),
  ..data.files.map(file => (
    text(size: 7.5pt, file.path.replace("/", "/" + sym.zws).replace("-", "-" + sym.zws)),
    align(right, text(size: 8pt, str(file.bytes))),
    if file.sha256 == none [读不出 #en[unreadable]] else { mono(file.sha256) },
  )).flatten()
)
#v(3mm)
信访件、笔录、台账和原始记录清单及其签名仍然保存。备份中的副本不在本证明之内，按备份期限清除。 \\
#en[The case, its minutes, its ledger and the signed manifest are kept.
Copies in back-ups are not covered.]
#v(3mm)
#en[SHA-256 of the certificate (certificate.json)] \\ #mono(data.sha256) \\
#en[Ed25519 public key by which it is signed] \\ #mono(data.public_key)
"""
