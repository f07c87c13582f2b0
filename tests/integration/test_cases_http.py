"""The routes after a call, through the HTTP edge: who may, what they get, what they are told."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from pypdf import PdfReader
from sqlalchemy import func, select

from app.api import Guard, install_errors
from cases import routes
from cases.intake import open_case
from cases.model import Material, Rating
from core import audit
from core.audit import AuditLine
from core.blobs import DirectoryBlobs
from core.clock import ManualClock
from core.db import Database
from core.edge import KIOSK_COOKIE, STAFF_COOKIE, Services
from core.grants import GrantKey
from core.ids import SessionId, new_id
from core.settings import Settings
from core.store import open_store
from media.model import Recording
from tests.support.matters import (
    START,
    TALK,
    Prefecture,
    Talk,
    make_prefecture,
    make_recording,
    make_talk,
)

NOW = START + TALK + timedelta(minutes=1)


@dataclass
class House:
    """A house with this room's routes only, one prefecture and one talk that has ended."""

    database: Database
    clock: ManualClock
    services: Services
    client: httpx.AsyncClient
    prefecture: Prefecture
    talk: Talk
    case_id: str = ""
    retried: list[str] = field(default_factory=list)

    async def ask(self, who: str, method: str, path: str, **options: object) -> httpx.Response:
        """A request by a member of staff, a kiosk, or the "public"."""
        cookie = KIOSK_COOKIE if "kiosk" in who else STAFF_COOKIE
        headers = {} if who == "public" else {"Cookie": f"{cookie}={who}"}
        headers |= options.pop("headers", {})  # type: ignore[arg-type,operator]
        return await self.client.request(method, f"/api{path}", headers=headers, **options)  # type: ignore[arg-type]

    async def open_case(self, talk: Talk | None = None) -> str:
        session_id = SessionId((talk or self.talk).session_id)
        case = await self.database.run(lambda tx: open_case(tx, session_id, now=self.clock.now()))
        return case.id

    async def audit_lines(self, action: str) -> list[AuditLine]:
        async with self.database.reading() as tx:
            assert await audit.verify(tx) is None
            return list(await tx.scalars(select(AuditLine).where(AuditLine.action == action)))


async def make_house(database: Database, var_dir: Path) -> House:
    settings = Settings(var_dir=var_dir, public_url="https://jiefang.example.cn")
    clock = ManualClock(NOW)
    services = Services(
        settings=settings, database=database, store=open_store(""),
        blobs=DirectoryBlobs(settings.blobs_dir), clock=clock, grant_key=GrantKey(b"k" * 32),
    )  # fmt: skip
    app = FastAPI()
    app.state.services = services
    install_errors(app)
    app.add_middleware(Guard)
    app.include_router(routes.router)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    prefecture = await make_prefecture(database)
    house = House(
        database, clock, services,
        httpx.AsyncClient(transport=transport, base_url="http://house"),
        prefecture, await make_talk(database, prefecture),
    )  # fmt: skip

    async def retry(recording_id: str) -> None:
        house.retried.append(recording_id)

    app.state.retry_recording = retry
    return house


