"""Tests of how compare.py times, compares and counts, without PyTorch and without a clock: python3 bench/compare_test.py"""

import functools
import math
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import limits
import timing


class Clock:
    """Takes the place of the module `time`; work is what moves it on."""

    def __init__(self):
        self.now = 0.0
        self.sleep = self.work = self.advance

    def advance(self, seconds):
        self.now += seconds

    def perf_counter(self):
        return self.now


def variant(clock, seconds, slow=0, cold=0.0):
    """A step of so many seconds; its first `slow` calls take one more, and `cold` more is taken after each pause."""
    calls, paused = [], [False]
    sleep = clock.sleep

    def pause(length):
        paused[0] = True
        sleep(length)

    def step(i):
        clock.work(seconds + (1.0 if len(calls) < slow else 0.0) + (cold if paused[0] else 0.0))
        paused[0] = False
        calls.append(i)

    clock.sleep = pause
    step.calls = calls
    return step


class TimingTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        patch = mock.patch.object(timing, "time", self.clock)
        patch.start()
        self.addCleanup(patch.stop)

    def count(self, budget=0.3, **options):
        return timing.calibrate(functools.partial(timing.seconds_of, variant(self.clock, **options)), budget)

    def test_compilation_in_the_first_call_does_not_change_the_count(self):
        self.assertEqual(self.count(seconds=0.003), 100)
        for slow in range(1, timing.FIRST_CALLS + 1):
            self.assertEqual(self.count(seconds=0.003, slow=slow), 100)

    def test_counts_are_of_calls_that_fill_the_budget(self):
        self.assertEqual(self.count(seconds=2.0), 1)
        self.assertEqual(self.count(seconds=0.15), 2)
        self.assertEqual(self.count(seconds=1e-9), 20000)

    def test_every_side_is_timed_warm(self):
        steps = {"stet": variant(self.clock, 0.002, cold=5.0), "peer": variant(self.clock, 0.5, cold=5.0)}
        runs = {n: functools.partial(timing.seconds_of, s) for n, s in steps.items()}
        times = timing.in_turn(runs, {"stet": 150, "peer": 1}, 3)
        for name, seconds in (("stet", 0.002), ("peer", 0.5)):
            self.assertEqual(len(times[name]), 3)
            for t in times[name]:
                self.assertAlmostEqual(t, seconds)
        self.assertEqual([len(steps[n].calls) for n in steps], [3 * (30 + 150), 3 * (1 + 1)])

    def test_a_program_that_warms_itself_up_runs_once_a_round(self):
        step = variant(self.clock, 7.0)
        step.seconds = 0.25
        run = functools.partial(timing.seconds_of, step)
        self.assertEqual(timing.in_turn({"llm.c": run}, {"llm.c": 1}, 2, themselves=("llm.c",)), {"llm.c": [0.25, 0.25]})
        self.assertEqual(len(step.calls), 2)


