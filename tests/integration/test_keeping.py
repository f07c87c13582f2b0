"""Keeping and deleting recordings, through the HTTP edge and the database, on both engines."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from dbos import DBOS
from pypdf import PdfReader
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from app.cli import cli
from app.database import alembic_config
from app.keeping import Keeper, erase_and_certify, table_of
from app.main import create_app
from cases import certificate, keeping, keeping_job, ledger, retention
from cases.keeping_model import Deletion
from cases.model import CaseEvent
from core import audit
from core.clock import ManualClock
from core.db import Database
from core.identity import Account, RoleBinding, StaffSession
from core.ids import CaseId, DeletionId
from core.settings import Settings
from media import erasure, manifest
from media.model import Recording, RecordingFile
from media.signing import Signer
from tests.integration.test_cases_http import House, make_house
from tests.support.matters import START, make_recording

CLOSED = datetime(2026, 6, 1, 2, tzinfo=UTC)
AFTER = datetime(2057, 1, 4, 2, tzinfo=UTC)
STAFF = (
    "public", "kiosk", "scheduler", "desk", "official", "transport", "reviewer", "archivist",
    "other_archivist", "admin",
)  # fmt: skip
WHY = {"words": "保管期已满，经鉴定无继续保存价值。"}


class Archive:
    """A house with one recorded talk whose case was closed in 2026."""

    def __init__(self, house: House, case_id: str, recording_id: str) -> None:
        self.house = house
        self.case_id = case_id
        self.recording_id = recording_id

    @property
    def directory(self) -> Path:
        return self.house.services.settings.recordings_dir / self.recording_id

    async def act(self, who: str, path: str, body: object = WHY) -> tuple[int, str]:
        """Status, and the new state or the problem's code."""
        answer = await self.house.ask(who, "POST", f"/cases/{self.case_id}/{path}", json=body)
        value = answer.json()
        return answer.status_code, value.get("code") or value["state"]

    async def view(self, who: str = "archivist") -> dict[str, object]:
        answer = await self.house.ask(who, "GET", f"/cases/{self.case_id}/keeping")
        assert answer.status_code == 200, answer.text
        value: dict[str, object] = answer.json()
        return value

    async def shelf(self, shelf: str, who: str = "archivist") -> list[str]:
        answer = await self.house.ask(who, "GET", f"/keeping?shelf={shelf}")
        return [item["case_id"] for item in answer.json()["items"]]

    async def confirm(self, who: str = "reviewer") -> tuple[int, str]:
        deletion = (await self.view())["deletion"]
        assert isinstance(deletion, dict)
        return await self.act(who, "deletion/confirm", {"deletion_id": deletion["id"]})

    async def sign_both(self) -> str:
        """Proposed and confirmed; the deletion's id."""
        assert (await self.act("archivist", "deletion")) == (201, "proposed")
        assert (await self.confirm()) == (200, "cooling")
        deletion = (await self.view())["deletion"]
        assert isinstance(deletion, dict)
        return str(deletion["id"])

    async def cool(self, hours: int) -> None:
        """The house stays open for so long, and its keeper looks every ten minutes."""
        for _ in range(hours * 6):
            self.house.clock.advance(timedelta(minutes=10))
            async with self.house.database.transaction() as tx:
                await keeping_job.count_cooling(tx, keeping.look(self.house.clock))

    async def be_cool(self) -> None:
        """As if all of `cool` had been lived through."""
        async with self.house.database.transaction() as tx:
            await tx.execute(update(Deletion).values(cooled_ms=72 * 3_600_000))

    async def decide(self, deletion_id: str) -> str | None:
        """As the attempt does whose turn it is."""
        async with self.house.database.reading() as tx:
            attempt = (await tx.get_one(Deletion, deletion_id)).attempts
        return await self.house.database.run(
            lambda tx: keeping_job.decide(
                tx, DeletionId(deletion_id), attempt, table_of(self.house.services),
                seen=keeping.look(self.house.clock),
            )
        )  # fmt: skip

    async def ripe(self) -> list[str]:
        async with self.house.database.reading() as tx:
            return [deletion_id for deletion_id, _ in await keeping_job.ripe(tx)]

    async def events(self, kind: str) -> list[CaseEvent]:
        async with self.house.database.reading() as tx:
            lines = await ledger.lines(tx, CaseId(self.case_id))
        assert ledger.first_break(lines) is None
        return [line for line in lines if line.kind == kind]


