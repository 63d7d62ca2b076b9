"""Hand-over between threads, with and without losses."""

import threading
import time

import pytest

from proscale_deploy.runtime.streams.channel import Channel


def test_the_oldest_is_replaced_where_only_the_newest_counts() -> None:
    channel: Channel[int] = Channel(2, newest=True)
    assert all(channel.put(number) for number in range(5))
    assert channel.dropped == 3
    assert [channel.get(0), channel.get(0), channel.get(0)] == [3, 4, None]


def test_the_giver_waits_where_nothing_may_be_lost() -> None:
    channel: Channel[int] = Channel(2, newest=False)
    ahead: list[int] = []

    def give() -> None:
        for number in range(200):
            channel.put(number)
            ahead.append(number)
        channel.close()

    giver = threading.Thread(target=give)
    giver.start()
    taken = []
    while (number := channel.get(5)) is not None:
        # Two in the queue, one taken here, and one given but not yet noted.
        assert len(ahead) - len(taken) <= 4
        taken.append(number)
    giver.join()
    assert taken == list(range(200))
    assert channel.dropped == 0
    assert channel.ended


@pytest.mark.parametrize("discard", [False, True])
def test_closing_ends_both_sides(discard: bool) -> None:
    channel: Channel[str] = Channel(1, newest=False)
    channel.put("first")
    results: list[bool] = []
    giver = threading.Thread(target=lambda: results.append(channel.put("second")))
    giver.start()
    time.sleep(0.05)
    assert not results, "it waits"
    channel.close(discard=discard)
    giver.join(5)
    assert results == [False]
    assert channel.ended == discard
    assert channel.get() == (None if discard else "first")
    assert channel.get() is None
    assert channel.put("third") is False


def test_a_taker_waits_no_longer_than_it_wants() -> None:
    channel: Channel[int] = Channel(1, newest=True)
    start = time.perf_counter()
    assert channel.get(0.1) is None
    assert time.perf_counter() - start >= 0.1
    assert not channel.ended


def test_a_taker_is_woken() -> None:
    channel: Channel[int] = Channel(1, newest=True)
    timer = threading.Timer(0.05, channel.put, [7])
    timer.start()
    assert channel.get() == 7
    timer.join()
