"""The printed slip, as text taken back out of the PDF."""

import io
from datetime import UTC, date, datetime

import pypdf
import pytest

from core.identity import Official, OrgUnit
from core.paper import qr_svg
from core.schemas import Language
from scheduling.model import Appointment, ReceptionDay, Slot
from scheduling.numbering import appointment_number, qr_text
from scheduling.slip import slip_inputs, slip_pdf

SECRET = b"s" * 32


def appointment(title_zh: str = "州委副书记") -> Appointment:
    return Appointment(
        number=appointment_number("513328", date(2026, 5, 25), 14), matter="草场边界",
        county=OrgUnit(name_zh="甘孜县", name_bo=None, name_en="Garzê County"),
        slot=Slot(
            starts_at=datetime(2026, 5, 25, 1, 30, tzinfo=UTC),
            ends_at=datetime(2026, 5, 25, 1, 45, tzinfo=UTC),
        ),
        reception_day=ReceptionDay(
            official=Official(title_zh=title_zh, title_bo=None, title_en="Deputy Secretary")
        ),
    )  # fmt: skip


async def printed(one: Appointment, language: Language) -> tuple[str, pypdf.PdfReader]:
    pdf = await slip_pdf(one, language=language, desk_phone="0836-752", secret=SECRET)
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    return "".join(page.extract_text() for page in reader.pages), reader


async def test_the_slip_is_one_narrow_page_with_number_time_place_and_phone():
    text, reader = await printed(appointment(), Language.CHINESE)
    assert len(reader.pages) == 1
    assert float(reader.pages[0].mediabox.width) == pytest.approx(80 / 25.4 * 72, abs=0.5)
    joined = text.replace(" ", "").replace("\n", "")
    for words in (appointment().number, "2026年5月25日", "星期一", "09:30", "甘孜县", "0836-752"):
        assert words in joined
    assert "ཨང་གྲངས" in text


async def test_the_slip_does_not_say_what_the_matter_is():
    text, _ = await printed(appointment(), Language.CHINESE)
    assert "草场" not in text


async def test_in_english_the_second_line_is_english():
    text, _ = await printed(appointment(), Language.ENGLISH)
    assert "Monday 25 May 2026" in text.replace("\n", " ")
    assert "ཨང" not in text


async def test_typed_text_is_printed_and_never_run_as_markup():
    text, _ = await printed(appointment('#read("/etc/passwd") *x* $y$'), Language.CHINESE)
    assert '#read("/etc/passwd")' in text.replace("\n", "")
    assert "root:" not in text


def test_the_qr_code_says_the_number_and_our_mark():
    inputs = slip_inputs(appointment(), language=Language.CHINESE, desk_phone="1", secret=SECRET)
    assert inputs["qr"] == qr_svg(qr_text(inputs["number"], SECRET))
    assert inputs["qr"] != qr_svg(qr_text(inputs["number"], b"t" * 32))
