"""From the notice board to the room's door, over HTTP, as each person and the kiosk sees it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api import install_errors
from core.audit import AuditLine
from core.blobs import DirectoryBlobs
from core.clock import ManualClock
from core.db import Database
from core.edge import KIOSK_COOKIE, STAFF_COOKIE, Services
from core.grants import GrantKey
from core.identity import Account, Kiosk, RoleBinding, Staff, StaffSession, digest
from core.ids import AccountId, new_id
from core.settings import Settings
from core.store import Store, open_store
from scheduling import booking, routes, routes_attend
from scheduling.numbering import qr_text, read_number
from tests.support.prefecture import Prefecture, build_prefecture, publish_tomorrow

# Seven in the evening here, the day before the reception day.
EVE = datetime(2026, 5, 25, 11, 0, tzinfo=UTC)
NINE = datetime(2026, 5, 26, 1, 0, tzinfo=UTC)
DAY = "2026-05-26"


class House:
    """A running house without media: its clock, and a client for whoever asks."""

    def __init__(self, services: Services, clock: ManualClock, at: Prefecture) -> None:
        self.services = services
        self.database: Database = services.database
        self.store: Store = services.store
        self.clock = clock
        self.at = at
        self.app = FastAPI()
        self.app.state.services = services
        self.app.include_router(routes.router)
        self.app.include_router(routes_attend.router)
        install_errors(self.app)

    def client(self, cookies: dict[str, str] | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://here", cookies=cookies)

    async def as_staff(self, staff: Staff) -> httpx.AsyncClient:
        token = new_id()

        async def work(tx: AsyncSession) -> None:
            tx.add(
                StaffSession(
                    token_digest=digest(token), account_id=staff.account_id, created_at=EVE,
                    expires_at=EVE + timedelta(days=9),
                )
            )  # fmt: skip

        await self.database.run(work)
        return self.client({STAFF_COOKIE: token})

    async def as_kiosk(self, county_id: str, kiosk_id: str | None = None) -> httpx.AsyncClient:
        """The prefecture's kiosk, or a new one of a county."""
        token = new_id()

        async def work(tx: AsyncSession) -> None:
            if kiosk_id is None:
                tx.add(
                    Kiosk(
                        id=new_id(), name="二号机", county_id=county_id, enrolment_digest=None,
                        enrolment_expires_at=None, token_digest=digest(token), enrolled_at=EVE,
                        revoked_at=None, last_seen_at=None, help_asked_at=None,
                    )
                )  # fmt: skip
            else:
                await tx.execute(
                    update(Kiosk).where(Kiosk.id == kiosk_id).values(token_digest=digest(token))
                )

        await self.database.run(work)
        return self.client({KIOSK_COOKIE: token})

    def wait_until(self, moment: datetime) -> None:
        self.clock.advance(moment - self.clock.now())


@pytest.fixture
async def house(database: Database, tmp_path) -> AsyncIterator[House]:
    settings = Settings(
        _env_file=None, var_dir=tmp_path, secret="k" * 40, public_url="https://jiefang.example"
    )
    clock = ManualClock(EVE)
    services = Services(
        settings=settings, database=database, store=open_store(""),
        blobs=DirectoryBlobs(tmp_path), clock=clock, grant_key=GrantKey(settings.secret_bytes),
    )  # fmt: skip
    yield House(services, clock, await database.run(build_prefecture))
    await services.store.aclose()


@pytest.fixture
async def desk(house: House) -> httpx.AsyncClient:
    return await house.as_staff(house.at.desk)


@pytest.fixture
async def office(house: House) -> httpx.AsyncClient:
    return await house.as_staff(house.at.official)


@pytest.fixture
async def kiosk(house: House) -> httpx.AsyncClient:
    return await house.as_kiosk(house.at.county.id, house.at.kiosk.kiosk_id)