@pytest.fixture
async def house(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[House]:
    made = await make_house(sqlite_database, tmp_path)
    yield made
    await made.client.aclose()


@pytest.fixture
async def both(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    """As `house`, on each engine in turn."""
    made = await make_house(database, tmp_path)
    yield made
    await made.client.aclose()


# What the kiosk shows when the talk is over.


async def test_the_kiosk_gets_number_and_code_as_soon_as_the_case_exists(both: House) -> None:
    path = f"/appointments/{both.talk.appointment_id}/outcome"
    before = (await both.ask("kiosk", "GET", path)).json()
    assert (before["state"], before["case_id"], before["query_code"]) == ("ended", None, None)
    case_id = await both.open_case()
    after = (await both.ask("kiosk", "GET", path)).json()
    assert after["case_id"] == case_id
    assert after["case_number"].startswith("513328-SP-20260525-00001-")
    assert len(after["query_code"]) == 8
    assert after["slip_url"] == f"/api/cases/{case_id}/slip.pdf"


async def test_an_appointment_that_was_never_called_has_no_session(house: House) -> None:
    answer = await house.ask("kiosk", "GET", f"/appointments/{new_id()}/outcome")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_session")


async def test_the_next_person_at_the_kiosk_finds_nothing(house: House) -> None:
    path = f"/sessions/{house.talk.session_id}"
    assert (await house.ask("other_kiosk", "GET", path)).status_code == 403
    assert (await house.ask("kiosk", "GET", path)).status_code == 200
    house.clock.advance(timedelta(hours=3))
    assert (await house.ask("kiosk", "GET", path)).status_code == 403


async def test_a_face_may_be_changed_and_is_kept_once(both: House) -> None:
    path = f"/sessions/{both.talk.session_id}/rating"
    taps = [both.ask("kiosk", "POST", path, json={"face": face}) for face in ("bad", "good")]
    assert {answer.status_code for answer in await asyncio.gather(*taps)} == {204}
    async with both.database.reading() as tx:
        assert await tx.scalar(select(func.count()).select_from(Rating)) == 1
    assert (await both.ask("official", "POST", path, json={"face": "good"})).status_code == 403


# Minutes and demands.


async def test_minutes_are_saved_by_revision_and_a_stale_edit_gets_the_current_text(
    house: House,
) -> None:
    path = f"/sessions/{house.talk.session_id}/minutes"
    first = await house.ask("official", "PUT", path, json={"summary": "甲", "revision": 0})
    assert (first.status_code, first.json()["revision"]) == (200, 1)
    stale = await house.ask("official", "PUT", path, json={"summary": "乙", "revision": 0})
    assert stale.status_code == 409
    assert (stale.json()["code"], stale.json()["summary"], stale.json()["revision"]) == (
        "minutes_changed", "甲", 1,
    )  # fmt: skip
    assert (await house.ask("desk", "GET", path)).json()["summary"] == "甲"


async def test_a_demand_becomes_a_promise_and_is_kept_by_its_owner_alone(both: House) -> None:
    created = await both.ask(
        "desk", "POST", f"/sessions/{both.talk.session_id}/demands",
        json={"text": "修路", "marked_at_ms": 61_000},
    )  # fmt: skip
    assert (created.status_code, created.json()["promise_state"]) == (201, None)
    demand = f"/demands/{created.json()['id']}"
    change = {
        "outcome": "by_date", "due_on": "2026-06-30", "answered_at_ms": 90_000,
        "owner_org_id": both.prefecture.units["513300-JT"],
    }  # fmt: skip
    assert (await both.ask("desk", "PATCH", demand, json=change)).status_code == 403
    promised = (await both.ask("official", "PATCH", demand, json=change)).json()
    assert (promised["promise_state"], promised["owner"]["name_zh"]) == ("open", "州交通运输局")
    assert (await both.ask("water", "POST", f"{demand}/kept")).status_code == 403
    await both.open_case()
    assert (await both.ask("transport", "POST", f"{demand}/kept")).json()["promise_state"] == "kept"
    late = await both.ask("official", "PATCH", demand, json={"due_on": "2026-07-30"})
    assert (late.status_code, late.json()["code"]) == (409, "promise_already_kept")


async def test_a_demand_of_a_talk_that_is_over_is_not_deleted(house: House) -> None:
    live = await make_talk(
        house.database, house.prefecture, ended=False, started_at=START + timedelta(minutes=10)
    )
    for talk, status in ((live, 204), (house.talk, 409)):
        made = await house.ask(
            "official", "POST", f"/sessions/{talk.session_id}/demands", json={"text": "修路"}
        )
        gone = await house.ask("official", "DELETE", f"/demands/{made.json()['id']}")
        assert gone.status_code == status


async def test_an_official_has_only_the_talks_they_presided_over(house: House) -> None:
    other = await make_talk(
        house.database, house.prefecture, official_id=house.prefecture.other_official_id,
        started_at=START + timedelta(hours=1),
    )  # fmt: skip
    case_id = await house.open_case(other)
    await make_recording(house.database, other)
    for method, path in (
        ("GET", f"/sessions/{other.session_id}"),
        ("GET", f"/sessions/{other.session_id}/minutes"),
        ("GET", f"/cases/{case_id}"),
        ("GET", f"/cases/{case_id}/recording"),
        ("GET", f"/cases/{case_id}/slip.pdf"),
    ):
        assert (await house.ask("official", method, path)).status_code == 403, path
        assert (await house.ask("public", method, path)).status_code == 401, path
        assert (await house.ask("other_desk", method, path)).status_code == 403, path


# Cases.


async def test_everyone_lists_their_own_cases_and_nobody_elses(both: House) -> None:
    far = await make_talk(
        both.database, both.prefecture, county="513322", started_at=START + timedelta(hours=1)
    )
    near_id, far_id = await both.open_case(), await both.open_case(far)

    async def listed(who: str, query: str = "") -> list[str]:
        answer = await both.ask(who, "GET", f"/cases{query}")
        assert answer.status_code == 200
        return [line["id"] for line in answer.json()["items"]]

    assert set(await listed("scheduler")) == set(await listed("reviewer")) == {near_id, far_id}
    assert await listed("desk") == [near_id]
    assert await listed("other_desk") == [far_id]
    assert set(await listed("official")) == {near_id, far_id}
    assert await listed("transport") == []
    transferred = await both.ask(
        "scheduler", "POST", f"/cases/{far_id}/transitions",
        json={"to": "transferred", "words": "请依法办理",
              "holder_org_id": both.prefecture.units["513300-JT"]},
    )  # fmt: skip
    assert transferred.status_code == 200
    assert await listed("transport") == [far_id]
    assert await listed("scheduler", "?state=registered") == [near_id]
    county = both.prefecture.units["513322"]
    assert await listed("scheduler", f"?county_id={county}") == [far_id]
    assert await listed("scheduler", "?q=513328-sp") == [near_id]
    assert await listed("scheduler", "?q=%25") == []
    assert (await both.ask("scheduler", "GET", "/cases?cursor=x")).json()["code"] == "bad_cursor"


async def test_a_long_list_comes_in_pages_without_gaps_or_repeats(
    both: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cases.listing.PAGE_SIZE", 2)
    expected = set()
    for n in range(5):
        talk = await make_talk(
            both.database, both.prefecture, started_at=START + timedelta(hours=n + 1)
        )
        expected.add(await both.open_case(talk))  # all at the same instant: ids break the tie
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"cursor": cursor} if cursor else {}
        page = (await both.ask("scheduler", "GET", "/cases", params=query)).json()
        seen += [line["id"] for line in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5
    assert set(seen) == expected


async def test_a_case_says_what_its_reader_may_do(both: House) -> None:
    case_id = await both.open_case()
    await make_recording(both.database, both.talk, state="failed")

    async def may(who: str) -> set[str]:
        answer = await both.ask(who, "GET", f"/cases/{case_id}")
        assert answer.status_code == 200, answer.text
        return set(answer.json()["may"])

    assert await may("scheduler") == {
        "print_slip", "replay", "retry_recording", "transition:transferred", "transition:assigned",
        "transition:accepted", "transition:not_accepted", "transition:redirected", "see_keeping",
    }  # fmt: skip
    assert await may("reviewer") == {"replay", "review", "retry_recording", "see_keeping"}
    assert await may("official") == {
        "print_slip", "write_minutes", "note_demands", "add_material", "replay",
    }  # fmt: skip
    assert await may("desk") == {"print_slip", "note_demands", "add_material"}
    assert (await both.ask("transport", "GET", f"/cases/{case_id}")).status_code == 403


async def test_a_case_counts_its_deadline_out_in_the_readers_language(house: House) -> None:
    case_id = await house.open_case()
    house.clock.advance(timedelta(days=3))
    chinese = (await house.ask("scheduler", "GET", f"/cases/{case_id}")).json()
    english = (await house.ask("scheduler", "GET", f"/cases/{case_id}?lang=en")).json()
    clock = chinese["clocks"][0]
    assert (clock["kind"], clock["article"], clock["days_left"]) == ("route", "22(1)", 12)
    assert clock["explanation"][0].startswith("《信访工作条例》第二十二条第一款")
    assert english["clocks"][0]["explanation"][0].startswith("Petition Regulations art. 22(1)")
    assert chinese["parties"] == [{"name": "扎西", "relation": "petitioner"}]
    assert {event["actor"] for event in chinese["events"]} == {"system"}


async def test_a_step_shows_who_took_it_by_the_name_they_sign_with(house: House) -> None:
    case_id = await house.open_case()
    moved = await house.ask(
        "scheduler", "POST", f"/cases/{case_id}/transitions",
        json={"to": "assigned", "words": "请于月底前报结果",
              "holder_org_id": house.prefecture.units["513300-JT"]},
    )  # fmt: skip
    body = moved.json()
    assert (body["state"], body["holder"]["name_zh"]) == ("assigned", "州交通运输局")
    step = next(event for event in body["events"] if event["kind"] == "assigned")
    assert step["actor"] == "scheduler on duty"
    assert step["words"] == "州交通运输局：请于月底前报结果"
    refused = await house.ask(
        "water", "POST", f"/cases/{case_id}/transitions", json={"to": "accepted", "words": "受理"}
    )
    assert refused.status_code == 403
    early = await house.ask(
        "transport", "POST", f"/cases/{case_id}/transitions", json={"to": "closed", "words": "办结"}
    )
    assert (early.status_code, early.json()["code"]) == (409, "step_not_permitted")
    assert "accepted" in early.json()["permitted"]


async def test_a_unit_that_objects_gives_the_case_back_and_no_longer_has_it(house: House) -> None:
    case_id = await house.open_case()
    path = f"/cases/{case_id}/transitions"
    await house.ask(
        "scheduler", "POST", path,
        json={"to": "transferred", "words": "转",
              "holder_org_id": house.prefecture.units["513300-SL"]},
    )  # fmt: skip
    objected = await house.ask(
        "water", "POST", path, json={"to": "objected", "words": "非我局职权"}
    )
    assert objected.json()["holder"]["name_zh"] == "州信访局"
    assert objected.json()["may"] == []
    assert (await house.ask("water", "GET", f"/cases/{case_id}")).status_code == 403


# Asking with number and code.


async def test_a_wrong_code_and_a_wrong_number_get_the_same_answer(both: House) -> None:
    await both.open_case()
    outcome = (await both.ask("kiosk", "GET", f"/sessions/{both.talk.session_id}")).json()
    number, code = outcome["case_number"], outcome["query_code"]
    right = await both.ask(
        "public", "POST", "/public/case-query", json={"number": number, "code": code}
    )
    assert right.status_code == 200
    wrong_code = f"{(int(code) + 1) % 10**8:08d}"
    answers = [
        await both.ask("public", "POST", "/public/case-query", json=asked)
        for asked in (
            {"number": number, "code": wrong_code},
            {"number": "513328-SP-20260525-00002-5", "code": code},
            {"number": "no number at all", "code": code},
            {"number": number, "code": "汉字不是数字"},
        )
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["code"] == "no_such_case"


async def test_an_answer_says_how_the_matter_stands_and_not_whose_it_is(house: House) -> None:
    await house.open_case()
    outcome = (await house.ask("desk", "GET", f"/sessions/{house.talk.session_id}")).json()
    number = outcome["case_number"].replace("-", "").lower()
    code = f"{outcome['query_code'][:4]} {outcome['query_code'][4:]}"
    answer = await house.ask(
        "public", "POST", "/public/case-query", json={"number": number, "code": code}
    )
    status = answer.json()
    assert (status["state"], status["holder_zh"]) == ("registered", "州信访局")
    assert (status["next_due_on"], status["number"]) == ("2026-06-09", outcome["case_number"])
    assert [event["kind"] for event in status["events"]] == ["registered", "clock_started"]
    assert "扎西" not in answer.text
    assert "on duty" not in answer.text


async def test_guessing_is_slowed_down_per_address(house: House) -> None:
    asked = {"number": "513328-SP-20260525-00001-5", "code": "00000000"}
    answers = [
        (await house.ask("public", "POST", "/public/case-query", json=asked)).status_code
        for _ in range(11)
    ]
    assert answers == [404] * 10 + [429]


# Materials.


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width: int = 64, height: int = 32, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "JPEG", **options)
    return buffer.getvalue()


async def upload(
    house: House, content: bytes, name: str = "page.jpg", who: str = "desk"
) -> httpx.Response:
    return await house.ask(
        who, "POST", f"/sessions/{house.talk.session_id}/materials",
        files={"file": (name, content)}, data={"title": "通知书", "marked_at_ms": "65000"},
    )  # fmt: skip


def left_behind(house: House) -> list[Path]:
    return [path for path in house.services.settings.blobs_dir.rglob("*") if path.is_file()]


async def test_a_picture_is_kept_upright_without_what_the_phone_wrote_into_it(house: House) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    exif[0x010F] = "a phone that knows where it is"
    answer = await upload(house, jpeg(exif=exif))
    assert answer.status_code == 201
    view = answer.json()
    assert (view["width"], view["height"], view["mime"]) == (32, 64, "image/jpeg")
    image = await house.ask("official", "GET", view["url"].removeprefix("/api"))
    assert image.headers["content-type"] == "image/jpeg"
    assert image.headers["cache-control"] == "no-store"
    assert len(image.content) == view["size_bytes"]
    assert b"a phone" not in image.content
    assert not Image.open(io.BytesIO(image.content)).getexif()
    assert (
        await house.ask("other_desk", "GET", view["url"].removeprefix("/api"))
    ).status_code == 403


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_every_kind_of_png_becomes_a_plain_one(house: House, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (7, 5)).save(buffer, "PNG")
    answer = await upload(house, buffer.getvalue(), "page.png")
    assert (answer.status_code, answer.json()["mime"]) == (201, "image/png")


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        pytest.param(png_header(65535, 65535), 413, "too_large", id="65535 squared"),
        pytest.param(png_header(7000, 7000), 400, "not_a_picture", id="pixels missing"),
        pytest.param(png_header(0, 0), 400, "not_a_picture", id="no pixels"),
        pytest.param(jpeg(640, 480)[:-400], 400, "not_a_picture", id="truncated"),
        pytest.param(b"<script>alert(1)</script>", 400, "not_a_picture", id="text"),
        pytest.param(b"", 400, "not_a_picture", id="empty"),
        pytest.param(gif(), 400, "not_a_picture", id="gif"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100, 400, "not_a_picture", id="garbage"),
        pytest.param(jpeg() + bytes(20 * 1024 * 1024), 413, "too_large", id="20 MiB and more"),
    ],
)
async def test_what_is_no_fair_picture_is_refused_and_leaves_nothing(
    house: House, content: bytes, status: int, code: str
) -> None:
    answer = await upload(house, content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert left_behind(house) == []
    async with house.database.reading() as tx:
        assert await tx.scalar(select(func.count()).select_from(Material)) == 0


async def test_an_archive_hidden_behind_a_picture_does_not_survive(house: House) -> None:
    answer = await upload(house, jpeg() + b"PK\x03\x04 hidden")
    image = await house.ask("desk", "GET", answer.json()["url"].removeprefix("/api"))
    assert b"hidden" not in image.content


async def test_a_page_of_a_second_that_never_was_is_refused_before_it_is_read(house: House) -> None:
    answer = await house.ask(
        "desk", "POST", f"/sessions/{house.talk.session_id}/materials",
        files={"file": ("a.jpg", jpeg())}, data={"title": "x", "marked_at_ms": "99999999"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (400, "outside_session")
    assert left_behind(house) == []


# Replay.


@dataclass
class Film:
    case_id: str
    recording_id: str
    file_id: str
    content: bytes = b"0123456789"

    @property
    def path(self) -> str:
        return f"/recording-files/{self.file_id}"


async def make_film(house: House) -> Film:
    case_id = await house.open_case()
    recording_id, file_id = await make_recording(house.database, house.talk)
    film = Film(case_id, recording_id, file_id)
    path = house.services.settings.blobs_dir / f"recordings/{recording_id}/party-p.webm"
    path.parent.mkdir(parents=True)
    path.write_bytes(film.content)
    return film


async def test_opening_a_replay_gives_everything_and_leaves_an_audit_line(both: House) -> None:
    film = await make_film(both)
    await both.ask(
        "desk", "POST", f"/sessions/{both.talk.session_id}/demands",
        json={"text": "修路", "marked_at_ms": 61_000},
    )  # fmt: skip
    answer = await both.ask("reviewer", "GET", f"/cases/{film.case_id}/recording")
    view = answer.json()
    assert view["duration_ms"] == 840_000
    assert [(mark["kind"], mark["at_ms"]) for mark in view["marks"]] == [
        ("join", 60_000), ("demand", 61_000),
    ]  # fmt: skip
    assert view["recording"]["gaps"][0]["cause"] == "network"
    assert view["recording"]["files"][0]["url"] == f"/api{film.path}"
    assert view["watermark"].startswith("reviewer on duty · 2026-05-25 09:15")
    lines = await both.audit_lines("replay_opened")
    assert [(line.object_id, line.actor) for line in lines] == [
        (film.case_id, f"account:{both.prefecture.staff['reviewer']}")
    ]


async def test_a_file_is_noted_once_per_person_and_a_stranger_gets_no_byte(house: House) -> None:
    film = await make_film(house)
    for _ in range(3):
        assert (await house.ask("reviewer", "GET", film.path)).content == film.content
    await house.ask("official", "GET", film.path, headers={"Range": "bytes=0-0"})
    for who, status in (
        ("desk", 403),
        ("transport", 403),
        ("admin", 403),
        ("kiosk", 403),
        ("public", 401),
    ):
        assert (await house.ask(who, "GET", film.path)).status_code == status
    assert len(await house.audit_lines("recording_file_read")) == 2


async def test_every_range_of_a_file_over_http(house: House) -> None:
    film = await make_film(house)
    size = len(film.content)
    for first in range(size + 2):
        for last in range(first, size + 2):
            answer = await house.ask(
                "reviewer", "GET", film.path, headers={"Range": f"bytes={first}-{last}"}
            )
            if first >= size:
                assert answer.status_code == 416
                assert answer.headers["content-range"] == f"bytes */{size}"
                assert answer.content == b""
                continue
            expected = film.content[first : last + 1]
            assert (answer.status_code, answer.content) == (206, expected)
            end = min(last, size - 1)
            assert answer.headers["content-range"] == f"bytes {first}-{end}/{size}"
            assert answer.headers["content-length"] == str(len(expected))


async def test_headers_keep_recordings_out_of_caches_and_sniffers(house: House) -> None:
    film = await make_film(house)
    for method in ("GET", "HEAD"):
        answer = await house.ask("reviewer", method, film.path, headers={"Range": "bytes=2-3"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "video/webm"
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (
        200,
        "10",
        b"",
    )


async def test_a_range_of_another_version_is_answered_with_the_whole(house: House) -> None:
    film = await make_film(house)
    etag = (await house.ask("reviewer", "HEAD", film.path)).headers["etag"]
    for if_range, status in ((etag, 206), ('"another"', 200), (f"W/{etag}", 200)):
        answer = await house.ask(
            "reviewer", "GET", film.path, headers={"Range": "bytes=2-3", "If-Range": if_range}
        )
        assert answer.status_code == status


async def test_a_recording_that_is_not_there_is_said_plainly(house: House) -> None:
    case_id = await house.open_case()
    answer = await house.ask("reviewer", "GET", f"/cases/{case_id}/recording")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_recording")
    _, file_id = await make_recording(house.database, house.talk)
    answer = await house.ask("reviewer", "GET", f"/recording-files/{file_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_recording")
    assert await house.audit_lines("recording_file_read") == []


async def test_coverage_grows_with_what_was_watched_and_is_each_reviewers_own(both: House) -> None:
    film = await make_film(both)
    path = f"/cases/{film.case_id}/playback"
    spans = [{"start_ms": 0, "end_ms": 420_000}, {"start_ms": 100, "end_ms": 200}]
    first = (await both.ask("reviewer", "POST", path, json={"spans": spans})).json()
    assert (first["watched_ms"], first["coverage_percent"]) == (420_000, 50)
    spans = [{"start_ms": 400_000, "end_ms": 9_000_000}]
    second = (await both.ask("reviewer", "POST", path, json={"spans": spans})).json()
    assert second["coverage_percent"] == 100
    assert (await both.ask("official", "POST", path, json={"spans": spans})).status_code == 403


async def test_findings_are_pinned_to_a_second_of_the_recording(house: House) -> None:
    film = await make_film(house)
    path = f"/cases/{film.case_id}/findings"
    made = await house.ask("reviewer", "POST", path, json={"at_ms": 5000, "text": "未告知期限"})
    assert (made.status_code, made.json()["author"]) == (201, "reviewer on duty")
    beyond = await house.ask("reviewer", "POST", path, json={"at_ms": 840_001, "text": "x"})
    assert (beyond.status_code, beyond.json()["code"]) == (400, "outside_recording")
    assert [finding["text"] for finding in (await house.ask("reviewer", "GET", path)).json()] == [
        "未告知期限"
    ]


async def test_only_a_failed_recording_is_retried(house: House) -> None:
    case_id = await house.open_case()
    recording_id, _ = await make_recording(house.database, house.talk, state="failed")
    path = f"/cases/{case_id}/recording/retry"
    assert (await house.ask("desk", "POST", path)).status_code == 403
    assert (await house.ask("scheduler", "POST", path)).json()["error"] == "磁盘已满"
    assert house.retried == [recording_id]
    async with house.database.transaction() as tx:
        (await tx.get_one(Recording, recording_id)).state = "ready"
    again = await house.ask("scheduler", "POST", path)
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_retry")
    assert house.retried == [recording_id]


# Paper and brief.


async def test_the_slip_carries_number_code_promise_and_telephone(both: House) -> None:
    created = await both.ask(
        "official", "POST", f"/sessions/{both.talk.session_id}/demands", json={"text": "修通村公路"}
    )
    await both.ask(
        "official", "PATCH", f"/demands/{created.json()['id']}",
        json={"outcome": "by_date", "due_on": "2026-06-01", "answer": "今年内动工",
              "owner_org_id": both.prefecture.units["513300-JT"]},
    )  # fmt: skip
    case_id = await both.open_case()
    outcome = (await both.ask("kiosk", "GET", f"/sessions/{both.talk.session_id}")).json()
    answer = await both.ask("kiosk", "GET", f"/cases/{case_id}/slip.pdf?lang=zh-CN")
    assert answer.headers["content-type"] == "application/pdf"
    pages = PdfReader(io.BytesIO(answer.content)).pages
    text = "".join("".join(page.extract_text() for page in pages).split())
    code = outcome["query_code"]
    for words in (
        outcome["case_number"], f"{code[:4]} {code[4:]}", "修通村公路", "限期解决", "今年内动工",
        "州交通运输局", "2026年6月1日 星期一", "Prefecture Transport Bureau", "0836-0000000",
    ):  # fmt: skip
        assert "".join(words.split()) in text, words
    assert "扎西" not in text


async def test_a_brief_shows_earlier_cases_of_the_same_people_with_open_promises_first(
    both: House,
) -> None:
    earlier = [
        await make_talk(
            both.database, both.prefecture, started_at=START + timedelta(hours=n), **same
        )
        for n, same in ((1, {"id_number": "ID-1"}), (2, {"phone": "139"}), (3, {"phone": "138"}))
    ]
    today = await make_talk(
        both.database, both.prefecture, started_at=START + timedelta(hours=5), id_number="ID-1",
        phone="139",
    )  # fmt: skip
    made = await both.ask(
        "official", "POST", f"/sessions/{earlier[0].session_id}/demands",
        json={"text": "补偿", "marked_at_ms": 0},
    )  # fmt: skip
    await both.ask(
        "official", "PATCH", f"/demands/{made.json()['id']}",
        json={"due_on": "2026-06-01", "owner_org_id": both.prefecture.units["513300-SL"]},
    )  # fmt: skip
    for talk in earlier:
        await both.open_case(talk)
        both.clock.advance(timedelta(minutes=1))
    answer = await both.ask("official", "GET", f"/appointments/{today.appointment_id}/brief")
    brief = answer.json()
    assert [case["open_promises"] for case in brief["earlier_cases"]] == [1, 0]
    assert (brief["competent_level"], brief["level_distance"]) == ("county", 1)
    assert brief["appointment"]["party"][0]["id_number_masked"] != "ID-1"
    assert (
        await both.ask("other_desk", "GET", f"/appointments/{today.appointment_id}/brief")
    ).status_code == 403
