"""Waiting after breaks: exponential, bounded, fresh after a sign of life. The clock and the waits are fakes."""

import threading

import pytest

from chainrule.client import DeadlineExceeded, ResourceExhausted, RetryPolicy, Unavailable
from chainrule.client.retry import Patience

POLICY = RetryPolicy(window_s=10.0, first_delay_s=1.0, max_delay_s=4.0)
LOST = Unavailable("lost")


class FakeClock(threading.Event):
    """An event whose waits take no time, and the clock they advance."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if not self.is_set():
            self.waits.append(timeout)
            self.now += timeout
        return self.is_set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def patience(clock: FakeClock) -> Patience:
    return Patience(POLICY, clock, clock=lambda: clock.now, jitter=lambda: 1.0)


def spend_all(patience: Patience) -> None:
    for _ in range(100):
        patience.spend(LOST)


def test_waits_double_up_to_the_longest_and_end_with_the_window(patience: Patience, clock: FakeClock) -> None:
    with pytest.raises(Unavailable, match="lost"):
        spend_all(patience)
    assert clock.waits == [1.0, 2.0, 4.0, 3.0]
    assert sum(clock.waits) == POLICY.window_s


def test_a_sign_of_life_gives_the_whole_window_again(patience: Patience, clock: FakeClock) -> None:
    patience.spend(LOST)
    patience.spend(LOST)
    clock.now += 50.0
    patience.restore()
    patience.spend(LOST)
    assert clock.waits == [1.0, 2.0, 1.0]


def test_a_wait_does_not_outlast_the_time_of_the_operation(patience: Patience, clock: FakeClock) -> None:
    patience.spend(LOST, at_most_s=0.25)
    assert clock.waits == [0.25]


def test_the_server_is_given_the_time_it_asks_for(patience: Patience, clock: FakeClock) -> None:
    patience.spend(Unavailable("going", retry_after_s=3.0))
    patience.spend(Unavailable("going", retry_after_s=0.5))
    assert clock.waits == [3.0, 2.0]


def test_refusals_are_no_silence(patience: Patience, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        patience.spend(ResourceExhausted("too many calls", retry_after_s=0.1))
    assert warnings(caplog) == []


def test_closing_ends_the_waiting(patience: Patience, clock: FakeClock) -> None:
    clock.set()
    patience.spend(LOST)
    assert clock.waits == []


def test_a_window_of_zero_never_tries_again(clock: FakeClock) -> None:
    with pytest.raises(Unavailable, match="lost"):
        Patience(RetryPolicy(window_s=0.0), clock).spend(LOST)
    assert clock.waits == []


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.name, record.getMessage()) for record in caplog.records if record.levelname == "WARNING"]


def test_a_server_that_does_not_answer_is_told_once_and_so_is_its_return(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    patience.spend(LOST)
    assert warnings(caplog) == []
    patience.spend(LOST)
    patience.spend(LOST)
    gone = ("chainrule.client", "the server does not answer; trying again for up to 9 s")
    assert warnings(caplog) == [gone]
    patience.restore()
    patience.restore()
    assert warnings(caplog) == [gone, ("chainrule.client", "the server answers again")]


def test_a_connection_that_is_cut_once_is_not_worth_a_word(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        patience.spend(LOST)
        patience.restore()
    assert warnings(caplog) == []


def test_a_server_that_hangs_is_told_at_once_with_the_time_that_is_left(
    patience: Patience, caplog: pytest.LogCaptureFixture
) -> None:
    silence = Unavailable("no answer")
    silence.__cause__ = DeadlineExceeded("silence")
    patience.spend(silence, at_most_s=4.0)
    assert warnings(caplog) == [("chainrule.client", "the server does not answer; trying again for up to 4 s")]


def test_many_failures_do_not_overflow() -> None:
    assert POLICY.delay_s(10_000) == 4.0
