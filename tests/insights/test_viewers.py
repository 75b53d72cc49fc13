from crawlscope.insights.viewers import MAX_WAITING, Viewers


async def test_a_slow_viewer_gets_the_newest_whole_in_its_place_among_other_events():
    viewers = Viewers()
    with viewers.joined() as viewer:
        for number in range(2 * MAX_WAITING):
            viewers.send(f"whole {number};".encode(), is_whole=True)
            if number in (3, 100):
                viewers.send(f"event {number};".encode())
        viewers.end()
        assert [events async for events in viewer.events()] == [
            f"event 3;event 100;whole {2 * MAX_WAITING - 1};".encode()
        ]


async def test_a_viewer_that_is_too_far_behind_is_dropped():
    viewers = Viewers()
    with viewers.joined() as viewer:
        for number in range(MAX_WAITING + 1):
            viewers.send(f"event {number};".encode())
        assert not viewers
        assert [events async for events in viewer.events()] == []
