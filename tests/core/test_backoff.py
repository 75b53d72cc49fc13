from crawlscope.core.backoff import backoff


def test_doubles_from_the_first_delay_to_the_maximum() -> None:
    delays = [backoff(failures, first_seconds=0.5, max_seconds=3.0) for failures in range(6)]
    assert delays == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff(10**9, first_seconds=0.5, max_seconds=3.0) == 3.0


def test_jitter_only_shortens_a_delay() -> None:
    delays = {backoff(3, first_seconds=1.0, max_seconds=60.0, jitter=0.5) for _ in range(50)}
    assert len(delays) > 1
    assert all(2.0 <= delay <= 4.0 for delay in delays)
