"""The log takes whatever a job prints, keeps both ends of it, and gives it back by offset."""

from __future__ import annotations

import itertools
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from haein.cluster.backends.base import LogLine
from haein.cluster.backends.local import log_reading
from haein.cluster.backends.local.log import LONGEST_LINE, Log, Stream

from .stage import LocalStage, until

MIB = 1024 * 1024


def all_lines(folder: Path, step: int = MIB) -> list[LogLine]:
    offset, lines = 0, list[LogLine]()
    while True:
        chunk = log_reading.read(folder, offset, step)
        lines += chunk.lines
        if chunk.next >= chunk.end:
            return lines
        assert chunk.next > offset
        offset = chunk.next


def texts(folder: Path) -> list[str]:
    return [line.text for line in all_lines(folder)]


def write(folder: Path, *parts: bytes, cap: int = 16 * MIB) -> Log:
    log, stream = Log(str(folder), cap), Stream(b"o")
    for part in parts:
        log.take(stream, part, time.time())
    log.show(stream, time.time())
    return log


def test_lines_have_their_stream_and_their_time(local: LocalStage) -> None:
    before = time.time()
    launch, _ = local.run("echo one; sleep 0.2; echo two >&2")
    first, second = local.lines(launch)
    assert (first.stream, first.text, second.stream, second.text) == ("out", "one", "err", "two")
    assert before < first.at < second.at - 0.15 < time.time()


def test_bytes_that_are_not_utf8_are_kept_and_shown_replaced(local: LocalStage) -> None:
    launch, sight = local.run(r"printf 'a\377\376b\n\0c\n'; printf '\346\262\210\n'")
    assert sight.exit_code == 0
    assert local.said(launch) == ["a\ufffd\ufffdb", "\0c", "沈"]
    segment = next((local.folder(launch) / "log").iterdir())
    assert b"a\xff\xfeb" in segment.read_bytes()


def test_a_prompt_without_a_newline_appears_while_the_job_waits(local: LocalStage) -> None:
    launch = local.begin("printf 'Continue? '; sleep 600")
    until(lambda: local.said(launch) == ["Continue? "])


def test_the_newline_after_a_shown_prompt_is_no_empty_line(local: LocalStage) -> None:
    launch = local.begin("printf 'half'; sleep 0.6; echo; echo next")
    local.end_of(launch)
    assert local.said(launch) == ["half", "next"]


def test_the_last_words_without_a_newline_are_kept(local: LocalStage) -> None:
    launch, _ = local.run("echo a; printf b")
    assert local.said(launch) == ["a", "b"]


def test_a_progress_bar_is_no_giant_line(local: LocalStage) -> None:
    bar = r"for i in $(seq 3000); do printf '\r%d of 3000' $i; done; echo"
    launch, _ = local.run(bar)
    lines = local.said(launch)
    assert lines[-1] == "3000 of 3000"
    assert len(lines) < 100
    assert all(len(line) < 20 for line in lines)


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([b"a\r\nb\r\n"], ["a", "b"]),
        ([b"a\r", b"\nb\n"], ["a", "b"]),
        ([b"10%\r20%\r", b"30%\r", b"done\n"], ["done"]),
        ([b"10%\r20%\r"], ["20%"]),
        ([b"\n\n"], ["", ""]),
        ([b"a", b"b", b"c\nd"], ["abc", "d"]),
    ],
)
def test_line_ends_of_every_kind(tmp_path: Path, parts: list[bytes], shown: list[str]) -> None:
    write(tmp_path, *parts)
    assert texts(tmp_path) == shown


def test_a_line_longer_than_the_longest_is_split_between_characters(tmp_path: Path) -> None:
    text = "沈" * 20_000
    write(tmp_path, b"short\n" + text.encode() + b"\nshort\n")
    first, *pieces, last = texts(tmp_path)
    assert (first, "".join(pieces), last) == ("short", text, "short")
    assert max(len(piece.encode()) for piece in pieces) <= LONGEST_LINE
    assert len(pieces) == 4


def test_what_is_taken_in_any_pieces_is_given_back_whole(tmp_path: Path) -> None:
    chance = random.Random(7)
    lines = [bytes(chance.choices(b"ab +@o1", k=chance.choice([0, 1, 30, 3000]))) for _ in range(800)]
    data = b"\n".join(lines) + b"\n"
    cuts = sorted(chance.choices(range(len(data)), k=60))
    write(tmp_path, *(data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])))
    assert texts(tmp_path) == [line.decode() for line in lines]
    assert [line.text for line in all_lines(tmp_path, step=1)] == texts(tmp_path)


def test_any_offset_begins_at_a_whole_line_with_its_own_time(tmp_path: Path) -> None:
    log, stream = Log(str(tmp_path), 16 * MIB), Stream(b"o")
    for batch in range(25):
        log.take(stream, b"".join(b"%d:%d\n" % (batch, n) for n in range(batch)), 1000.0 + batch)
    whole = log_reading.read(tmp_path, 0, MIB)
    for offset in range(whole.end):
        chunk = log_reading.read(tmp_path, offset, MIB)
        assert offset <= chunk.start < offset + 40
        assert chunk.skipped == 0
        assert chunk.lines == whole.lines[len(whole.lines) - len(chunk.lines) :]
        assert all(line.at == 1000.0 + int(line.text.split(":")[0]) for line in chunk.lines)


