"""Who is heard how often: the clock is passed in."""

from __future__ import annotations

from aggregator.limits import DEVICE, STRANGERS, Limits, Rate

FEW = Rate(burst=3, per_s=2)


def test_a_burst_is_heard_and_then_so_many_a_second() -> None:
    limits = Limits(FEW)
    assert [limits.admits("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limits.admits("a", 10.5) for _ in range(2)] == [True, False]
    assert [limits.admits("a", 11.5) for _ in range(3)] == [True, True, False]


def test_a_flood_is_over_for_a_device_when_it_ends() -> None:
    limits = Limits(FEW)
    heard = sum(limits.admits("a", second / 1000) for second in range(100_000))
    assert heard == 3 + 2 * 100 - 1
    assert limits.admits("a", 100.5)
    assert [limits.admits("a", 200.0) for _ in range(4)] == [True, True, True, False]


def test_one_device_takes_nothing_from_another_nor_from_strangers() -> None:
    limits = Limits(FEW, FEW)
    assert [limits.admits("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert [limits.admits("b", 0.0) for _ in range(4)] == [True, True, True, False]
    assert [limits.admits(None, 0.0) for _ in range(4)] == [True, True, True, False]


def test_all_strangers_together_are_one() -> None:
    limits = Limits(strangers=FEW)
    assert [limits.admits(None, 0.0) for _ in range(4)] == [True, True, True, False]
    assert limits.admits("known", 0.0)


def test_memory_is_bounded_and_the_longest_silent_are_forgotten() -> None:
    limits = Limits(FEW, most=100)
    for number in range(100_000):
        limits.admits(f"device-{number}", 0.0)
    assert len(limits._paid) == 100
    assert [limits.admits("device-99999", 0.0) for _ in range(3)] == [True, True, False]


def test_no_honest_device_is_touched_by_the_defaults() -> None:
    limits, now = Limits(), 0.0
    for _ in range(5000):  # the status of a whole fleet that comes at once, none of them known
        assert limits.admits(None, now)
    for _ in range(10 * 60 * 50):  # ten minutes of fifty rounds a second, four messages each
        assert all(limits.admits("a", now) for _ in range(4))
        now += 0.02
    assert DEVICE.burst >= 1000
    assert STRANGERS.burst >= 10_000
