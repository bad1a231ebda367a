"""Workers that are late or compute wrong: others compute what is theirs, and who stands alone is replaced."""

from __future__ import annotations

import pytest

from chainrule.server.training.contributions import Dispute, Verdict
from chainrule.server.training.crew import GRACE_S
from chainrule.server.training.policies import MAX_SPECULATIONS, Sight, Speculate, Waiting
from chainrule.server.training.reduction import Block
from tests.server.training.stand_ins import ENDPOINTS, FENCE, Team

# --- who is late -----------------------------------------------------------------------------------------------

WAITING = Waiting(3, (0, 1, 2, 3), seconds=2.0, usual_s=0.5)
HELP = Speculate(3, {2: (0, 1, 2, 3)}, {1: (0, 1, 2, 3)})


def test_what_is_known_of_the_workers_is_what_they_have_said() -> None:
    team = Team(workers=2)
    team.beats(2, 5, working=True)
    assert team.crew.sights == [
        Sight(1, (0, 1, 2, 3), -1, working=False),
        Sight(2, (4, 5, 6, 7), 5, working=True),
    ]


def test_others_compute_what_is_waited_for_and_partitions_compare() -> None:
    team = Team(workers=2)
    team.crew.help(HELP, WAITING)
    assert team.desk.told == [
        {"type": "watch", "tick": 3, "blocks": [{"start": 0, "size": 4}], "report": False},
    ]
    assert team.lines[2].last("compute") == {"tick": 3, "shards": (0, 1, 2, 3)}
    assert team.lines[1].last("late") == {"tick": 3}
    assert team.desk.notes == [
        (
            "straggler",
            "worker 1 on node 1 is late with shards 0 to 3 of step 4: 2.0 s where 0.500 s are usual; "
            "others compute them, too",
        )
    ]
    assert team.desk.losses == []


def test_who_is_late_again_and_again_is_replaced() -> None:
    team = Team(workers=2)
    for _ in range(MAX_SPECULATIONS - 1):
        team.crew.help(HELP, WAITING)
    assert team.desk.losses == []
    team.crew.help(HELP, WAITING)
    assert team.desk.losses == ["worker 1 on node 1 was late 3 times in a row"]


def test_who_keeps_up_is_late_no_more() -> None:
    team = Team(workers=2)
    for _ in range(MAX_SPECULATIONS - 1):
        team.crew.help(HELP, WAITING)
    team.beats(1, 4)
    team.crew.went_on(5)
    team.crew.help(HELP, WAITING)
    assert team.desk.losses == []


def test_who_has_been_left_behind_is_still_late() -> None:
    team = Team(workers=2)
    for _ in range(MAX_SPECULATIONS - 1):
        team.crew.help(HELP, WAITING)
    team.beats(1, 3)
    team.crew.went_on(9)
    team.crew.help(HELP, WAITING)
    assert len(team.desk.losses) == 1


def test_a_second_result_is_awaited_until_its_worker_has_gone_on_or_is_gone() -> None:
    team = Team(workers=2)
    assert not team.crew.awaits_second_results(0.0)
    team.crew.help(HELP, WAITING)
    assert team.crew.awaits_second_results(5e5)
    team.beats(1, 3)
    assert team.crew.awaits_second_results(1e6)
    team.beats(1, 4)
    assert team.crew.awaits_second_results(1e6)  # it may be on its way
    assert team.crew.awaits_second_results(1e6 + GRACE_S)
    assert not team.crew.awaits_second_results(1e6 + GRACE_S + 0.1)
    team.crew.help(HELP, WAITING)
    team.crew.lost(1)
    assert not team.crew.awaits_second_results(1e6)


def test_those_whose_shards_do_not_come_are_replaced() -> None:
    team = Team(workers=3)
    team.crew.replace_owners({0, 3}, "nothing has come of step 4 for 700 s")
    assert team.desk.losses == [
        f"worker {lease} on node {lease} hangs: nothing has come of step 4 for 700 s" for lease in (1, 2)
    ]
    assert team.shards == {3: tuple(range(8))}


# --- results that differ ---------------------------------------------------------------------------------------


