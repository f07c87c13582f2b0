"""The recording notice is complete, names who is responsible, and never claims a translation."""

from datetime import UTC, datetime

import pytest

from core.schemas import Language
from scheduling.model import Appointment
from scheduling.notice import (
    NOTICE_VERSION,
    NotCheckedIn,
    NoticeOutdated,
    notice_in,
    notice_text,
    record_notice,
)
from scheduling.schemas import AppointmentState, NoticeGiven

NOW = datetime(2026, 5, 25, 1, 0, tzinfo=UTC)


def appointment(state: AppointmentState = AppointmentState.CHECKED_IN) -> Appointment:
    return Appointment(state=state, notice_version=None, notice_shown_at=None)


def given(language: Language = Language.CHINESE, **fields: object) -> NoticeGiven:
    return NoticeGiven.model_validate({"version": NOTICE_VERSION, "language": language} | fields)


@pytest.mark.parametrize(
    "word", ["录音", "录像", "由甘孜州信访局", "0836-1", "为什么录", "保存多久", "查阅", "投诉"]
)
def test_the_chinese_notice_says_what_the_law_wants_said(word):
    class Unit:
        name_zh, name_en = "甘孜州", "Garzê"

    assert word in notice_text(notice_in(Language.CHINESE), Unit, "0836-1")


def test_both_texts_have_their_blanks_filled():
    for language in (Language.CHINESE, Language.ENGLISH):
        assert "{" not in notice_text(notice_in(language), None, "0836-1")


def test_tibetan_falls_back_to_chinese_and_says_so():
    assert notice_in(Language.TIBETAN).language is Language.CHINESE


def test_what_is_kept_is_the_language_that_was_really_shown():
    shown = appointment()
    record_notice(shown, given(Language.TIBETAN, read_aloud=True), now=NOW)
    assert (shown.notice_language, shown.notice_read_aloud) == (Language.CHINESE, True)
    assert shown.notice_shown_at == NOW


def test_the_first_showing_counts():
    shown = appointment()
    record_notice(shown, given(), now=NOW)
    record_notice(shown, given(), now=NOW.replace(hour=5))
    assert shown.notice_shown_at == NOW


def test_an_old_version_is_refused_with_the_new_one():
    with pytest.raises(NoticeOutdated) as refused:
        record_notice(appointment(), given(version="1999-1"), now=NOW)
    assert refused.value.details == {"version": NOTICE_VERSION}


def test_the_notice_belongs_to_someone_who_is_here():
    with pytest.raises(NotCheckedIn):
        record_notice(appointment(AppointmentState.CONFIRMED), given(), now=NOW)