async def make_archive(database: Database, var_dir: Path) -> Archive:
    house = await make_house(database, var_dir)
    recording_id, _ = await make_recording(database, house.talk)
    case_id = await house.open_case()
    async with database.transaction() as tx:
        await ledger.append(
            tx, CaseId(case_id), now=CLOSED, kind="closed", actor="system", words="办结"
        )
        await tx.execute(update(StaffSession).values(expires_at=AFTER + timedelta(days=900)))
    archive = Archive(house, case_id, recording_id)
    archive.directory.mkdir(parents=True)
    manifest.close_book(
        archive.directory, sealed_at=START,
        signer=Signer.at(house.services.settings.signing_key_file),
    )  # fmt: skip
    (archive.directory / "p.l0001.s0000.rrj").write_bytes(b"packets")
    source = var_dir / "party"
    source.write_bytes(b"moving")
    house.services.blobs.put_file(f"recordings/{recording_id}/party-p.webm", source)
    house.clock.advance(AFTER - house.clock.now())
    # Its doors are open on that day too: somebody has signed in this morning.
    async with database.transaction() as tx:
        await audit.record(
            tx, now=AFTER - timedelta(hours=1), actor="system", action="sign_in",
            object_kind="account", object_id="archivist",
        )  # fmt: skip
    return archive


@pytest.fixture
async def archive(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Archive]:
    made = await make_archive(sqlite_database, tmp_path)
    yield made
    await made.house.client.aclose()


@pytest.fixture
async def both(database: Database, tmp_path: Path) -> AsyncIterator[Archive]:
    """As `archive`, on each engine in turn."""
    made = await make_archive(database, tmp_path)
    yield made
    await made.house.client.aclose()


