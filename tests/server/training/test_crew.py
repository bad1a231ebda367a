"""The workers of an attempt: who is there, who computes what, and what becomes of those who are lost, late or wrong."""

from __future__ import annotations

import time

import pytest

from chainrule.server.training import crew as crews
from chainrule.server.training.crew import MAX_REFUSED, MAX_UNLINKED, ROOM_TIMEOUT_S, START_LEASES
from chainrule.server.training.events import NO_ROOM, Failed, Started, WorkersChanged
from chainrule.server.training.fingerprint import to_json
from tests.server.training.stand_ins import ENDPOINTS, FENCE, FINGERPRINT, OTHER, FakeLine, Team


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for last words, nor before the next try."""
    monkeypatch.setattr(crews, "LAST_WORDS_S", 0.0)
    monkeypatch.setattr(crews, "UNLINKED_DELAY_S", 0.0)


# --- coming ----------------------------------------------------------------------------------------------------


def test_as_many_workers_are_asked_for_as_are_wanted() -> None:
    team = Team(workers=3, join=False)
    assert team.placement.workers == [1, 2, 3]
    assert team.crew.present == []


def test_a_worker_that_calls_is_told_where_the_partitions_are() -> None:
    team = Team(join=False)
    assert team.call(1).said == [
        {"type": "partitions", "fence": FENCE, "endpoints": ENDPOINTS, "suspects": []},
    ]
    assert team.crew.present == []


def test_shards_are_shared_evenly_by_those_who_have_joined() -> None:
    team = Team(workers=3, join=False)
    team.join(2)
    assert team.shards == {2: (0, 1, 2, 3, 4, 5, 6, 7)}
    team.join(1)
    assert team.shards == {1: (0, 1, 2, 3), 2: (4, 5, 6, 7)}
    team.join(3)
    assert team.shards == {1: (0, 1), 2: (2, 3, 4), 3: (5, 6, 7)}


def test_below_the_minimum_nobody_computes() -> None:
    team = Team(workers=3, min_workers=3, join=False)
    team.join(1)
    team.join(2)
    assert team.shards == {1: (), 2: ()}
    assert team.desk.events == []
    team.join(3)
    assert sum(map(len, team.shards.values())) == 8
    assert team.desk.events == [Started(3, to_json(FINGERPRINT))]
    team.crew.lost(2)
    assert team.shards == {1: (), 3: ()}
    assert team.desk.events[1:] == [WorkersChanged(2, "worker 2 on node 2 is gone", enough=False)]
    team.replace()
    assert sum(map(len, team.shards.values())) == 8
    assert team.desk.events[2:] == [WorkersChanged(3, "worker 4 on node 4 has joined", enough=True)]


def test_the_start_is_told_once() -> None:
    team = Team(workers=1)
    team.crew.lost(1)
    team.replace()
    assert [type(event) for event in team.desk.events] == [Started, WorkersChanged, WorkersChanged]


def test_workers_beyond_the_number_of_shards_have_none() -> None:
    team = Team(workers=9)
    assert [len(shards) for shards in team.shards.values()] == [1] * 8 + [0]
    team.crew.lost(1)
    assert [len(shards) for shards in team.shards.values()] == [1] * 8


def test_who_has_joined_partitions_that_are_gone_is_not_there() -> None:
    team = Team(join=False)
    team.call(1)
    team.crew.heard(1, {"type": "joined", "fence": FENCE - 1})
    assert team.crew.present == []


# --- going -----------------------------------------------------------------------------------------------------


def test_a_lost_workers_shards_go_to_the_others_and_another_is_started() -> None:
    team = Team(workers=2)
    team.crew.lost(1)
    assert team.shards == {2: tuple(range(8))}
    assert team.desk.told == [{"type": "revoke", "lease": 1}]
    assert not team.lines[1].open
    assert team.placement.ended == [1]
    assert team.desk.losses == ["worker 1 on node 1 is gone"]
    assert team.desk.recoveries == ["worker 1 on node 1 is gone; its shards went to the others"]
    assert team.placement.workers == [1, 2]
    team.replace()
    assert team.placement.workers == [1, 2, 3]
    assert team.shards == {2: (0, 1, 2, 3), 3: (4, 5, 6, 7)}


def test_no_lease_is_used_again() -> None:
    team = Team(workers=2)
    for _ in range(3):
        team.crew.lost(max(team.shards))
        team.replace()
    assert team.placement.workers == [1, 2, 3, 4, 5]
    assert sorted(team.shards) == [1, 5]


def test_to_lose_one_that_had_nothing_to_do_takes_no_recovery() -> None:
    team = Team(workers=2, join=False)
    team.join(1)
    team.call(2)
    team.crew.lost(2)
    assert team.desk.recoveries == []
    assert team.desk.losses == ["worker 2 on node 2 is gone"]


def test_a_worker_is_lost_once() -> None:
    team = Team(workers=2)
    team.placement.callbacks["worker 1"]("signal 9")
    team.crew.hung_up(1, team.lines[1])
    team.crew.lost(1)
    assert team.desk.losses == ["worker 1 on node 1 ended: signal 9"]


def test_a_line_that_ends_is_its_worker_lost() -> None:
    team = Team(workers=2)
    team.crew.hung_up(1, FakeLine(role="worker", lease=1))  # somebody else who said so
    assert sorted(team.shards) == [1, 2]
    team.crew.hung_up(1, team.lines[1])
    assert sorted(team.shards) == [2]


def test_who_was_given_up_is_not_let_in_any_more() -> None:
    team = Team(workers=2, join=False)
    team.join(1)
    team.crew.lost(2, "it did not come")
    line = team.call(2)
    assert not line.open
    assert line.said == []
    team.crew.heard(2, {"type": "joined", "fence": FENCE})
    assert sorted(team.shards) == [1]


def test_who_is_silent_for_longer_than_its_lease_is_lost() -> None:
    team = Team(workers=3, join=False)
    team.join(1)
    team.join(2)
    now_s = time.monotonic()
    team.crew.check(now_s + 4.9, 5.0)
    assert team.desk.losses == []
    team.crew.excuse(now_s + 4.0)  # nobody could be heard
    team.crew.check(now_s + 8.9, 5.0)
    assert team.desk.losses == []
    team.crew.check(now_s + 9.1, 5.0)
    assert team.desk.losses == [f"worker {lease} on node {lease} gave no sign of life for 5 s" for lease in (1, 2)]


def test_a_sign_of_life_begins_the_lease_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    team = Team(workers=2)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 3.0)
    team.beats(1, 0)
    team.crew.check(now_s + 6.0, 5.0)
    assert team.desk.losses == ["worker 2 on node 2 gave no sign of life for 5 s"]


def test_after_the_end_nobody_is_missed() -> None:
    team = Team(workers=2)
    team.crew.close()
    team.placement.callbacks["worker 1"]("it returned")
    team.crew.hung_up(2, team.lines[2])
    assert team.desk.losses == []


# --- scaling ---------------------------------------------------------------------------------------------------


def test_more_workers_join_while_the_others_go_on() -> None:
    team = Team(workers=1)
    team.crew.scale(3)
    assert team.placement.workers == [1, 2, 3]
    assert team.desk.notes == [("scaled", "from 1 to 3 workers, as asked")]
    assert team.shards == {1: tuple(range(8))}
    team.join(2)
    assert team.shards == {1: (0, 1, 2, 3), 2: (4, 5, 6, 7)}


def test_workers_leave_once_their_shards_are_others() -> None:
    team = Team(workers=3)
    team.log.clear()
    team.crew.scale(1)
    assert team.shards == {1: tuple(range(8))}
    assert [(line.who["lease"], message["type"]) for line, message in team.log] == [
        (1, "assign"),
        (2, "leave"),
        (3, "leave"),
    ]
    assert sorted(team.placement.ended) == [2, 3]
    assert team.desk.losses == []
    assert team.desk.told == []
    assert team.desk.events[-1] == WorkersChanged(1, "as asked", enough=True)
    team.placement.callbacks["worker 2"]("it returned")
    assert team.desk.losses == []


def test_those_who_have_not_come_yet_go_first() -> None:
    team = Team(workers=3, join=False)
    team.join(3)
    team.crew.scale(1)
    assert team.shards == {3: tuple(range(8))}
    assert sorted(team.placement.ended) == [1, 2]


def test_with_fewer_workers_than_the_minimum_as_asked_those_are_enough() -> None:
    team = Team(workers=3, min_workers=2)
    team.crew.scale(1)
    assert team.shards == {1: tuple(range(8))}
    assert team.desk.events[-1] == WorkersChanged(1, "as asked", enough=True)


def test_to_ask_for_what_there_is_changes_nothing() -> None:
    team = Team(workers=2)
    team.crew.scale(2)
    assert team.desk.notes == []
    assert team.placement.workers == [1, 2]


# --- room ------------------------------------------------------------------------------------------------------


def test_if_too_few_start_the_attempt_ends() -> None:
    team = Team(workers=3, min_workers=2, join=False)
    team.join(1)
    now_s = time.monotonic()
    team.beats(1, 0)
    team.crew.check(now_s + ROOM_TIMEOUT_S - 1.0, 1e6)
    assert team.desk.ends == []
    team.crew.check(now_s + ROOM_TIMEOUT_S + 1.0, 1e6)
    [end] = team.desk.ends
    assert isinstance(end, Failed)
    assert (end.reason, end.lost) == (NO_ROOM, False)
    assert end.message.startswith("1 of at least 2 workers started within 60 s")


def test_once_it_has_begun_it_waits_for_room_and_asks_again() -> None:
    team = Team(workers=2, join=False)
    team.join(1)
    now_s = time.monotonic()
    team.crew.excuse(now_s + 1e6)
    team.crew.check(now_s + START_LEASES * 5.0 - 1.0, 5.0)
    assert team.placement.workers == [1, 2]
    team.crew.check(now_s + START_LEASES * 5.0 + 1.0, 5.0)
    assert team.placement.workers == [1, 2, 3]
    assert team.placement.ended == [2]
    assert team.desk.ends == []
    assert team.desk.losses == []


# --- fingerprints ----------------------------------------------------------------------------------------------


def test_who_computes_other_bits_is_refused_and_named_with_the_difference() -> None:
    team = Team(workers=2, join=False)
    team.join(1)
    line = team.call(2, OTHER)
    assert [message["type"] for message in line.said] == ["leave"]
    assert team.desk.notes == [
        (
            "refused",
            "worker 2 on node 2 does not compute as the job began (kernels: onednn here, reference there); "
            "give it the same kernels, instruction set, threads and versions, or submit with exact: false",
        )
    ]
    assert team.placement.ended == [2]
    assert sorted(team.shards) == [1]
    assert team.desk.ends == []
    assert team.desk.losses == ["worker 2 on node 2 was refused"]


def test_what_the_job_began_with_decides() -> None:
    team = Team(workers=2, fingerprint=to_json(OTHER), join=False)
    assert team.call(1, OTHER).said[0]["type"] == "partitions"
    assert team.call(2, FINGERPRINT).said[0]["type"] == "leave"


def test_if_nobody_computes_as_the_job_began_the_attempt_ends() -> None:
    team = Team(workers=2, fingerprint=to_json(OTHER), join=False)
    team.call(1, FINGERPRINT)
    assert team.desk.ends == []  # another is to come
    team.call(2, FINGERPRINT)
    [end] = team.desk.ends
    assert isinstance(end, Failed)
    assert (end.reason, end.lost) == ("FINGERPRINT_MISMATCH", False)
    assert "kernels: reference here, onednn there" in end.message


def test_a_job_that_has_begun_tries_some_more_before_it_ends() -> None:
    team = Team(workers=1)
    team.crew.lost(1)
    for refused in range(MAX_REFUSED + 1):
        assert team.desk.ends == [], refused
        team.desk.replace()
        team.call(team.placement.workers[-1], OTHER)
    assert [end.reason for end in team.desk.ends if isinstance(end, Failed)] == ["FINGERPRINT_MISMATCH"]


def test_each_refusal_in_a_row_is_followed_by_a_longer_pause() -> None:
    team = Team(workers=2)
    team.crew.lost(1)
    assert team.desk.pauses == [0.0]
    for _ in range(3):
        team.desk.replace()
        team.call(team.placement.workers[-1], OTHER)
    assert team.desk.pauses[1:] == [1.0, 2.0, 4.0]
    team.replace()  # this one is admitted
    team.crew.lost(2)
    team.desk.replace()
    team.call(team.placement.workers[-1], OTHER)
    assert team.desk.pauses[-1] == 1.0
    assert team.desk.ends == []


def test_refusals_end_no_job_that_others_work_at() -> None:
    team = Team(workers=2)
    team.crew.lost(1)
    for _ in range(2 * MAX_REFUSED):
        team.desk.replace()
        team.call(team.placement.workers[-1], OTHER)
    assert team.desk.ends == []
    assert team.shards == {2: tuple(range(8))}


def test_a_job_that_need_not_be_exact_takes_them_all() -> None:
    team = Team(workers=2, exact=False, join=False)
    for lease, fingerprint in ((1, FINGERPRINT), (2, OTHER)):
        team.call(lease, fingerprint)
        team.crew.heard(lease, {"type": "joined", "fence": FENCE})
    assert sorted(team.shards) == [1, 2]
    assert team.desk.notes == []


# --- failures --------------------------------------------------------------------------------------------------


def test_what_one_worker_has_failed_at_another_tries() -> None:
    team = Team(workers=2)
    team.fails(1)
    assert team.desk.losses == ["worker 1 on node 1 failed: division by zero"]
    assert team.desk.ends == []
    assert team.shards == {2: tuple(range(8))}


def test_if_another_fails_in_the_same_way_the_job_does() -> None:
    team = Team(workers=3)
    team.fails(1)
    team.fails(2, tick=5)
    assert team.desk.ends == []
    team.fails(3)
    assert team.desk.ends == [
        Failed(
            "TRAINING_ERROR",
            "two workers failed in the same way: division by zero",
            "Traceback of 3",
            lost=False,
        )
    ]


# --- links -----------------------------------------------------------------------------------------------------


def test_when_the_partitions_are_gone_the_workers_wait_and_turn_to_others() -> None:
    team = Team(workers=2)
    team.crew.part_from_partitions("parameter server 0 is gone")
    assert team.crew.present == []
    assert team.desk.events[-1] == WorkersChanged(0, "parameter server 0 is gone", enough=False)
    team.crew.introduce(FENCE + 1, ENDPOINTS)
    for lease in (1, 2):
        assert team.lines[lease].last("partitions")["fence"] == FENCE + 1
        team.crew.heard(lease, {"type": "joined", "fence": FENCE})
    assert team.crew.present == []
    team.crew.heard(1, {"type": "joined", "fence": FENCE + 1})
    assert team.shards == {1: tuple(range(8))}


def test_who_calls_meanwhile_is_told_later() -> None:
    team = Team(workers=2, join=False)
    team.crew.part_from_partitions("parameter server 0 is gone")
    line = team.call(1)
    assert line.said == []
    team.crew.introduce(FENCE + 1, ENDPOINTS)
    assert line.heard("partitions") == 1


def test_a_worker_that_cannot_reach_a_partition_is_sent_there_again() -> None:
    team = Team(workers=2)
    team.crew.heard(1, {"type": "unlinked", "fence": FENCE})
    assert team.shards == {2: tuple(range(8))}
    assert team.lines[1].heard("partitions") == 2
    assert team.desk.losses == []
    team.crew.heard(1, {"type": "joined", "fence": FENCE})
    assert team.shards == {1: (0, 1, 2, 3), 2: (4, 5, 6, 7)}


def test_one_that_never_reaches_it_is_replaced() -> None:
    team = Team(workers=2)
    for _ in range(MAX_UNLINKED):
        team.crew.heard(1, {"type": "unlinked", "fence": FENCE})
    assert team.desk.losses == []
    team.crew.heard(1, {"type": "unlinked", "fence": FENCE})
    assert team.desk.losses == ["worker 1 on node 1 cannot reach the parameter server"]


def test_what_is_unlinked_from_partitions_that_are_gone_is_no_news() -> None:
    team = Team(workers=2)
    team.crew.heard(1, {"type": "unlinked", "fence": FENCE - 1})
    assert sorted(team.shards) == [1, 2]
