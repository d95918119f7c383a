"""Runs the benchmark cases: first both sides must agree (20 losses within 1e-4), then they are timed in turn, round by
round, and the median ratio peer / stet is printed. Started by run.sh."""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import save_file

import peer
import peer_minilm
import peer_transformers

PERCEPTRONS = {"1": 5, "2": 2.5, "3": 1.2, "4": 20, "5": 80, "6": 2, "7": 5, "8": 5}
GOALS = PERCEPTRONS | peer_transformers.GOALS | peer_minilm.GOALS
TITLES = {"1": "MLP 784-100-100-10, batch 10, SGD step", "2": "MLP 784-256-256-10, batch 64, Adam step",
          "3": "MLP 784-1024-1024-10, batch 256, Adam step", "4": "empirical Fisher diagonal, 784-400-400-10, batch 256",
          "5": "exact Fisher diagonal over 10 labels, batch 256", "6": "EWC training step, 784-400-400-10, batch 64, Adam",
          "7": "masked Adam, 32 Mi parameters, 10 % of blocks of 4,096",
          "8": "one-element product, forward and backward"} | peer_transformers.TITLES | peer_minilm.TITLES
# The goal is held against this variant: the form that the goal names for the case.
MAIN = {"1": "best", "2": "eager", "3": "best", "4": "loop", "5": "loop", "6": "eager", "7": "fused",
        "8": "eager"} | peer_transformers.MAIN | peer_minilm.MAIN
OTHERS = ("llm.c", "llama2.c")  # not PyTorch: shown, and never "best"


def side(case):
    return peer if case in PERCEPTRONS else peer_minilm if case in peer_minilm.GOALS else peer_transformers


class Stet:
    def __init__(self, program, case, path, threads):
        self.process = subprocess.Popen([program, str(case), path, str(threads)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, command, count):
        self.process.stdin.write(f"{command} {count}\n")
        self.process.stdin.flush()
        return [float(v) for v in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def time_peer(step, count):
    start = time.perf_counter()
    for i in range(count):
        step(i)
    if hasattr(step, "seconds"):  # it measures itself, without its start
        return step.seconds
    return (time.perf_counter() - start) / count * getattr(step, "scale", 1.0)


# OpenMP's threads spin for a while after their last work and would take a core from whoever is
# timed next: everyone starts on an idle machine.
PAUSE = 0.5


def count_for(seconds, budget):
    return max(1, min(20000, round(budget / max(seconds, 1e-9))))


def limit_seconds(case, limits):
    """Least time for the case on this machine: its operations at the measured peak, or its bytes at the measured
    bandwidth, whichever is longer."""
    flops = bytes_moved = 0.0
    if case in peer_transformers.GPT:  # 6 operations a weight and token, and attention
        s = peer_transformers.GPT[case]
        weights, tokens = 12 * s["blocks"] * s["width"] ** 2 + s["vocab"] * s["width"], s["batch"] * s["length"]
        flops = 6 * tokens * (weights + s["blocks"] * s["length"] * s["width"])
        bytes_moved = 28 * weights if weights > 1e6 else 0
    if case.startswith("13"):
        s = peer_transformers.ATTENTION
        flops = 14 * s["batch"] * s["heads"] * s["length"] ** 2 * s["width"] / (2 if case == "13b" else 1)
    if case in peer_minilm.GOALS:
        flops = peer_minilm.operations(case)
    if case in PERCEPTRONS and int(case) in peer.SHAPES:
        case = int(case)
        inputs, h1, h2, classes, batch = peer.SHAPES[case]
        first, rest = inputs * h1, h1 * h2 + h2 * classes
        flops = 2 * batch * (3 * (first + rest) - first)
        if case == 5:  # forward and squares once, activations' gradients once a label
            flops = 2 * batch * (2 * (first + rest) + 10 * rest)
        # Optimizer traffic of what does not fit a 24 MB cache.
        per_parameter = {1: 12, 2: 28, 3: 28, 6: 36}.get(case, 0)
        total = (first + rest) * per_parameter
        bytes_moved = total if total > 24e6 else 0
    if case == "7":
        bytes_moved = 28 * peer.COUNT * 0.1
    return flops / (limits["gflops"] * 1e9) + bytes_moved / (limits["gbytes"] * 1e9)


def agree(case, stet, step):
    """Largest relative difference of 20 losses (cases 4 and 5: of the summed diagonals)."""
    if case in ("7", "8"):
        return 0.0
    n = 2 if case in ("4", "5") else (peer_transformers.COMPARED | peer_minilm.COMPARED).get(case, 20)
    mine = stet.ask("losses", n)
    theirs = [(step.whole(i) if hasattr(step, "whole") else step(i)) for i in range(n)]
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(mine, theirs))


def run_case(case, threads, args, limits):
    torch.set_num_threads(threads)
    number = int(case) if case in PERCEPTRONS else case
    file = side(case).make_file(number)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "case.safetensors")
        save_file(file, path)
        stet = Stet(args.program, case, path, threads)
        steps = side(case).variants(number, file)
        difference = agree(case, stet, next(iter(steps.values())))
        if not difference <= 1e-4:
            stet.close()
            sys.exit(f"case {case}: the two sides disagree: relative difference {difference:.2e} over 1e-4")
        counts = {"stet": count_for(stet.ask("time", 2)[0], args.seconds)}
        for name in list(steps):
            try:
                if name in OTHERS:  # a program that starts anew each time, and warms itself up
                    counts[name] = 1
                    continue
                counts[name] = count_for(time_peer(steps[name], 2) / getattr(steps[name], "scale", 1.0), args.seconds)
            except Exception as error:  # torch.compile needs a compiler that works here
                print(f"case {case}: {name} not run: {type(error).__name__}", file=sys.stderr)
                del steps[name]
        times = {name: [] for name in counts}
        for _ in range(args.rounds):
            time.sleep(PAUSE)
            times["stet"].append(stet.ask("time", counts["stet"])[0])
            for name, step in steps.items():
                time.sleep(PAUSE)
                times[name].append(time_peer(step, counts[name]))
        stet.close()
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: statistics.median(a / b for a, b in zip(times[name], times["stet"])) for name in steps}
    best = min((n for n in ratios if n not in OTHERS), key=ratios.get)
    main = best if MAIN[case] == "best" else MAIN[case]
    floor = limit_seconds(case, limits)
    return {"case": case, "title": TITLES[case], "threads": threads, "difference": difference, "seconds": median,
            "times": times, "ratios": ratios, "best_peer": best, "main": main, "ratio": ratios[main],
            "goal": GOALS[case], "limit": floor / median["stet"] if floor else None}