class DifferenceTest(unittest.TestCase):
    def test_the_largest_relative_difference(self):
        self.assertAlmostEqual(timing.difference([1.0, 2.02, -4.0], [1.0, 2.0, -4.0], 3), 0.01)
        self.assertEqual(timing.difference([0.0], [0.0], 1), 0)

    def test_what_is_missing_or_not_finite_is_no_agreement(self):
        for mine, theirs in (([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([], []), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
                             ([1.0, math.nan], [1.0, 2.0]), ([1.0, 2.0], [1.0, math.nan]),
                             ([1.0, math.nan], [1.0, math.nan]), ([1.0, math.inf], [1.0, math.inf])):
            with self.assertRaises(timing.Failed):
                timing.difference(mine, theirs, 2)


class StetTest(unittest.TestCase):
    def program(self, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "cases"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    def test_asks_and_reads(self):
        with timing.Stet(self.program('while read command count; do echo "$count nan"; done'), "1", "-", 1) as stet:
            first, second = stet.ask("losses", 2)
            self.assertEqual(first, 2)
            self.assertTrue(math.isnan(second))

    def test_a_program_that_ends_is_named_with_its_exit_code(self):
        for text in ("exit 3", "read line; exit 3", "read line; printf 1.5; exit 3"):
            path = self.program(text)
            with self.assertRaisesRegex(timing.Failed, f"{path} ended with exit code 3 when asked for 'losses 20'"):
                with timing.Stet(path, "1", "-", 1) as stet:
                    stet.ask("losses", 20)

    def test_a_program_that_is_not_there(self):
        with self.assertRaisesRegex(timing.Failed, "/nowhere/cases: No such file"):
            timing.Stet("/nowhere/cases", "1", "-", 1)


class LimitsTest(unittest.TestCase):
    def test_operations_of_perceptrons(self):
        # Batch times 2, 4 and 6 FLOP a weight: forward, gradient of the weight, and of the input where it is needed.
        self.assertEqual(limits.operations("1"), 10 * (4 * 78400 + 6 * (10000 + 1000)))
        self.assertEqual(limits.operations("5"), 256 * (4 * 784 * 400 + (4 + 20) * (400 * 400 + 4000)))
        self.assertEqual(limits.operations("7"), 0)
        self.assertEqual(limits.operations("8"), 0)

    def test_operations_of_minilm(self):
        tokens, width = 16 * 128, 384
        square, scores = 2 * tokens * width ** 2, 2 * tokens * 128 * width  # a width x width layer, a product of attention
        forward = 12 * square + 2 * scores
        self.assertEqual(limits.operations("10a"), 6 * (36 * square + 6 * scores))
        # LoRA: above the first block no gradient of weights; in it none of the input of q, k and v, and none of k.
        self.assertEqual(limits.operations("10b"), 5 * (24 * square + 6 * scores) + 21 * square + 5 * scores)
        # The block that is trained: all weights' gradients, the inputs' but for q, k and v.
        trained = 12 * square + 12 * square + 9 * square + 6 * scores
        self.assertEqual(limits.operations("10c"), 4 * 5 * forward + 5 * 4 * trained)
        self.assertEqual(limits.operations("10d"), 4 * 6 * forward)

    def test_operations_of_transformers(self):
        weights, tokens = 12 * 3 * 96 ** 2 + 256 * 96, 12 * 96
        self.assertEqual(limits.operations("11"), 6 * tokens * (weights + 3 * 96 * 96))
        self.assertEqual(limits.operations("13a"), 7 * 2 * 8 * 2048 ** 2 * 64)
        self.assertEqual(limits.operations("13b") * 2, limits.operations("13a"))
        self.assertEqual(limits.operations("12a"), 0)

    def test_traffic_of_what_does_not_fit_a_cache(self):
        self.assertEqual(limits.traffic("2"), 0)
        self.assertEqual(limits.traffic("3"), 28 * (784 * 1024 + 1024 * 1024 + 1024 * 10))
        self.assertEqual(limits.traffic("7", 4096), 28 * 4096)
        self.assertEqual(limits.traffic("11"), 0)
        self.assertEqual(limits.traffic("10a"), 0)

    def test_the_limit_is_the_longer_of_both(self):
        slow_memory = {"gflops": 1e9, "gbytes": 1, "gbytes_adam_small": 2}
        self.assertAlmostEqual(limits.limit_seconds("3", slow_memory), limits.traffic("3") / 1e9)
        self.assertAlmostEqual(limits.limit_seconds("7", slow_memory, 4096), 28 * 4096 / 2e9)
        fast_memory = {"gflops": 1, "gbytes": 1e9, "gbytes_adam_small": 1e9}
        self.assertAlmostEqual(limits.limit_seconds("3", fast_memory), limits.operations("3") / 1e9)
        self.assertEqual(limits.limit_seconds("8", fast_memory), 0)
        self.assertEqual(limits.limit_seconds("12a", fast_memory), 0)

    def test_the_faster_of_two_measurements(self):
        first, again = ({"gflops": a, "gbytes": b, "gbytes_adam": b, "isa": "v4", "threads": 2} for a, b in ((5, 2), (4, 3)))
        self.assertEqual(limits.faster(first, again), first | {"gbytes": 3, "gbytes_adam": 3})


if __name__ == "__main__":
    unittest.main()