async def test_two_people_and_seventy_two_hours_delete_a_recording_and_leave_a_certificate(
    both: Archive,
) -> None:
    house, case = both.house, f"/cases/{both.case_id}"
    book = (both.directory / "manifest.json").read_bytes()
    assert await both.shelf("due") == [both.case_id]
    deletion_id = await both.sign_both()
    assert (await both.shelf("due"), await both.shelf("asked")) == ([], [both.case_id])
    await both.cool(71)
    assert await both.ripe() == []
    assert await both.decide(deletion_id) is None
    await both.cool(1)
    assert await both.ripe() == [deletion_id]
    assert await both.decide(deletion_id) == both.recording_id
    assert (await both.view())["state"] == "deleting"
    assert (await both.act("reviewer", "deletion/cancel")) == (409, "deletion_decided")
    assert (await both.act("reviewer", "legal-holds")) == (409, "deletion_decided")
    made = await erase_and_certify(house.services, DeletionId(deletion_id), both.recording_id)
    assert await both.shelf("deleted") == [both.case_id]

    # What went, and what stays.
    assert sorted(path.name for path in both.directory.iterdir()) == [
        "certificate.json", "certificate.sig", "erased.json", "manifest.json", "manifest.sig",
    ]  # fmt: skip
    assert (both.directory / "manifest.json").read_bytes() == book
    assert house.services.blobs.keys_below(f"recordings/{both.recording_id}") == ()
    async with house.database.reading() as tx:
        recording = await tx.get(Recording, both.recording_id)
        assert recording is not None and recording.state == "expired"
        assert list(await tx.scalars(select(RecordingFile))) == []

    # The case stays and says so; the certificate tells all of it and holds.
    page = (await house.ask("official", "GET", case)).json()
    assert (page["recording"]["state"], page["recording"]["files"]) == ("expired", [])
    told = (await house.ask("official", "GET", f"{case}/deletion/certificate")).json()
    assert (told["files"], told["bytes"], told["sha256"]) == (2, 13, made.sha256)
    body = (await house.ask("desk", "GET", f"{case}/deletion/certificate.json")).content
    assert body == (both.directory / "certificate.json").read_bytes()
    assert certificate.holds(body, (both.directory / "certificate.sig").read_bytes())
    assert not certificate.holds(body + b" ", (both.directory / "certificate.sig").read_bytes())
    value = json.loads(body)
    assert (value["proposed"]["name"], value["confirmed"]["name"]) == (
        "archivist on duty", "reviewer on duty",
    )  # fmt: skip
    assert value["proposed"]["words"] == WHY["words"]
    assert value["cooling"]["counted_s"] >= 72 * 3600
    assert value["keep_until"] == "2056-12-31"
    assert [file["path"] for file in value["files"]] == [
        "p.l0001.s0000.rrj", f"blobs/recordings/{both.recording_id}/party-p.webm",
    ]  # fmt: skip
    assert "扎西" not in body.decode(), "a certificate names no petitioner"
    lines = await house.audit_lines("recording_deleted")
    assert [line.details["certificate_sha256"] for line in lines] == [made.sha256]
    assert [line.is_public for line in await both.events("recording_deleted")] == [True]

    # Completing again changes nothing; nothing can be asked for any more.
    again = await erase_and_certify(house.services, DeletionId(deletion_id), both.recording_id)
    assert again.body == made.body
    assert len(await house.audit_lines("recording_deleted")) == 1
    assert (await both.act("archivist", "deletion")) == (409, "deletion_decided")


async def test_the_certificate_is_a_paper_that_names_digests_and_basis(archive: Archive) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    assert await archive.decide(deletion_id)
    made = await erase_and_certify(
        archive.house.services, DeletionId(deletion_id), archive.recording_id
    )
    answer = await archive.house.ask(
        "transport", "GET", f"/cases/{archive.case_id}/deletion/certificate.pdf"
    )
    assert answer.status_code == 403, "this department has no part in the matter"
    answer = await archive.house.ask(
        "desk", "GET", f"/cases/{archive.case_id}/deletion/certificate.pdf"
    )
    path = archive.directory.parent / "c.pdf"
    path.write_bytes(answer.content)
    words = "".join(page.extract_text() for page in PdfReader(path).pages)
    packed = "".join(words.split()).replace("\u200b", "")
    assert "录音录像销毁证明" in packed
    assert "第二十四条" in packed
    assert made.sha256 in packed
    assert "archivistonduty" in packed


async def test_before_its_day_nothing_can_be_proposed(archive: Archive) -> None:
    archive.house.clock.advance(timedelta(days=-10))
    assert await archive.shelf("due") == []
    assert (await archive.view())["may"] == ["hold", "class"]
    assert (await archive.act("archivist", "deletion")) == (409, "not_due")


async def test_an_open_case_is_never_due(archive: Archive) -> None:
    async with archive.house.database.transaction() as tx:
        await tx.execute(update(CaseEvent).where(CaseEvent.kind == "closed").values(kind="replied"))
    assert await archive.shelf("due") == []
    assert (await archive.act("archivist", "deletion")) == (409, "not_due")


async def test_the_class_moves_the_day_and_the_newest_one_counts(both: Archive) -> None:
    path = f"/cases/{both.case_id}/keeping/class"
    for kind, until, due in (
        ("instruction", None, []),
        ("no_result", "2036-12-31", [both.case_id]),
        ("instruction", None, []),
        ("result", "2056-12-31", [both.case_id]),
    ):
        body = {"matter_class": kind, "words": "核对卷宗"}
        answer = await both.house.ask("archivist", "PUT", path, json=body)
        assert (answer.json()["keep_until"], await both.shelf("due")) == (until, due)
    assert len(await both.events("recording_classed")) == 4