def test_no_more_is_given_than_was_asked_for_but_at_least_a_line(tmp_path: Path) -> None:
    write(tmp_path, *(b"%d %s\n" % (number, b"x" * (number % 90)) for number in range(3000)))
    end, shown = log_reading.end_of(tmp_path), random.Random(4)
    for _ in range(200):
        start = log_reading.read(tmp_path, shown.randrange(end), 1).start
        before = log_reading.read(tmp_path, min(start + shown.randrange(9000), end), 1).start
        if before > start:
            chunk = log_reading.read(tmp_path, start, before - start)
            assert (chunk.start, chunk.next) == (start, before)
    one = log_reading.read(tmp_path, 0, 1)
    assert [line.text for line in one.lines] == ["0 "]


def test_a_negative_offset_gives_the_tail(tmp_path: Path) -> None:
    write(tmp_path, b"".join(b"line %05d\n" % n for n in range(5000)))
    chunk = log_reading.read(tmp_path, -100, 1000)
    assert [line.text for line in chunk.lines] == [f"line {n:05d}" for n in range(4992, 5000)]
    assert chunk.next == chunk.end


def test_the_cap_drops_the_middle_and_keeps_both_ends(tmp_path: Path) -> None:
    cap = 2 * MIB
    write(
        tmp_path,
        *(b"".join(b"line %07d\n" % n for n in range(at, at + 1000)) for at in range(0, 500_000, 1000)),
        cap=cap,
    )
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= cap
    lines = texts(tmp_path)
    assert (lines[0], lines[-1]) == ("line 0000000", "line 0499999")
    assert lines == sorted(set(lines))
    first = log_reading.read(tmp_path, 0, 10 * MIB)
    after = log_reading.read(tmp_path, first.next, 10 * MIB)
    assert after.skipped == after.start - first.next > 4 * MIB
    inside = log_reading.read(tmp_path, first.next + 100_000, 10 * MIB)
    assert (inside.start, inside.skipped) == (after.start, after.skipped - 100_000)


def test_a_line_still_being_written_is_not_read_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, b"whole\n")
    segment = next(tmp_path.iterdir())
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"@0000001732272289o torn")
    chunk = log_reading.read(tmp_path, 0, 1000)
    assert [line.text for line in chunk.lines] == ["whole"]
    assert chunk.next == chunk.end == size
    assert log_reading.read(tmp_path, size, 1000).end == size


def test_a_full_disk_costs_output_and_not_the_job(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log, stream = Log(str(tmp_path), 16 * MIB), Stream(b"o")
    log.take(stream, b"kept\n", 1.0)
    # The kernel refuses to let a file grow, as it does when there is no room.
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limit[1]))
    try:
        log.take(stream, b"one line that is too much for what is left\nanother\n", 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    log.take(stream, b"later\n", 3.0)
    first, second, told = texts(tmp_path)
    assert (first, second) == ("kept", "later")
    assert "could not be kept" in told


def test_a_flood_of_200_mb_goes_through_quickly_in_little_memory(local: LocalStage) -> None:
    launch = local.begin(
        "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 200000000"
    )
    sight = local.end_of(launch)
    assert sight.started_at
    assert sight.ended_at
    assert sight.log_bytes > 200_000_000
    assert 200 / (sight.ended_at - sight.started_at) > 25  # MB/s; 150 on an idle machine of two cores
    assert sum(file.stat().st_size for file in (local.folder(launch) / "log").iterdir()) <= 128 * MIB
    tail = local.backend.read_log(launch.attempt_id, -1000, 1000)
    assert tail.lines
    assert tail.next == tail.end


def test_a_log_keeps_its_readers_while_it_is_written_and_dropped() -> None:
    with_small_log = LocalStage(log_cap_mb=1)
    try:
        launch = with_small_log.begin(
            "for i in $(seq 60000); do echo line $i of a log that is dropped as it grows; done"
        )
        offset, seen = 0, []
        while True:
            chunk = with_small_log.backend.read_log(launch.attempt_id, offset, 64 * 1024)
            assert chunk.start >= offset
            seen += [int(line.text.split()[1]) for line in chunk.lines]
            offset = chunk.next
            if seen and seen[-1] == 60000:
                break
        assert seen == sorted(set(seen))
        assert seen[0] == 1
    finally:
        with_small_log.close()


def test_the_runner_stays_small(local: LocalStage) -> None:
    launch = local.begin("seq 200000; sleep 600")
    until(lambda: "200000" in [line.text for line in local.backend.read_log(launch.attempt_id, -1000, 1000).lines])
    rollup = Path(f"/proc/{local.runner(launch)}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 12 * 1024
