"""The appointment slip: an 80 mm strip with number, QR code, when, where, with whom, what to bring.

Chinese first; beneath the labels stand Tibetan words where we are sure of them, or English ones on
request. It names no petitioner and does not say what the matter is: slips get lost.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from core import paper
from core.clock import LOCAL_ZONE
from core.schemas import Language
from scheduling.model import Appointment
from scheduling.numbering import qr_text

_WEEKDAYS_ZH = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")


@dataclass(frozen=True, slots=True)
class _Labels:
    title: str
    number: str
    when: str
    where: str
    official: str
    phone: str
    bring: str
    bring_lines: tuple[str, ...]


_ZH = _Labels(
    title="视频接访预约单", number="预约号", when="时间", where="地点", official="接待领导",
    phone="接待室电话", bring="来的时候",
    bring_lines=(
        "带上这张单子",
        "带上身份证（没有带，也照样接待）",
        "带上和这件事有关的材料",
        "提前二十分钟到，先签到",
    ),
)  # fmt: skip
# Plain nouns only. A sentence would need a reader of Tibetan to answer for it.
_BO = _Labels(
    title="", number="ཨང་གྲངས།", when="དུས་ཚོད།", where="ས་གནས།", official="", phone="ཁ་པར།",
    bring="", bring_lines=("", "", "", ""),
)  # fmt: skip
_EN = _Labels(
    title="Video reception appointment", number="Number", when="Time", where="Place",
    official="Received by", phone="County desk", bring="When you come",
    bring_lines=(
        "Bring this slip", "Bring your identity card (you are received without it, too)",
        "Bring papers about the matter", "Come twenty minutes early and check in first",
    ),
)  # fmt: skip

_TEMPLATE = """\
#let data = json(bytes(sys.inputs.data))
#set document(title: data.title.at(0), date: none)
#set page(width: 80mm, height: auto, margin: (x: 5mm, y: 6mm))
#set text(
  font: ("Noto Sans SC", "Noto Sans CJK SC", "Noto Serif Tibetan"),
  lang: "zh", region: "cn", size: 10pt,
)
#set par(leading: 0.7em, spacing: 0.9em)
// Stacked Tibetan letters need about half as much again above and below the line.
#let second(words, size: 9pt) = if words != "" {
  block(above: 0.75em, below: 0.75em,
    text(size: size, top-edge: "ascender", bottom-edge: "descender", words))
}
#let pair(words, size: 10pt, weight: "regular") = {
  text(size: size, weight: weight, words.at(0))
  second(words.at(1), size: size * data.second_scale)
}
#align(center)[
  #pair(data.title, size: 14pt, weight: "bold")
  #line(length: 100%, stroke: 0.6pt)
  #pair(data.number_label)
  #text(size: 19pt, weight: "bold", tracking: 0.3pt, number-width: "tabular", data.number)
  #v(1mm)
  #image(bytes(data.qr), format: "svg", width: 34mm)
  #line(length: 100%, stroke: 0.6pt)
]
#grid(columns: (22mm, 1fr), row-gutter: 3.2mm, column-gutter: 2mm,
  ..data.rows.map(row => (pair(row.label), pair(row.value, weight: "medium"))).flatten())
#line(length: 100%, stroke: 0.6pt)
#pair(data.bring, weight: "bold")
#for words in data.bring_lines [
  - #pair(words)
]
"""


async def slip_pdf(
    appointment: Appointment, *, language: Language, desk_phone: str, secret: bytes
) -> bytes:
    """The slip of an appointment (loaded with its details) as PDF."""
    inputs = slip_inputs(appointment, language=language, desk_phone=desk_phone, secret=secret)
    return await paper.compile_pdf(_TEMPLATE, inputs)


def slip_inputs(
    appointment: Appointment, *, language: Language, desk_phone: str, secret: bytes
) -> dict[str, Any]:  # JSON for the template above
    """What the template prints: each text as a pair of Chinese and, beneath it, the other."""
    english = language is Language.ENGLISH
    other = _EN if english else _BO
    day, county = appointment.reception_day, appointment.county
    official = day.official
    starts = appointment.slot.starts_at.astimezone(LOCAL_ZONE)
    ends = appointment.slot.ends_at.astimezone(LOCAL_ZONE)
    return {
        # Tibetan letters are small on their body, Latin ones large.
        "second_scale": 0.85 if english else 1.15,
        "title": [_ZH.title, other.title],
        "number_label": [_ZH.number, other.number],
        "number": appointment.number,
        "qr": paper.qr_svg(qr_text(appointment.number, secret)),
        "rows": [
            _row(_ZH.when, other.when, _when_zh(starts, ends),
                 _when_en(starts, ends) if english else ""),
            _row(_ZH.where, other.where, f"{county.name_zh}群众接待室",
                 f"{county.name_en} reception room" if english else county.name_bo or ""),
            _row(_ZH.official, other.official, official.title_zh,
                 official.title_en if english else official.title_bo or ""),
            _row(_ZH.phone, other.phone, desk_phone, ""),
        ],
        "bring": [_ZH.bring, other.bring],
        "bring_lines": [
            [zh, second] for zh, second in zip(_ZH.bring_lines, other.bring_lines, strict=True)
        ],
    }  # fmt: skip


def _row(label: str, other_label: str, value: str, other_value: str) -> dict[str, list[str]]:
    return {"label": [label, other_label], "value": [value, other_value]}


def _when_zh(starts: datetime, ends: datetime) -> str:
    day: date = starts.date()
    return (
        f"{day.year}年{day.month}月{day.day}日 {_WEEKDAYS_ZH[day.weekday()]}\n"
        f"{starts:%H:%M}–{ends:%H:%M}"
    )


def _when_en(starts: datetime, ends: datetime) -> str:
    return f"{starts:%A} {starts.day} {starts:%B %Y}, {starts:%H:%M}–{ends:%H:%M}"
