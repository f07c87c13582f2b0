"""Small counts of two drills: nobody closes a book twice, and no flipped bit stays hidden."""

from bench import bitrot, race


def test_eight_processes_close_and_finish_the_same_recordings() -> None:
    *_, result = race.run(rounds=40, processes=8, finish_rounds=2, seed=7)
    assert result["ok"], result
    assert result["killed_closing"] >= 3 and result["looks"] > result["looks_before"] > 0


async def test_one_flipped_bit_in_each_of_forty_files_is_found() -> None:
    rows = [row async for row in bitrot.run(files=40, seed=7)]
    assert rows[-1]["ok"], rows
    assert all(rows[1][kind] == 10 for kind in bitrot.KINDS)
