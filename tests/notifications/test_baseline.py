from crawlscope.notifications.baseline import Baseline, Run, exceeded_baseline

USUAL = [Run(10, 20_000), Run(10, 10_000), Run(12, 30_000)]


def test_a_run_is_slow_beyond_twice_the_median():
    assert exceeded_baseline(Run(10, 40_000), USUAL) is None
    assert exceeded_baseline(Run(10, 40_001), USUAL) == Baseline(20_000, 3)


def test_too_few_runs_are_no_baseline():
    assert exceeded_baseline(Run(10, 1e9), USUAL[:2]) is None


def test_crawls_of_another_size_do_not_count():
    single_pages = [Run(1, 1_000)] * 9
    assert exceeded_baseline(Run(10, 40_001), single_pages) is None
    assert exceeded_baseline(Run(10, 40_001), [*single_pages, *USUAL]) == Baseline(20_000, 3)


def test_crawls_without_pages_compare_with_their_like():
    assert exceeded_baseline(Run(0, 60_000), [Run(0, 1_000)] * 3) == Baseline(1_000, 3)


def test_small_crawls_may_vary():
    assert exceeded_baseline(Run(1, 5_900), [Run(1, 1_000)] * 3) is None
    assert exceeded_baseline(Run(1, 6_100), [Run(1, 1_000)] * 3) == Baseline(1_000, 3)


def test_only_the_latest_runs_count():
    latest, former = [Run(10, 60_000)] * 10, [Run(10, 1_000)] * 40
    assert exceeded_baseline(Run(10, 61_000), latest + former) is None