def clock_mhz():
    try:
        lines = [l for l in open("/proc/cpuinfo") if l.startswith("cpu MHz")]
        return round(float(lines[0].split(":")[1]))
    except (OSError, IndexError):
        return None


def processor():
    try:
        return next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each side in each round")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("cases", nargs="*", help="12 stands for 12a and 12b")
    args = parser.parse_args()
    chosen = [c for c in GOALS if not args.cases or c in args.cases or c.rstrip("abcd") in args.cases]
    if not chosen:
        sys.exit(f"no case {' '.join(args.cases)}: {' '.join(GOALS)}")
    results = []
    part = args.out.with_name(args.out.name + ".part")  # what is measured so far, should the run be cut off
    args.out.parent.mkdir(parents=True, exist_ok=True)
    environment = {"torch": torch.__version__, "processor": processor(), "mhz": clock_mhz(), "system": platform.platform()}
    for threads in args.threads:
        limits = json.loads(subprocess.run([args.program, "limits", "-", str(threads)], capture_output=True, text=True,
                                           check=True).stdout)
        environment[f"limits_{threads}"] = limits
        print(f"threads {threads}: {limits['gflops']:.0f} GFLOP/s, {limits['gbytes']:.1f} GB/s, {limits['isa']}, "
              f"OpenBLAS {limits['blas']}; torch {torch.__version__}; {environment['processor']} {environment['mhz']} MHz",
              flush=True)
        for case in chosen:
            r = run_case(case, threads, args, limits)
            results.append(r)
            part.write_text(json.dumps({"environment": environment, "results": results}, indent=1) + "\n")
            peers = ", ".join(f"{n} {r['seconds'][n] * 1e6:.4g} us = {r['ratios'][n]:.2f}x" for n in r["ratios"])
            print(f"{r['title']}: stet {r['seconds']['stet'] * 1e6:.4g} us; {peers}; goal {r['goal']}x against "
                  f"{r['main']}; agreed within {r['difference']:.1e}")
            limit = f" limit {r['limit']:.2f}" if r["limit"] else ""
            print(f"case {case} threads {threads} ratio {r['ratio']:.2f}{limit}", flush=True)
    part.replace(args.out)
    print(f"written: {args.out}")


main()