async def booked(house: House, by: httpx.AsyncClient, slot_id: str, **changes: object) -> dict:
    """Hold and confirm through the API."""
    held = (await by.post(f"/api/slots/{slot_id}/hold")).json()
    form = {
        "hold_token": held["token"], "matter": "草场边界", "county_id": house.at.county.id,
        "party": [{"name": "扎西", "relation": "petitioner", "phone": "13812345678"}],
    }  # fmt: skip
    response = await by.post("/api/appointments", json=form | changes)
    assert response.status_code == 201, response.text
    return response.json()


async def ready(house: House, kiosk: httpx.AsyncClient, number: str) -> str:
    """Check in at the kiosk and have the notice shown: the appointment's id."""
    visit = (await kiosk.post("/api/kiosk/check-in", json={"number": number})).json()
    given = {"version": visit["notice_version"], "language": "zh-CN", "read_aloud": True}
    url = f"/api/appointments/{visit['appointment_id']}"
    assert (await kiosk.post(f"{url}/notice", json=given)).status_code == 200
    return visit["appointment_id"]


async def test_the_scheduler_publishes_and_everyone_sees_the_day(house, desk, kiosk):
    scheduler = await house.as_staff(house.at.scheduler)
    form = {
        "official_id": house.at.official_id, "day": DAY, "starts": "09:00", "ends": "10:00",
        "place": "州信访局", "county_ids": [house.at.county.id], "publish": False,
    }  # fmt: skip
    made = await scheduler.post("/api/reception-days", json=form)
    assert (made.status_code, made.json()["state"]) == (201, "draft")
    assert (await desk.get(f"/api/reception-days?from={DAY}")).json() == []
    assert (await house.client().get("/api/public/days")).json() == []
    url = f"/api/reception-days/{made.json()['id']}"
    assert (await scheduler.post(f"{url}/publish")).json()["state"] == "published"
    board = (await house.client().get("/api/public/days")).json()
    assert [one["slots_free"] for one in board] == [4]
    for reader in (desk, kiosk):
        assert len((await reader.get(f"/api/reception-days?from={DAY}")).json()) == 1
        assert len((await reader.get(f"{url}/slots")).json()) == 4
    clash = await scheduler.post("/api/reception-days", json=form)
    assert (clash.status_code, clash.json()["code"]) == (409, "official_clash")
    assert (await desk.post(f"{url}/cancel", json={"reason": "x"})).status_code == 403
    assert (await scheduler.post(f"{url}/cancel", json={"reason": "会议"})).status_code == 200
    assert (await house.client().get("/api/public/days")).json() == []


