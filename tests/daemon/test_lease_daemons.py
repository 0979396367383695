"""Two daemons, one account: two of the twenty takeovers that `make lease-proof` plays, and what its judge sees."""

from tests.lease_daemons import interleaved, play


def test_the_other_takes_over_after_a_kill_and_after_a_freeze_and_nothing_is_sent_twice(tmp_path):
    report = play(tmp_path, 2, kinds=("kill", "stop"))
    assert report.wrong == []
    assert (report.rounds, report.sessions) == (2, 3)
    assert max(report.takeovers_s) < 60, "10 s on a machine with nothing else to do: `make lease-proof` holds it to that"


def test_the_judge_sees_two_sessions_that_send_in_turns():
    assert interleaved(["q-main-1-1-0", "q-main-2-1-0", "q-main-2-2-0"]) == []
    assert interleaved(["q-main-1-1-0", "q-main-2-1-0", "q-main-1-2-0"]) == ["q-main-1-2-0 was taken after an order of session 2"]
