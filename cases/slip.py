"""The result slip (结果单): what a person carries home from a talk.

Number, query code and a QR code that opens the question page with the number filled in; what was
promised, by whom, by when; the next deadline in plain words; whom to call. Chinese first, Tibetan
names of offices on lines tall enough for them, English beneath. The slip names no petitioner: it
may be lost on the bus. An 80 mm strip, as long as there is something to say.
"""

from datetime import date
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncSession

from cases import minutes, query
from cases.model import Case, Demand
from cases.schemas import Outcome
from core.clock import local_date
from core.paper import compile_pdf, qr_svg
from core.schemas import Language

Inputs = dict[str, Any]
"""JSON values of the template's own shape."""

_OUTCOMES = {
    Outcome.ON_THE_SPOT: ("当场解决", "settled on the spot"),
    Outcome.BY_DATE: ("限期解决", "to be settled by the date"),
    Outcome.REPLY_LATER: ("会后答复", "reply to follow"),
    Outcome.EXPLAINED: ("解释说明", "explained"),
}
_WEEKDAYS = "一二三四五六日"


async def slip_inputs(
    tx: AsyncSession, case: Case, *, base_url: str, desk_phone: str, today: date
) -> Inputs:
    """What the template needs of `case` (from views.case_with_units)."""
    demands = await minutes.demands(tx, case.session_id)
    chinese, english = [
        await query.next_deadline(tx, case, demands, today=today, language=language)
        for language in (Language.CHINESE, Language.ENGLISH)
    ]
    return {
        "number": case.number,
        "code": f"{case.query_code[:4]} {case.query_code[4:]}",
        "qr": qr_svg(question_url(base_url, case)),
        "opened": in_words(local_date(case.opened_at)),
        "official": [case.official.title_zh, case.official.title_bo, case.official.title_en],
        "holder": [case.holder.name_zh, case.holder.name_bo, case.holder.name_en],
        "county": [case.county.name_zh, case.county.name_bo, case.county.name_en],
        "demands": [_demand(demand) for demand in demands],
        "due": in_words(chinese.due_on) if chinese else None,
        "why": [chinese.why, english.why] if chinese and english else None,
        "phone": desk_phone,
    }


def question_url(base_url: str, case: Case) -> str:
    """The public page with the number filled in; whoever asks still types the code.

    In the fragment, which a browser keeps to itself: the number reaches no server log.
    """
    return f"{base_url}/#{urlencode({'case': case.number})}"


def in_words(day: date) -> str:
    """`2026年6月9日 星期二`."""
    return f"{day.year}年{day.month}月{day.day}日 星期{_WEEKDAYS[day.weekday()]}"


def _demand(demand: Demand) -> Inputs:
    owner = demand.owner
    return {
        "text": demand.text,
        "outcome": list(_OUTCOMES[Outcome(demand.outcome)]) if demand.outcome else None,
        "answer": demand.answer,
        "owner": [owner.name_zh, owner.name_bo, owner.name_en] if owner else None,
        "due": in_words(demand.due_on) if demand.due_on else None,
        "due_iso": demand.due_on.isoformat() if demand.due_on else None,
    }


async def slip_pdf(inputs: Inputs) -> bytes:
    """The slip as PDF."""
    return await compile_pdf(TEMPLATE, inputs)


# Tibetan stacks letters downwards: its lines are half as tall again, so that nothing is cut off.
# Plain Tibetan nouns only; a sentence would need a reader of Tibetan to answer for it.
TEMPLATE = """\
#let data = json(bytes(sys.inputs.data))
#set document(title: data.number, date: none)
#set page(width: 80mm, height: auto, margin: (x: 5mm, y: 6mm))
#set text(
  font: ("Noto Sans SC", "Noto Sans CJK SC", "Noto Serif Tibetan"),
  lang: "zh", region: "cn", size: 10pt,
)
#set par(leading: 0.7em, spacing: 0.8em)
#let bo(words) = if words != none {
  block(above: 0.75em, below: 0.75em,
    text(size: 10.5pt, lang: "bo", top-edge: "ascender", bottom-edge: "descender", words))
}
#let en(words) = text(size: 8pt, fill: luma(70), lang: "en", words)
#let label(zh, tibetan, english) = [#text(size: 9pt, zh) #h(3pt) #en(english) #bo(tibetan)]
#let below(words) = if words != none { bo(words) } else { linebreak() }
#let cell(zh, tibetan, english) = [#text(size: 9pt, zh) #below(tibetan) #en(english)]
#let three(name) = [*#name.at(0)* #below(name.at(1)) #en(name.at(2))]
#let rule = line(length: 100%, stroke: 0.6pt)

#align(center)[
  #text(size: 14pt, weight: "bold")[接访结果单] \\
  #en[What came of your talk]
  #rule
  #label("编号", "ཨང་གྲངས།", "case number")
  #text(size: 11.5pt, weight: "bold", data.number)

  #label("查询码", none, "query code") \\
  #text(size: 19pt, weight: "bold", tracking: 0.6pt, data.code)
  #v(1mm)
  #image(bytes(data.qr), format: "svg", width: 34mm)
  #text(size: 8.5pt)[扫码可查办理情况] \\
  #en[scan to ask how it stands]
]
#rule
#grid(columns: (20mm, 1fr), row-gutter: 3mm, column-gutter: 2mm,
  cell("登记日期", "ཚེས་གྲངས།", "registered"), [#data.opened],
  cell("接访领导", none, "received by"), three(data.official),
  cell("现承办", none, "now with"), three(data.holder),
)
#rule
#text(weight: "bold")[您的诉求和答复] #en[What you asked, what was said]
#if data.demands.len() == 0 [
  没有逐项记录诉求，承办单位会与您联系。 \\
  #en[No single demand was noted; whoever holds the case will contact you.]
]
#for (position, demand) in data.demands.enumerate() {
  block(above: 3mm)[
    *#(position + 1). #demand.text*
    #if demand.outcome != none [\\ #demand.outcome.at(0) #en(demand.outcome.at(1))]
    #if demand.answer != none [\\ #demand.answer]
    #if demand.owner != none [\\ 责任单位 #en[who] #h(3pt) #three(demand.owner)]
    #if demand.due != none [\\ 期限 #en[by] #h(3pt) *#demand.due* #en(demand.due_iso)]
  ]
}
#rule
#if data.due != none [
  #text(weight: "bold")[下一步] #en[What happens next]

  *#data.due* 前：#data.why.at(0)。 \\
  #en(data.why.at(1))
  #rule
]
#label("有疑问请打电话", "ཁ་པར།", "questions? call")
#text(size: 13pt, weight: "bold", data.phone)

或到接待室询问，带上这张单子： \\
#three(data.county)
"""