async def test_a_taken_slot_is_answered_with_the_next_free_ones(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    await booked(house, desk, slots[0].id)
    refused = await kiosk.post(f"/api/slots/{slots[0].id}/hold")
    assert (refused.status_code, refused.json()["code"]) == (409, "slot_taken")
    assert [one["id"] for one in refused.json()["next_free"]] == [one.id for one in slots[1:4]]


async def test_a_hold_that_ran_out_answers_410(house, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    held = (await desk.post(f"/api/slots/{slots[0].id}/hold")).json()
    house.clock.advance(timedelta(minutes=5))
    form = {
        "hold_token": held["token"], "matter": "x", "county_id": house.at.county.id,
        "party": [{"name": "扎西", "relation": "petitioner"}],
    }  # fmt: skip
    late = await desk.post("/api/appointments", json=form)
    assert (late.status_code, late.json()["code"]) == (410, "hold_expired")


async def test_a_released_hold_is_free_for_the_next(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    held = (await desk.post(f"/api/slots/{slots[0].id}/hold")).json()
    assert (await desk.delete(f"/api/holds/{held['token']}")).status_code == 204
    assert (await kiosk.post(f"/api/slots/{slots[0].id}/hold")).status_code == 201


async def test_a_kiosk_books_for_itself_and_prints_a_slip(house, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    assert made["kiosk_id"] == house.at.kiosk.kiosk_id
    slip = await kiosk.get(f"/api/appointments/{made['id']}/slip.pdf")
    assert slip.headers["content-type"] == "application/pdf"
    assert slip.content.startswith(b"%PDF")


async def test_six_representatives_are_refused_with_limit_and_article(house, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    held = (await desk.post(f"/api/slots/{slots[0].id}/hold")).json()
    refused = await desk.post(
        "/api/appointments",
        json={
            "hold_token": held["token"], "matter": "x", "county_id": house.at.county.id,
            "party": [{"name": f"代表{n}", "relation": "representative"} for n in range(6)],
            "people_total": 6,
        },
    )  # fmt: skip
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many_representatives")
    assert (refused.json()["limit"], refused.json()["article"][-4:]) == (5, "第二十条")


async def test_on_the_day_number_and_qr_code_open_the_visit_and_name_nobody(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, desk, slots[0].id)
    house.wait_until(NINE)
    qr = qr_text(made["number"], house.services.settings.secret_bytes)
    for typed in (made["number"], made["number"].replace("-", " "), qr):
        visit = await kiosk.post("/api/kiosk/check-in", json={"number": typed})
        assert visit.status_code == 200, visit.text
        assert visit.json()["state"] == "checked_in"
        assert "扎西" not in visit.text and "138" not in visit.text
    again = await kiosk.get(f"/api/kiosk/visit/{made['id']}")
    assert again.json() == visit.json()


@pytest.mark.parametrize("typed", ["3328-260526-001-0", "RR1:33282605260011:AAAAAAAA", "你好你好"])
async def test_a_number_that_is_not_ours_is_answered_in_plain_words(house, kiosk, typed):
    assert read_number(typed) is None
    refused = await kiosk.post("/api/kiosk/check-in", json={"number": typed})
    assert (refused.status_code, refused.json()["code"]) == (404, "no_such_appointment")


async def test_whoever_tries_numbers_is_slowed_down(house, kiosk):
    answers = [
        (await kiosk.post("/api/kiosk/check-in", json={"number": "1234567"})).status_code
        for _ in range(routes_attend.WRONG_NUMBERS_PER_MINUTE + 1)
    ]
    assert answers[-2:] == [404, 429]


async def test_a_day_too_early_the_kiosk_says_which_day(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, desk, slots[0].id)
    refused = await kiosk.post("/api/kiosk/check-in", json={"number": made["number"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_today")
    assert (refused.json()["day"], refused.json()["starts"]) == (DAY, "09:00")


async def test_another_countys_kiosk_sends_the_party_to_its_own(house, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, desk, slots[0].id)
    house.wait_until(NINE)
    elsewhere = await house.as_kiosk(house.at.other_county.id)
    refused = await elsewhere.post("/api/kiosk/check-in", json={"number": made["number"]})
    assert (refused.status_code, refused.json()["code"]) == (400, "other_county")
    assert refused.json()["county"] == "甘孜县"
    assert (await elsewhere.get(f"/api/kiosk/visit/{made['id']}")).status_code == 403


async def test_a_kiosk_does_not_see_a_visit_that_another_serves(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, desk, slots[0].id)
    url = f"/api/appointments/{made['id']}"
    assert (await kiosk.get(url)).status_code == 403
    assert (await kiosk.get("/api/appointments")).json() == []
    house.wait_until(NINE)
    await kiosk.post("/api/kiosk/check-in", json={"number": made["number"]})
    assert (await kiosk.get(url)).status_code == 200


async def test_the_petitioner_enters_only_checked_in_and_told(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    url = f"/api/appointments/{made['id']}"
    house.wait_until(NINE)
    refused = await kiosk.post(f"{url}/enter")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_checked_in")
    assert (await desk.post(f"{url}/check-in")).json()["state"] == "checked_in"
    refused = await kiosk.post(f"{url}/enter")
    assert (refused.status_code, refused.json()["code"]) == (409, "notice_missing")
    await ready(house, kiosk, made["number"])
    assert (await kiosk.post(f"{url}/enter")).status_code == 200


async def test_each_gets_a_grant_for_what_it_is(house, desk, kiosk, office):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    house.wait_until(NINE)
    url = f"/api/appointments/{await ready(house, kiosk, made['number'])}/enter"
    grants = {}
    for name, client in {"petitioner": kiosk, "official": office, "desk": desk}.items():
        entered = (await client.post(url)).json()
        assert entered["ws_url"] == "wss://jiefang.example/signal"
        assert entered["room_id"] == made["id"]
        grant = house.services.grant_key.verify(entered["grant"], now=NINE)
        assert (grant.role, grant.official_id) == (name, house.at.official_id)
        grants[name] = grant
    assert grants["petitioner"].publish == ("camera", "microphone", "document")
    assert grants["official"].publish == ("camera", "microphone", "screen")
    assert grants["desk"].publish == ("camera", "microphone")
    assert [grants[name].may_admit for name in grants] == [False, True, False]
    assert [grants[name].may_end for name in grants] == [False, True, False]
    assert grants["petitioner"].label_zh == "来访人"
    assert len({one.participant_id for one in grants.values()}) == 3
    again = house.services.grant_key.verify((await kiosk.post(url)).json()["grant"], now=NINE)
    assert again.participant_id == grants["petitioner"].participant_id
    assert again.grant_id != grants["petitioner"].grant_id


async def test_an_official_who_does_not_preside_stays_outside(house, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    house.wait_until(NINE)
    await ready(house, kiosk, made["number"])

    async def another(tx: AsyncSession) -> Staff:
        # The same role at the same node, but of no office, like a deputy's secretary.
        other = (await build_person(tx, house.at)).account_id
        return Staff(other, "", None, house.at.official.roles)

    stranger = await house.as_staff(await house.database.run(another))
    for path in ("", "/waiting"):
        assert (await stranger.get(f"/api/appointments/{made['id']}{path}")).status_code == 403
    assert (await stranger.post(f"/api/appointments/{made['id']}/enter")).status_code == 403
    assert (await stranger.get(f"/api/appointments?day={DAY}")).json() == []
    assert (await stranger.get(f"/api/office/day?day={DAY}")).status_code == 404


async def build_person(tx: AsyncSession, at: Prefecture) -> Staff:
    account = Account(
        id=new_id(), username=new_id(), display_name="", password_hash="!", official_id=None,
        disabled_at=None,
    )  # fmt: skip
    tx.add(account)
    await tx.flush()
    role = at.official.roles[0]
    tx.add(RoleBinding(account_id=account.id, role=role.role, org_unit_id=role.org_unit_id))
    return Staff(AccountId(account.id), "", None, at.official.roles)


async def test_the_waiting_page_follows_the_queue_and_opens_with_the_official(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    first = await booked(house, desk, slots[0].id)
    mine = await booked(house, kiosk, slots[1].id)
    url = f"/api/appointments/{mine['id']}/waiting"
    house.wait_until(NINE - timedelta(minutes=10))
    await desk.post(f"/api/appointments/{first['id']}/check-in")
    await ready(house, kiosk, mine["number"])
    waiting = (await kiosk.get(url)).json()
    assert (waiting["people_before"], waiting["estimate_minutes"]) == (1, 25)
    assert (waiting["next_step"], waiting["room_open"]) == ("wait_here", False)

    house.wait_until(NINE + timedelta(minutes=3))  # nobody has been called: nothing honest to say
    waiting = (await kiosk.get(url)).json()
    assert (waiting["people_before"], waiting["estimate_minutes"]) == (1, None)

    async def called(tx: AsyncSession) -> None:
        await booking.mark_called(tx, first["id"], "s" * 32, now=house.clock.now())

    await house.database.run(called)
    assert (await kiosk.get(url)).json()["estimate_minutes"] == 15
    await house.database.run(lambda tx: booking.mark_held(tx, first["id"], now=house.clock.now()))
    await house.store.sadd(f"room:{mine['id']}:roles", "official")
    waiting = (await kiosk.get(url)).json()
    assert waiting["official_present"] and waiting["room_open"]
    assert (waiting["people_before"], waiting["next_step"]) == (0, "enter_now")


async def test_the_device_check_keeps_three_answers(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    url = f"/api/appointments/{made['id']}"
    answers = {"picture": True, "bar_moves": True, "heard_self": False}
    assert (await kiosk.post(f"{url}/device-check", json=answers)).status_code == 409
    house.wait_until(NINE)
    await ready(house, kiosk, made["number"])
    assert (await kiosk.post(f"{url}/device-check", json=answers)).status_code == 204
    seen = (await desk.get(url)).json()
    assert seen["device_check"] == answers
    assert (seen["notice"]["language"], seen["notice"]["read_aloud"]) == ("zh-CN", True)
    assert seen["party"][0]["phone_masked"] == "138****5678"


async def test_office_and_desk_see_the_day(house, kiosk, desk, office):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    day = (await office.get(f"/api/office/day?day={DAY}")).json()
    assert [one["id"] for one in day["appointments"]] == [made["id"]]
    assert day["reception_days"][0]["slots_free"] == 3
    board = (await desk.get(f"/api/desk/board?day={DAY}")).json()
    assert (board["county"]["code"], len(board["appointments"])) == ("513328", 1)
    house.wait_until(NINE)
    board = (await desk.get("/api/desk/board")).json()
    assert len(board["appointments"]) == 1


async def test_the_desk_sees_whose_line_is_away(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    house.wait_until(NINE)
    await ready(house, kiosk, made["number"])
    since = (house.clock.now() - timedelta(minutes=1)).isoformat()
    for role in ("petitioner", "official"):
        await house.store.set(f"room:{made['id']}:away:{role}", since)
    away = (await desk.get("/api/desk/alarms")).json()["away"]
    assert [each["role"] for each in away] == ["petitioner", "official"]
    assert {each["talk"]["appointment_id"] for each in away} == {made["id"]}
    assert {datetime.fromisoformat(each["since"]) for each in away} == {
        datetime.fromisoformat(since)
    }


async def test_the_desk_sees_whose_recording_is_in_trouble(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    house.wait_until(NINE)
    await ready(house, kiosk, made["number"])
    calm = (await desk.get("/api/desk/alarms")).json()
    assert calm == {"away": [], "recording": [], "excess": [], "is_anyone_talking": False}
    since = house.clock.now().isoformat()
    unheard = {"role": "petitioner", "track": "camera", "since": since}
    said = json.dumps({"since": since, "trouble": "disk_full", "unheard": [unheard]})
    await house.store.set(f"room:{made['id']}:recording", said)
    [alarm] = (await desk.get("/api/desk/alarms")).json()["recording"]
    assert (alarm["talk"]["number"], alarm["trouble"]) == (made["number"], "disk_full")
    assert alarm["talk"]["names"] == [one["name"] for one in made["party"]]
    assert [(one["role"], one["track"]) for one in alarm["unheard"]] == [("petitioner", "camera")]
    said = json.dumps({"role": "device", "since": since})
    await house.store.set(f"room:{made['id']}:excess", said)
    [alarm] = (await desk.get("/api/desk/alarms")).json()["excess"]
    assert (alarm["talk"]["number"], alarm["role"]) == (made["number"], "device")


async def test_cancelled_at_the_desk_the_visit_is_over_at_the_kiosk(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    url = f"/api/appointments/{made['id']}"
    assert (await kiosk.post(f"{url}/redirect", json={"reason": "法院"})).status_code == 403
    cancelled = await desk.post(f"{url}/cancel", json={"reason": "改天再来"})
    assert (cancelled.json()["state"], cancelled.json()["slot"]["state"]) == ("cancelled", "free")
    house.wait_until(NINE)
    refused = await kiosk.post("/api/kiosk/check-in", json={"number": made["number"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "appointment_over")
    refused = await kiosk.post(f"{url}/enter")
    assert (refused.status_code, refused.json()["code"]) == (409, "appointment_over")
    assert (await kiosk.get(f"{url}/waiting")).json()["next_step"] == "ended"


async def test_a_no_show_is_marked_by_the_desk_and_not_by_the_kiosk(house, kiosk, desk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    house.wait_until(NINE + timedelta(minutes=10))
    url = f"/api/appointments/{made['id']}/no-show"
    assert (await kiosk.post(url)).status_code == 403
    assert (await desk.post(url)).json()["state"] == "no_show"


async def test_the_notice_names_the_organ_and_falls_back_openly(house):
    shown = (await house.client().get("/api/notice?lang=bo")).json()
    assert shown["language"] == "zh-CN"
    assert "由甘孜藏族自治州信访局" in shown["text"]


async def test_the_calendar_says_what_a_date_is(house, desk):
    found = (await desk.get("/api/calendar?from=2026-10-01&to=2026-10-10")).json()
    assert [one["working"] for one in (found[0], found[7], found[9])] == [False, True, True]
    assert (found[9]["note"]["kind"], found[9]["note"]["announced"]) == ("adjusted_workday", True)
    refused = await desk.get("/api/calendar?from=2026-10-01&to=2020-01-01")
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_range")


async def test_the_public_signs_in_first(house):
    assert (await house.client().get("/api/officials")).status_code == 401


async def test_staff_of_the_place_let_a_device_in(house, desk, kiosk, office):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    url = f"/api/appointments/{made['id']}/device-grants"
    # Set up the evening before, long before the party is there.
    camera = await desk.post(url, json={"kind": "hall_camera"})
    assert camera.status_code == 201
    assert camera.json()["url"] == f"https://jiefang.example/whip/{made['id']}"
    grant = house.services.grant_key.verify(camera.json()["grant"], now=EVE)
    assert (grant.role, grant.publish) == ("device", ("camera", "microphone"))
    assert not grant.may_admit and not grant.may_end
    assert grant.expires_at == EVE + timedelta(hours=12)
    again = await office.post(url, json={"kind": "hall_camera"})
    assert again.json()["participant_id"] == camera.json()["participant_id"]

    screen = (await desk.post(url, json={"kind": "hall_screen", "first": "official"})).json()
    assert screen["url"] == f"https://jiefang.example/whep/{made['id']}"
    grant = house.services.grant_key.verify(screen["grant"], now=EVE)
    assert (grant.role, grant.publish, grant.watch) == ("display", (), ("official", "petitioner"))

    assert (await kiosk.post(url, json={"kind": "hall_camera"})).status_code == 403
    assert (await desk.post(url, json={"kind": "drone"})).status_code == 422
    async with house.database.reading() as tx:
        lines = await tx.scalars(select(AuditLine).where(AuditLine.action == "device_granted"))
        assert [line.details["device"] for line in lines] == [
            "hall_camera", "hall_camera", "hall_screen",
        ]  # fmt: skip


async def test_a_device_s_permission_is_listed_and_taken_back(house, desk, kiosk):
    slots = await publish_tomorrow(house.database, house.at, now=EVE)
    made = await booked(house, kiosk, slots[0].id)
    url = f"/api/appointments/{made['id']}/device-grants"
    assert (await desk.get(url)).json() == []
    camera = (await desk.post(url, json={"kind": "hall_camera"})).json()
    screen = (await desk.post(url, json={"kind": "hall_screen"})).json()
    listed = (await desk.get(url)).json()
    assert [(one["grant_id"], one["kind"]) for one in listed] == [
        (screen["grant_id"], "hall_screen"), (camera["grant_id"], "hall_camera"),
    ]  # fmt: skip
    assert all("grant" not in one for one in listed)  # the Grant itself is shown once
    assert (await kiosk.delete(f"{url}/{camera['grant_id']}")).status_code == 403
    assert (await desk.delete(f"{url}/{camera['grant_id']}")).status_code == 204
    assert (await desk.delete(f"{url}/{camera['grant_id']}")).status_code == 204  # twice is once
    back = {one["grant_id"]: one["taken_back_at"] for one in (await desk.get(url)).json()}
    assert back[camera["grant_id"]] is not None and back[screen["grant_id"]] is None
    gone = await desk.delete(f"{url}/{'0' * 32}")
    assert (gone.status_code, gone.json()["code"]) == (404, "no_such_device_grant")
    async with house.database.reading() as tx:
        lines = await tx.scalars(select(AuditLine).where(AuditLine.action == "device_revoked"))
        assert [line.details["grant_id"] for line in lines] == [camera["grant_id"]]
