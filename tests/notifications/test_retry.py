from crawlscope.notifications.retry import DELAYS_SECONDS, Reply, delay_before_next

HOUR = 3_600


def test_eight_attempts_within_about_a_day():
    assert len(DELAYS_SECONDS) + 1 == 8
    assert 24 * HOUR < sum(DELAYS_SECONDS) < 30 * HOUR


def test_delays_grow_and_vary():
    delays = {delay_before_next(2, Reply(500, "no")) for _ in range(20)}
    assert len(delays) > 1
    assert all(delay and 300 <= delay <= 360 for delay in delays)


def test_the_last_attempt_is_the_last():
    assert delay_before_next(7, Reply(None, "unavailable")) is not None
    assert delay_before_next(8, Reply(None, "unavailable")) is None
    assert delay_before_next(9, Reply(None, "unavailable")) is None


def test_a_receiver_that_is_gone_is_not_asked_again():
    assert delay_before_next(1, Reply(410, "gone")) is None


def test_a_receiver_is_given_the_time_that_it_asks_for():
    assert delay_before_next(1, Reply(503, "later", 900)) == 900
    asked_for_less = delay_before_next(2, Reply(429, "later", 10))
    assert asked_for_less
    assert asked_for_less >= 300