async def test_nobody_gives_both_signatures_whatever_roles_they_hold(both: Archive) -> None:
    prefecture = both.house.prefecture
    async with both.house.database.transaction() as tx:
        tx.add(
            RoleBinding(
                account_id=prefecture.staff["archivist"], role="reviewer",
                org_unit_id=prefecture.units["513300"],
            )
        )  # fmt: skip
    assert (await both.act("archivist", "deletion")) == (201, "proposed")
    assert "confirm" not in (await both.view("archivist"))["may"]  # type: ignore[operator]
    assert (await both.confirm("archivist")) == (403, "same_person")
    async with both.house.database.reading() as tx:
        row = (await tx.scalars(select(Deletion))).one()
    with pytest.raises(IntegrityError, match="two_people"):
        async with both.house.database.transaction() as tx:
            await tx.execute(
                update(Deletion).values(confirmed_by=row.proposed_by, confirmed_at=AFTER)
            )


async def test_one_of_two_simultaneous_proposals_gets_through(both: Archive) -> None:
    answers = await asyncio.gather(
        *(both.house.ask("archivist", "POST", f"/cases/{both.case_id}/deletion", json=WHY)
          for _ in range(4))
    )  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def test_a_hold_stops_a_cooling_deletion_for_good(both: Archive) -> None:
    deletion_id = await both.sign_both()
    await both.be_cool()
    assert (await both.act("scheduler", "legal-holds", {"words": "另案需要"})) == (201, "hold")
    assert await both.decide(deletion_id) is None
    assert await both.ripe() == []
    assert (await both.act("archivist", "deletion")) == (409, "under_hold")
    holds = (await both.view())["holds"]
    assert isinstance(holds, list)
    lift = f"legal-holds/{holds[0]['id']}/lift"
    assert (await both.act("reviewer", lift)) == (200, "due")
    assert (await both.act("reviewer", lift)) == (409, "no_such_hold")
    assert await both.decide(deletion_id) is None, "lifting a hold revives nothing"
    view = await both.view()
    assert isinstance(view["past"], list)
    assert view["past"][0]["ended_words"] == "暂缓销毁"
    # Whoever asks by number and code reads that it stays, not why.
    (line,) = await both.events("deletion_stopped")
    assert (line.is_public, "另案" in line.words) == (True, False)
    assert all("另案" not in event.words for event in await both.events("recording_held"))


async def test_a_confirmation_of_something_else_than_was_read_is_refused(archive: Archive) -> None:
    assert (await archive.act("archivist", "deletion")) == (201, "proposed")
    deletion = (await archive.view())["deletion"]
    assert isinstance(deletion, dict)
    assert (await archive.act("archivist", "deletion/cancel")) == (200, "due")
    assert (await archive.act("archivist", "deletion", {"words": "另一个理由"})) == (
        201,
        "proposed",
    )
    body = {"deletion_id": deletion["id"]}
    answer = await archive.act("reviewer", "deletion/confirm", body)
    assert answer == (409, "no_deletion_proposed")


async def test_a_signatory_who_has_lost_the_role_stops_the_deletion(archive: Archive) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    async with archive.house.database.transaction() as tx:
        await tx.execute(
            update(Account).where(Account.username == "reviewer").values(disabled_at=AFTER)
        )
    assert await archive.decide(deletion_id) is None
    assert (await archive.view())["state"] == "due"


async def test_files_being_made_put_the_decision_off(archive: Archive) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    async with archive.house.database.transaction() as tx:
        await tx.execute(update(Recording).values(state="muxing"))
    assert await archive.decide(deletion_id) is None
    async with archive.house.database.transaction() as tx:
        await tx.execute(update(Recording).values(state="ready"))
        assert [attempts for _, attempts in await keeping_job.ripe(tx)] == [1]
    assert await archive.decide(deletion_id) == archive.recording_id