def test_auditors_are_named_where_shards_are_audited() -> None:
    assert Team(workers=2).lines[1].last("assign")["auditors"] == {}
    team = Team(workers=2, audit_fraction=0.1)
    assert team.lines[1].last("assign")["auditors"] == {**dict.fromkeys(range(4), 2), **dict.fromkeys(range(4, 8), 1)}


def test_a_disputed_shard_is_computed_by_a_third() -> None:
    team = Team(workers=3, audit_fraction=1.0)
    team.crew.settle(Dispute(3, 4, Block(5), (1, 2)))
    assert team.lines[3].last("again") == {"tick": 3, "shard": 5}
    assert team.desk.notes == [
        (
            "corruption",
            "worker 1 on node 1 and worker 2 on node 2 differ in shard 5 of step 4; it is computed a third time",
        )
    ]
    assert team.desk.losses == []
    assert team.desk.roll_backs == []


def test_who_is_alone_decides_itself() -> None:
    team = Team(workers=1, audit_fraction=1.0)
    team.crew.settle(Dispute(3, 4, Block(5), (1, 1)))
    assert team.lines[1].last("again") == {"tick": 3, "shard": 5}


def test_who_has_computed_wrong_is_named_and_replaced() -> None:
    team = Team(workers=3, audit_fraction=1.0)
    team.crew.settle(Dispute(3, 4, Block(5), (2,), resolved=True))
    assert team.desk.notes == [
        ("corruption", "worker 2 on node 2 computed shard 5 of step 4 wrong: two other results agree")
    ]
    assert team.desk.losses == ["worker 2 on node 2 computes wrong"]
    assert sorted(team.shards) == [1, 3]


LATE = Dispute(3, 4, Block(4, 2), (1, 2), late=True, bucket=1, digests=("aa", "bb"))


def test_what_may_be_in_the_weights_takes_the_attempt_back() -> None:
    team = Team(workers=3)
    team.crew.settle(LATE)
    assert team.crew.suspicions == [LATE]
    assert team.desk.roll_backs == ["silent corruption in shards 4 to 5 of step 4"]
    assert team.desk.notes == [
        (
            "corruption",
            "worker 1 on node 1 and worker 2 on node 2 differ in shards 4 to 5 of step 4, "
            "which may be in the weights: back to the last checkpoint",
        )
    ]


def test_the_suspicious_step_is_audited_when_it_is_computed_again() -> None:
    team = Team(workers=2)
    team.crew.settle(LATE)
    team.crew.part_from_partitions("silent corruption")
    team.crew.introduce(FENCE + 1, ENDPOINTS)
    assert team.lines[1].last("partitions")["suspects"] == [3]
    for lease in (1, 2):
        team.crew.heard(lease, {"type": "joined", "fence": FENCE + 1})
    assert team.lines[1].last("assign")["auditors"][0] == 2


@pytest.mark.parametrize(("digest", "wrong"), [("aa", [2]), ("bb", [1]), ("cc", [1, 2])])
def test_a_verdict_names_whose_result_was_another(digest: str, wrong: list[int]) -> None:
    team = Team(workers=3)
    team.crew.settle(LATE)
    team.crew.judge(Verdict(3, Block(4, 2), 0, digest))  # of another bucket
    team.crew.judge(Verdict(2, Block(4, 2), 1, digest))
    team.crew.judge(Verdict(3, Block(4), 1, digest))
    assert team.desk.losses == []
    team.crew.judge(Verdict(3, Block(4, 2), 1, digest))
    assert team.desk.losses == [f"worker {lease} on node {lease} computes wrong" for lease in wrong]
    assert team.crew.suspicions == []


def test_one_that_is_gone_is_named_by_the_node_it_was_on() -> None:
    team = Team(workers=3)
    team.crew.settle(LATE)
    team.crew.lost(2)
    team.crew.judge(Verdict(3, Block(4, 2), 1, "aa"))
    assert team.desk.notes[-1] == (
        "corruption",
        "worker 2 on node 2 computed shards 4 to 5 of step 4 wrong: two other results agree",
    )
    assert team.desk.losses == ["worker 2 on node 2 is gone"]
