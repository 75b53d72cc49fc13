from crawlscope.core.restarts import MAX_DELAY_SECONDS, STEADY_SECONDS, Restarts


def test_delays_grow_until_the_process_ran_steadily() -> None:
    restarts = Restarts()
    delays = [restarts.delay_after(0.0) for _ in range(8)]
    assert delays == sorted(delays)
    assert delays[0] < 1 < delays[-1] == MAX_DELAY_SECONDS
    assert not restarts.was_steady
    assert restarts.delay_after(STEADY_SECONDS + 1) == delays[0]
    assert (restarts.failures, restarts.was_steady) == (1, True)