async def test_a_wall_clock_set_forward_by_a_week_shortens_nothing(archive: Archive) -> None:
    await archive.sign_both()
    clock = archive.house.clock
    monotonic = clock.monotonic_ns()
    clock.advance(timedelta(days=7))
    seen = keeping.look(ManualClock(clock.now(), monotonic + 60 * 10**9))
    await archive.house.database.run(lambda tx: keeping_job.count_cooling(tx, seen))
    deletion = (await archive.view())["deletion"]
    assert isinstance(deletion, dict)
    assert deletion["cooled_s"] == 60
    assert await archive.ripe() == []


async def test_nothing_is_erased_that_was_not_decided(archive: Archive) -> None:
    deletion_id = await archive.sign_both()
    with pytest.raises(retention.NothingProposed):
        await erase_and_certify(
            archive.house.services, DeletionId(deletion_id), archive.recording_id
        )
    assert (archive.directory / "p.l0001.s0000.rrj").is_file()


PERMITTED = {
    ("GET", "keeping"): {"archivist", "reviewer", "scheduler"},
    ("PUT", "keeping/class"): {"archivist"},
    ("POST", "legal-holds"): {"archivist", "reviewer", "scheduler"},
    ("POST", "legal-holds/none/lift"): {"archivist", "reviewer"},
    ("POST", "deletion"): {"archivist"},
    ("POST", "deletion/confirm"): {"reviewer"},
    ("POST", "deletion/cancel"): {"archivist", "reviewer", "scheduler"},
    ("POST", "deletion/retry"): {"archivist", "reviewer"},
    ("GET", "deletion/certificate"): {"archivist", "reviewer", "scheduler", "desk", "official"},
    ("GET", "deletion/certificate.json"): {
        "archivist", "reviewer", "scheduler", "desk", "official",
    },
    ("GET", "deletion/certificate.pdf"): {
        "archivist", "reviewer", "scheduler", "desk", "official",
    },
}  # fmt: skip


@pytest.mark.parametrize(("method", "path"), list(PERMITTED))
async def test_who_may_do_what(archive: Archive, method: str, path: str) -> None:
    """Every role, and an archivist of another county: refused before anything else is asked."""
    bodies = {
        "keeping/class": {"matter_class": "result", "words": "x"},
        "deletion/confirm": {"deletion_id": "none"},
    }
    options: dict[str, object] = {} if method == "GET" else {"json": bodies.get(path, WHY)}
    permitted = set()
    for who in STAFF:
        answer = await archive.house.ask(who, method, f"/cases/{archive.case_id}/{path}", **options)
        if answer.status_code not in (401, 403):
            permitted.add(who)
    assert permitted == PERMITTED[method, path]


async def test_the_list_shows_only_what_one_may_reach(archive: Archive) -> None:
    assert await archive.shelf("all") == [archive.case_id]
    assert await archive.shelf("all", "other_archivist") == []
    for who in ("admin", "desk", "official", "kiosk"):
        answer = await archive.house.ask(who, "GET", "/keeping")
        assert answer.status_code == 403


# The durable job.


@asynccontextmanager
async def serving(archive: Archive) -> AsyncIterator[Keeper]:
    """The house's own process, without a port; its keeper has looked once."""
    house = archive.house
    settings = Settings(
        var_dir=house.services.settings.var_dir, database_url=house.database.url, roles=("web",),
        port=0,
    )  # fmt: skip
    await asyncio.to_thread(command.stamp, alembic_config(house.database.url), "head")
    app = create_app(settings, clock=house.clock)
    async with app.router.lifespan_context(app):
        keeper: Keeper = app.state.keeper
        yield keeper


