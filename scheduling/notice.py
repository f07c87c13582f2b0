"""The recording notice: what is recorded, by whom, why, how long, and what one may ask.

Recording a talk for a statutory duty rests on notice, not on consent (PIPL art. 13(3), 17, 35), so
it must be shown, in words people understand, before the first packet is recorded, and the version
and language shown are kept. A changed text is a new version; old versions stay known through what
appointments say they were shown. Where we cannot stand behind a translation there is none: asking
for it gives the Chinese text and says so.
"""

from dataclasses import dataclass
from datetime import datetime

from core.errors import Conflict
from core.identity import OrgUnit
from core.schemas import Language
from scheduling.model import Appointment
from scheduling.schemas import AppointmentState, NoticeGiven

NOTICE_VERSION = "2026-1"


class NoticeOutdated(Conflict):
    code = "notice_outdated"


class NotCheckedIn(Conflict):
    code = "not_checked_in"


@dataclass(frozen=True, slots=True)
class Notice:
    """One version of the notice in one language; `language` is the one the text is really in.

    `text` has two blanks, `organ` and `phone`: PIPL art. 17 wants the handler named and reachable.
    """

    version: str
    language: Language
    title: str
    text: str


_ZH = Notice(
    NOTICE_VERSION,
    Language.CHINESE,
    "录音录像告知",
    """\
您好。您和领导的这次谈话，会录音、录像。请先听一听下面这几件事。

一、谁在录。由{organ}（电话{phone}）录制和保管，县接待室协助。屏幕上会一直显示“正在录制”，\
不会偷偷录。

二、录什么。从领导请您开始谈，到谈话结束：您这边和领导那边的画面、声音，\
以及您放在镜头下给领导看的材料。等候的时候不录。

三、为什么录。为了如实记下您反映的事情和领导当场的答复，以后办理、督办、复查有据可查；\
对您、对接待的人，都是一份保护。这是信访工作机构履行法定职责所需要的，\
依据是《信访工作条例》和《中华人民共和国个人信息保护法》第十三条、第三十五条。

四、谁能看。只有办理、督办、复核这件事的工作人员能看，每看一次都会留下记录。\
不拿去宣传，不给媒体，也不用来给您贴任何标签。

五、保存多久。和您这件事的档案放在一起，按信访档案的保管期限保存，到期按规定销毁。

六、您的权利。您可以问录了什么，可以申请查阅、复制和您有关的内容，发现记错了可以要求更正、补充。\
您可以要求解释这份告知，也可以要求换一种语言讲给您听。要办这些，找县接待室，\
或者打小票上的电话。认为处理得不对，可以向上级机关或者履行个人信息保护职责的部门投诉、举报。

七、您不想录怎么办。请在开始之前告诉接待室的工作人员。您可以改用书面、电话或者当面的方式反映，\
您反映的事情一样登记、一样办理，不会因此受影响。

听不清楚、没有听懂，请按“找人帮忙”。""",
)

_EN = Notice(
    NOTICE_VERSION,
    Language.ENGLISH,
    "Notice of recording",
    """\
Your talk with the official will be recorded, with sound and picture. Please listen to these \
points first.

1. Who records. {organ} (telephone {phone}) records and keeps it; the county reception \
room assists. The screen shows “recording” all the time. Nothing is recorded in secret.

2. What is recorded. From the moment the official asks you to begin until the talk ends: picture \
and sound on your side and on the official’s side, and any paper you show to the document camera. \
Waiting time is not recorded.

3. Why. To keep a true account of what you said and what you were promised, so that it can be \
carried out, supervised and reviewed. It protects you and the people who receive you. The \
petition office needs it for its statutory duty, under the Regulations on Petition Work and \
articles 13 and 35 of the Personal Information Protection Law.

4. Who may see it. Only staff who handle, supervise or review this matter, and every viewing \
leaves a record. It is not used for publicity, not given to the media, and not used to put any \
label on you.

5. How long it is kept. Together with the file of your matter, for as long as petition files are \
kept; then it is destroyed according to the rules.

6. Your rights. You may ask what was recorded, ask to see and copy what concerns you, and have \
mistakes corrected or completed. You may have this notice explained, or told to you in another \
language. Ask at the county reception room or call the number on your slip. If you think this was \
handled wrongly you may complain to the authority above or to the departments that protect \
personal information.

7. If you do not want to be recorded, tell the staff before the talk begins. You may put your \
matter in writing, by telephone or in person instead. It is registered and handled in just the \
same way.

If you cannot hear or do not understand, press “Ask for help”.""",
)

_NOTICES = {Language.CHINESE: _ZH, Language.ENGLISH: _EN}


def notice_in(language: Language) -> Notice:
    """The current notice in `language`, or in Chinese where there is no checked translation."""
    return _NOTICES.get(language, _ZH)


def notice_text(notice: Notice, prefecture: OrgUnit | None, phone: str) -> str:
    """The notice with the responsible organ and its telephone filled in."""
    if notice.language is Language.ENGLISH:
        organ = f"The petition bureau of {prefecture.name_en if prefecture else 'the prefecture'}"
    else:
        organ = f"{prefecture.name_zh if prefecture else '接待您的'}信访局"
    return notice.text.format(organ=organ, phone=phone)


def record_notice(appointment: Appointment, given: NoticeGiven, *, now: datetime) -> None:
    """Keep which notice was shown. The first showing of a version counts; repeats change nothing.

    The language kept is the one the text was really in. Raises `NoticeOutdated`, `NotCheckedIn`.
    """
    if given.version != NOTICE_VERSION:
        raise NoticeOutdated(
            "The notice has a newer version. Please show that one.", version=NOTICE_VERSION
        )
    if appointment.state not in (AppointmentState.CHECKED_IN, AppointmentState.CALLED):
        raise NotCheckedIn("Please check in first.")
    if appointment.notice_version == given.version:
        appointment.notice_read_aloud = appointment.notice_read_aloud or given.read_aloud
        return
    appointment.notice_version = given.version
    appointment.notice_language = notice_in(given.language).language
    appointment.notice_shown_at = now
    appointment.notice_read_aloud = given.read_aloud
