"""The search finds the fastest of a machine that is made up, keeps within its budget, and says what it left out."""

import pytest

from segdist.machine.profile import Choices
from segdist.machine.search import RunnerFailed, Search, Space
from segdist.system.cpu import Cpu

AVX2 = Cpu("old", frozenset({"avx2", "fma"}))
BF16 = Cpu("new", AVX2.flags | {"avx512f", "avx512_bf16"})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class MadeUp:
    """Steps take what ``seconds_of`` says, starting takes 5 s; ``noise`` multiplies all that is stepped."""

    def __init__(self, clock, seconds_of, noise=lambda n: 1.0, room=True):
        self.clock, self.seconds_of, self.noise, self.room = clock, seconds_of, noise, room
        self.alive, self.steps, self.most = 0, 0, 0

    def start(self, choices, limit_s=300.0):
        seconds = self.seconds_of(choices)
        if isinstance(seconds, str):
            raise RunnerFailed(seconds)
        if choices.compile and limit_s < 60:
            self.clock.now += limit_s
            raise RunnerFailed(f"no step within {limit_s:.0f} s")
        self.clock.now += 60 if choices.compile else 5
        self.alive += 1
        self.most = max(self.most, self.alive)
        return MadeUpRunner(self, seconds)

    def room_for_more(self, peak_memory_mb):
        return self.room


class MadeUpRunner:
    peak_memory_mb = 1000.0

    def __init__(self, bench, seconds):
        self.bench, self.seconds = bench, seconds

    def step(self):
        self.bench.steps += 1
        took = self.seconds * self.bench.noise(self.bench.steps)
        self.bench.clock.now += took
        return took

    def close(self):
        self.bench.alive -= 1


def search(seconds_of, cpu=AVX2, budget=600.0, cores=4, images=4, allocators=("tuned", "tcmalloc", "glibc"), **options):
    clock, lines = Clock(), []
    bench = MadeUp(clock, seconds_of, **options)
    space = Space(cpu, cores, images, allocators, has_ipex=True, has_compiler=True)
    found = Search(bench, budget, lines.append, clock).run(Choices(allocator="tuned"), space)
    return found, bench, clock, lines


def seconds_of(choices):
    """channels_last 0.8, tcmalloc 0.9, spinning 1.1, two ranks 0.9, small buckets 0.95, compile 1.2."""
    return (
        (0.8 if choices.memory_format == "channels_last" else 1.0)
        * {"tcmalloc": 0.9, "glibc": 1.5}.get(choices.allocator, 1.0)
        * (1.1 if choices.wait == "active" else 1.0)
        * {1: 1.0, 2: 0.9, 4: 0.95}[choices.ranks]
        * (0.95 if choices.bucket_mb == 5 else 1.0)
        * (1.2 if choices.compile else 1.0)
    )


def test_the_fastest_of_each_stage_is_kept():
    found, bench, _, lines = search(seconds_of)
    best = found.choices
    assert (best.memory_format, best.allocator, best.wait, best.ranks, best.bucket_mb, best.compile) == (
        *("channels_last", "tcmalloc", "passive"),
        *(2, 5, False),
    )
    assert found.complete
    assert found.step_s == pytest.approx(seconds_of(best))
    assert bench.most == 2  # the best so far, and who challenges it
    assert bench.alive == 1
    assert any("1.25x as fast as" in line for line in lines)


def test_a_machine_that_slows_down_meanwhile_changes_nothing():
    found, _, _, _ = search(seconds_of, noise=lambda n: 1 + n / 20)
    assert (found.choices.memory_format, found.choices.allocator, found.choices.ranks) == (
        "channels_last",
        "tcmalloc",
        2,
    )


def test_bf16_is_tried_with_and_without_ipex_where_the_cpu_has_it():
    def fast_with_ipex(choices):
        return {("bf16", True): 0.5, ("bf16", False): 0.7}.get((choices.precision, choices.ipex), 1.0)

    found, _, _, _ = search(fast_with_ipex, BF16)
    assert (found.choices.precision, found.choices.ipex) == ("bf16", True)
    found, _, _, _ = search(fast_with_ipex, AVX2)
    assert (found.choices.precision, found.choices.ipex) == ("fp32", False)
    assert not any(trial.choices.ipex for trial in found.trials)


def test_the_search_ends_within_its_budget_with_the_best_so_far():
    found, _, clock, _ = search(seconds_of, budget=40.0)
    assert clock.now <= 40.0 + 5
    assert not found.complete
    left_out = [trial for trial in found.trials if trial.note == "not tried: the budget was over"]
    assert left_out
    assert found.choices.memory_format == "channels_last"


def test_what_cannot_run_is_noted_and_the_search_goes_on():
    found, bench, _, _ = search(lambda c: "no such library" if c.allocator == "tcmalloc" else seconds_of(c))
    assert [t.note for t in found.trials if t.choices.allocator == "tcmalloc"] == ["cannot run: no such library"]
    assert found.choices.ranks == 2
    assert bench.alive == 1


def test_what_is_clearly_slower_is_dropped_early():
    found, _, _, _ = search(lambda c: 2.0 if c.allocator == "glibc" else seconds_of(c))
    assert [len(t.seconds) for t in found.trials if t.choices.allocator == "glibc"] == [1]


def test_where_the_memory_holds_one_alone_nothing_is_compared():
    found, _, _, _ = search(seconds_of, room=False)
    assert found.choices == Choices(allocator="tuned")
    assert {t.note for t in found.trials[1:]} == {"not tried: the memory does not hold two of them"}


def test_the_first_choices_must_run():
    with pytest.raises(RunnerFailed, match="no torch"):
        search(lambda c: "no torch")