async def until(archive: Archive, state: str, keeper: Keeper | None = None) -> None:
    """Wait for this state; with `keeper`, as if its minutes were tenths of a second."""
    async with asyncio.timeout(60):
        while (await archive.view())["state"] != state:
            if keeper is not None:
                await keeper.look()
            await asyncio.sleep(0.1)


def jobs_of(deletion_id: str) -> dict[str, str]:
    """How each attempt's workflow ended. Call it in a thread, inside of `serving`."""
    found = DBOS.list_workflows(workflow_id_prefix=f"delete-{deletion_id}")
    return {job.workflow_id.rpartition("-")[2]: job.status for job in found}


async def test_the_job_is_started_by_the_keeper_and_survives_a_refusing_disk(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt fails at the disk; the next one, a minute later, begins where it stood."""
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    refused: list[Path] = []
    erase = erasure.erase

    def refuse_once(directory: Path, *rest: object, **named: object) -> erasure.Erasure:
        if not refused:
            refused.append(directory)
            raise OSError(5, "Input/output error")
        return erase(directory, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(erasure, "erase", refuse_once)
    house = archive.house
    async with serving(archive) as keeper:
        await until(archive, "deleted", keeper)
    assert len(refused) == 1
    async with house.database.reading() as tx:
        assert (await tx.scalars(select(Deletion.attempts))).all() == [1]
    assert (await archive.ripe()) == []
    assert [
        line.details["deletion_id"] for line in await house.audit_lines("recording_deleted")
    ] == [deletion_id]


async def test_a_process_that_died_after_the_decision_is_followed_by_one_that_finishes(
    archive: Archive,
) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    assert await archive.decide(deletion_id) == archive.recording_id
    async with serving(archive) as keeper:
        await until(archive, "deleted", keeper)
    assert erasure.is_erased(archive.directory)
    assert (archive.directory / "certificate.json").is_file()


async def test_an_unforeseen_error_halts_a_deletion_until_a_person_goes_on_with_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice over, and with a restart before anybody has noticed the first time."""
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    raised: list[str] = []
    is_broken = True
    erase = erasure.erase

    def break_off(directory: Path, *rest: object, **named: object) -> erasure.Erasure:
        if is_broken:
            raised.append(directory.name)
            raise RuntimeError("nobody thought of this")
        return erase(directory, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(erasure, "erase", break_off)
    async with serving(archive):  # its keeper looks once, and begins the first attempt
        async with asyncio.timeout(60):
            while await asyncio.to_thread(jobs_of, deletion_id) != {"0": "ERROR"}:
                await asyncio.sleep(0.1)
    first = len(raised)
    assert first > 0
    assert (await archive.view())["state"] == "deleting", "nobody has noticed yet"
    async with serving(archive) as keeper:
        await until(archive, "halted")
        for _ in range(3):
            await keeper.look()
        assert await asyncio.to_thread(jobs_of, deletion_id) == {"0": "ERROR"}, "it waits"
        view = await archive.view()
        assert view["may"] == ["retry"]
        deletion = view["deletion"]
        assert isinstance(deletion, dict)
        assert deletion["trouble"] == "RuntimeError: nobody thought of this"
        assert await archive.shelf("asked") == [archive.case_id]
        assert (await archive.act("reviewer", "deletion/cancel")) == (409, "deletion_decided")

        assert (await archive.act("archivist", "deletion/retry")) == (200, "deleting")
        assert (await archive.act("archivist", "deletion/retry")) == (409, "deletion_not_halted")
        await until(archive, "halted", keeper)
        assert len(raised) == 2 * first, "the second attempt was made once, and failed as well"

        is_broken = False
        assert (await archive.act("reviewer", "deletion/retry")) == (200, "deleting")
        await until(archive, "deleted", keeper)
        ended = {"0": "ERROR", "1": "ERROR", "2": "SUCCESS"}
        async with asyncio.timeout(60):  # what it did shows a moment before its workflow has ended
            while await asyncio.to_thread(jobs_of, deletion_id) != ended:
                await asyncio.sleep(0.1)
    lines = archive.house.audit_lines
    halts = [line.details["attempt"] for line in await lines("deletion_halted")]
    assert halts == [0, 1]
    assert len(await lines("deletion_retried")) == 2
    assert len(await lines("recording_deleted")) == 1
    assert await archive.ripe() == []


async def test_what_broke_off_before_the_decision_can_still_be_stopped(both: Archive) -> None:
    deletion_id = DeletionId(await both.sign_both())
    await both.be_cool()
    now = both.house.clock.now()
    halted = [
        await both.house.database.run(
            lambda tx: keeping_job.halt(tx, deletion_id, 0, "MemoryError: ", now=now)
        )
        for _ in range(2)
    ]
    assert halted == [True, False], "two keepers saw it: it is counted once"
    assert (await both.view())["state"] == "halted"
    assert (await both.view("reviewer"))["may"] == ["retry", "hold", "cancel"]
    assert await both.ripe() == []
    assert await both.decide(deletion_id) is None
    assert (await both.act("reviewer", "deletion/cancel")) == (200, "due")


async def test_an_attempt_that_is_over_decides_and_tells_nothing(both: Archive) -> None:
    """A process that was taken for dead goes on with an attempt after which another has begun."""
    deletion_id = DeletionId(await both.sign_both())
    await both.be_cool()
    database, clock = both.house.database, both.house.clock
    await database.run(lambda tx: keeping_job.note_trouble(tx, deletion_id, 0, "the first"))
    await database.run(lambda tx: keeping_job.note_trouble(tx, deletion_id, 0, "it again"))
    late = await database.run(
        lambda tx: keeping_job.decide(
            tx, deletion_id, 0, table_of(both.house.services), seen=keeping.look(clock)
        )
    )
    async with database.reading() as tx:
        row = await tx.get_one(Deletion, deletion_id)
    assert (late, row.decided_at, row.attempts, row.trouble) == (None, None, 1, "the first")
    assert await both.decide(deletion_id) == both.recording_id


# Clocks.


@asynccontextmanager
async def wrong_for_a_moment(clock: ManualClock, by: timedelta) -> AsyncIterator[None]:
    """The wall, and only the wall, is set forward by so much, and set right again."""
    passed_ns = clock.monotonic_ns()

    def stand_still() -> int:
        return passed_ns

    clock.advance(by)
    clock.monotonic_ns = stand_still  # type: ignore[method-assign]
    yield
    del clock.monotonic_ns
    clock.advance(-by)


async def test_a_clock_that_is_wrong_whenever_it_counts_makes_nothing_due(both: Archive) -> None:
    """Wrong for seconds, by three years, when a deletion is proposed, confirmed and decided."""
    clock = both.house.clock
    wrong_by = timedelta(days=3 * 366)
    clock.advance(-wrong_by)
    async with both.house.database.transaction() as tx:
        await tx.execute(delete(audit.AuditLine))
    assert (await both.act("archivist", "deletion")) == (409, "not_due")
    await look_at_clock(both)
    async with wrong_for_a_moment(clock, wrong_by):
        assert (await both.act("archivist", "deletion")) == (409, "clock_doubted")
    # As if it had got through: the next two moments refuse it too.
    async with both.house.database.transaction() as tx:
        tx.add(a_deletion(both))
    async with wrong_for_a_moment(clock, wrong_by):
        assert (await both.confirm()) == (409, "clock_doubted")
    async with both.house.database.transaction() as tx:
        reviewer = both.house.prefecture.staff["reviewer"]
        await tx.execute(update(Deletion).values(confirmed_by=reviewer, confirmed_at=clock.now()))
    await both.be_cool()
    async with wrong_for_a_moment(clock, wrong_by):
        assert await both.decide("d") is None
    deletion = (await both.view())["deletion"]
    assert isinstance(deletion, dict)
    assert "1098 days" in deletion["trouble"]


def a_deletion(archive: Archive) -> Deletion:
    return Deletion(
        id="d", recording_id=archive.recording_id, words="-", proposed_at=AFTER,
        proposed_by=archive.house.prefecture.staff["archivist"], cooled_ms=0, attempts=0,
    )  # fmt: skip


async def look_at_clock(archive: Archive, who: str = "archivist") -> dict[str, object]:
    answer = await archive.house.ask(who, "GET", "/keeping/clock")
    assert answer.status_code == 200, answer.text
    value: dict[str, object] = answer.json()
    return value


async def confirm_clock(archive: Archive, my_time: datetime, who: str = "reviewer") -> object:
    answer = await archive.house.ask(
        who, "POST", "/keeping/clock/confirm", json={"my_time": my_time.isoformat()}
    )
    return answer.json().get("code") or answer.json()["against"]


async def test_a_clock_in_doubt_stays_in_doubt_until_a_second_computer_agrees(
    both: Archive,
) -> None:
    clock = both.house.clock
    assert (await look_at_clock(both))["against"] is None
    async with wrong_for_a_moment(clock, timedelta(hours=2)):
        told = await look_at_clock(both)
        assert (told["against"], told["off_s"]) == ("monotonic", 7200)
        assert (await both.act("archivist", "deletion")) == (409, "clock_doubted")
        assert await confirm_clock(both, clock.now() - timedelta(hours=2)) == "clocks_disagree"
        assert await confirm_clock(both, clock.now(), "scheduler") == "forbidden"
        assert (await both.act("archivist", "deletion")) == (409, "clock_doubted")
        assert await confirm_clock(both, clock.now()) is None
        assert (await both.act("archivist", "deletion")) == (201, "proposed")
    (line,) = await both.house.audit_lines("clock_confirmed")
    assert (line.details["off_ms"], line.details["against"]) == (7_200_000, "monotonic")
    # Set right again it contradicts what was confirmed: whoever confirmed was wrong, or is now.
    assert (await both.confirm()) == (409, "clock_doubted")


async def test_a_clock_that_was_wrong_when_the_machine_started_is_believed_once_set_right(
    both: Archive,
) -> None:
    clock = both.house.clock
    async with wrong_for_a_moment(clock, timedelta(days=400)):
        assert (await look_at_clock(both))["against"] == "audit"
        assert (await both.act("archivist", "deletion")) == (409, "clock_doubted")
    assert (await look_at_clock(both))["against"] is None
    assert (await both.act("archivist", "deletion")) == (201, "proposed")


async def test_nothing_ripe_is_begun_while_the_clock_is_in_doubt(archive: Archive) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    clock = archive.house.clock
    async with wrong_for_a_moment(clock, timedelta(days=1)), serving(archive) as keeper:
        for _ in range(3):
            await keeper.look()
        assert await asyncio.to_thread(jobs_of, deletion_id) == {}
    (line,) = await archive.house.audit_lines("clock_doubted")
    assert line.details["off_ms"] == 86_400_000
    async with serving(archive) as keeper:
        await until(archive, "deleted", keeper)


async def test_verify_asks_of_a_deleted_recording_only_that_its_certificate_holds(
    archive: Archive,
) -> None:
    deletion_id = await archive.sign_both()
    await archive.be_cool()
    assert await archive.decide(deletion_id)
    await erase_and_certify(archive.house.services, DeletionId(deletion_id), archive.recording_id)
    command_line = ["recording", "verify", str(archive.directory)]
    found = CliRunner().invoke(cli, command_line)
    assert (found.exit_code, "deleted by the rules" in found.output) == (0, True)
    certificate_file = archive.directory / "certificate.json"
    certificate_file.write_bytes(certificate_file.read_bytes() + b" ")
    assert CliRunner().invoke(cli, command_line).exit_code == 1
