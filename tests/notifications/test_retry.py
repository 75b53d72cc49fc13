from crawlscope.notifications.retry import PAUSES_SECONDS, Reply, pause_before_next

HOUR = 3_600


def test_eight_attempts_within_about_a_day():
    assert len(PAUSES_SECONDS) + 1 == 8
    assert 24 * HOUR < sum(PAUSES_SECONDS) < 30 * HOUR


def test_pauses_grow_and_vary():
    pauses = {pause_before_next(2, Reply(500, "no")) for _ in range(20)}
    assert len(pauses) > 1
    assert all(pause and 300 <= pause <= 360 for pause in pauses)


def test_the_last_attempt_is_the_last():
    assert pause_before_next(7, Reply(None, "away")) is not None
    assert pause_before_next(8, Reply(None, "away")) is None
    assert pause_before_next(9, Reply(None, "away")) is None


def test_a_receiver_that_is_gone_is_not_asked_again():
    assert pause_before_next(1, Reply(410, "gone")) is None


def test_a_receiver_is_given_the_time_that_it_asks_for():
    assert pause_before_next(1, Reply(503, "later", 900)) == 900
    asked_for_less = pause_before_next(2, Reply(429, "later", 10))
    assert asked_for_less
    assert asked_for_less >= 300
