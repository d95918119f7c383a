"""How the two sides of a case are compared and timed. Needs no PyTorch; tested by compare_test.py."""

import math
import subprocess
import time

# OpenMP's threads spin for a while after their last work and would take a core from whoever is timed next: everyone
# starts on an idle machine.
PAUSE = 0.5
# Compilation, the optimizer's state, first allocations: what a variant does once is over before the last of these.
FIRST_CALLS = 4


class Failed(Exception):
    """What ends a comparison, in words."""


class Stet:
    """The program that runs stet's side of a case."""

    def __init__(self, program, case, path, threads):
        self.program = program
        try:
            self.process = subprocess.Popen([program, str(case), path, str(threads)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Failed(f"{program}: {error.strerror}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # it is gone, and the command that it did not read with it
            pass
        self.process.stdout.close()
        self.process.wait()

    def ask(self, command, count):
        try:
            self.process.stdin.write(f"{command} {count}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise Failed(f"{self.program} ended with exit code {self.process.wait()} when asked for '{command} {count}'")
        return [float(v) for v in line.split()]

    def run(self, count):
        return self.ask("time", count)[0]


def seconds_of(step, count):
    """Seconds of one call."""
    start = time.perf_counter()
    for i in range(count):
        step(i)
    if hasattr(step, "seconds"):  # it measures itself, without its start
        return step.seconds
    return (time.perf_counter() - start) / count


def count_for(seconds, budget):
    return max(1, min(20000, round(budget / max(seconds, 1e-9))))


def calibrate(run, budget):
    """How many calls fill the budget, once two estimates in succession agree. run(count) makes so many calls and gives
    the seconds of one; the fastest counts, since other programs can only slow it down."""
    fastest = min(run(1) for _ in range(FIRST_CALLS))
    count = count_for(fastest, budget)
    for _ in range(10):
        fastest = min(fastest, run(count))
        before, count = count, count_for(fastest, budget)
        if abs(count - before) <= 0.2 * before:
            break
    return count


def in_turn(runs, counts, rounds, themselves=()):
    """Seconds of a call of each side, round by round. Each is timed warm: after the pause untimed calls, a fifth of
    those timed, wake the threads and bring its data into the caches. `themselves` are programs that start anew each
    time and see to that."""
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE)
            if name not in themselves:
                run(max(1, counts[name] // 5))
            times[name].append(run(counts[name]))
    return times


def difference(mine, theirs, count):
    """Largest relative difference of what both sides computed: `count` finite numbers each."""
    for name, values in (("stet", mine), ("the peer", theirs)):
        if len(values) != count:
            raise Failed(f"{name} gave {len(values)} numbers to compare, not {count}")
        if not all(map(math.isfinite, values)):
            raise Failed(f"{name} gave numbers that are not finite: {' '.join(f'{v:g}' for v in values)}")
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(mine, theirs))
