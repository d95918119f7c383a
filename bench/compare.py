"""Runs the benchmark cases: first both sides must agree (20 losses within 1e-4), then they are timed in turn, round by
round (timing.py), and the median ratio peer / stet is printed. Started by run.sh."""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

import peer
import peer_minilm
import peer_transformers
import timing
from limits import faster, limit_seconds
from shapes import BLOCK

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


def agree(case, stet, step):
    """Largest relative difference of 20 losses (cases 4 and 5: of the summed diagonals)."""
    if case in ("7", "8"):
        return 0.0
    n = 2 if case in ("4", "5") else (peer_transformers.COMPARED | peer_minilm.COMPARED).get(case, 20)
    mine = stet.ask("losses", n)
    found = timing.difference(mine, [(step.whole(i) if hasattr(step, "whole") else step(i)) for i in range(n)], n)
    if not found <= 1e-4:
        raise timing.Failed(f"the two sides disagree: relative difference {found:.2e} over 1e-4")
    return found


def calibrated(case, runs, budget):
    """Counts for all sides; a variant of the peer that does not run is taken out."""
    counts = {"stet": timing.calibrate(runs["stet"], budget)}
    for name in [n for n in runs if n != "stet"]:
        try:
            counts[name] = 1 if name in OTHERS else timing.calibrate(runs[name], budget)
        except Exception as error:  # torch.compile needs a compiler that works here
            print(f"case {case}: {name} not run: {type(error).__name__}", file=sys.stderr)
            del runs[name]
    if MAIN[case] != "best" and MAIN[case] not in runs or not set(runs) - {"stet", *OTHERS}:
        raise timing.Failed(f"what stet is held against ({MAIN[case]}) does not run")
    return counts


def time_case(case, threads, args):
    """Sides that agree are timed in turn: difference, counts, seconds of a unit round by round."""
    number = int(case) if case in PERCEPTRONS else case
    file = side(case).make_file(number)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "case.safetensors")
        save_file(file, path)
        with timing.Stet(args.program, case, path, threads) as stet:
            steps = side(case).variants(number, file)
            found = agree(case, stet, next(iter(steps.values())))
            runs = {"stet": stet.run} | {n: functools.partial(timing.seconds_of, s) for n, s in steps.items()}
            counts = calibrated(case, runs, args.seconds)
            times = timing.in_turn(runs, counts, args.rounds, themselves=OTHERS)
    for name in times:  # a step may be a part of the unit
        times[name] = [t * getattr(steps.get(name), "scale", 1.0) for t in times[name]]
    updated = int(file["blocks"].sum()) * BLOCK if case == "7" else 0
    return found, counts, times, updated


def run_case(case, threads, args):
    torch.set_num_threads(threads)
    found, counts, times, updated = time_case(case, threads, args)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: statistics.median(a / b for a, b in zip(times[name], times["stet"])) for name in times if name != "stet"}
    best = min((n for n in ratios if n not in OTHERS), key=ratios.get)
    main = best if MAIN[case] == "best" else MAIN[case]
    return {"case": case, "title": TITLES[case], "threads": threads, "difference": found, "counts": counts,
            "seconds": median, "times": times, "ratios": ratios, "best_peer": best, "main": main, "ratio": ratios[main],
            "goal": GOALS[case], "updated": updated}


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


def measured_limits(program, threads):
    try:
        done = subprocess.run([program, "limits", "-", str(threads)], stdout=subprocess.PIPE, text=True)
    except OSError as error:
        sys.exit(f"{program}: {error.strerror}")
    if done.returncode:
        sys.exit(f"{program} ended with exit code {done.returncode} when asked for the limits with {threads} threads")
    return json.loads(done.stdout)


def set_shares(results, limits, threads):
    for r in results:
        if r["threads"] == threads:
            floor = limit_seconds(r["case"], limits, r["updated"])
            r["limit"] = floor / r["seconds"]["stet"] if floor else None


def print_result(r):
    peers = ", ".join(f"{n} {r['seconds'][n] * 1e6:.4g} us = {r['ratios'][n]:.2f}x" for n in r["ratios"])
    print(f"{r['title']}: stet {r['seconds']['stet'] * 1e6:.4g} us; {peers}; goal {r['goal']}x against "
          f"{r['main']}; agreed within {r['difference']:.1e}")
    limit = f" limit {r['limit']:.2f}" if r["limit"] else ""
    print(f"case {r['case']} threads {r['threads']} ratio {r['ratio']:.2f}{limit}", flush=True)


def at_least_one(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number above 0")
    return int(text)


def duration(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"'{text}': expected seconds, above 0 and below an hour")
    return seconds


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--seconds", type=duration, default=0.3, help="of each side in each round")
    parser.add_argument("--threads", type=at_least_one, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("cases", nargs="*", help="12 stands for 12a and 12b")
    args = parser.parse_args()
    unknown = [c for c in args.cases if c not in {n for case in GOALS for n in (case, case.rstrip("abcd"))}]
    if unknown:
        sys.exit(f"no case {' '.join(unknown)}: {' '.join(GOALS)}")
    args.cases = [c for c in GOALS if not args.cases or c in args.cases or c.rstrip("abcd") in args.cases]
    return args


def main():
    args = arguments()
    results = []
    part = args.out.with_name(args.out.name + ".part")  # what is measured so far, should the run be cut off
    args.out.parent.mkdir(parents=True, exist_ok=True)
    environment = {"torch": torch.__version__, "processor": processor(), "mhz": clock_mhz(), "system": platform.platform()}
    for threads in args.threads:
        limits = environment[f"limits_{threads}"] = measured_limits(args.program, threads)
        print(f"threads {threads}: {limits['gflops']:.0f} GFLOP/s, {limits['gbytes']:.1f} GB/s, {limits['isa']}, "
              f"OpenBLAS {limits['blas']}; torch {torch.__version__}; {environment['processor']} {environment['mhz']} MHz",
              flush=True)
        for case in args.cases:
            try:
                results.append(run_case(case, threads, args))
            except timing.Failed as error:
                sys.exit(f"case {case}, {threads} threads: {error}")
            # The machine's best in the whole run: on a virtual one it comes and goes.
            limits.update(faster(limits, measured_limits(args.program, threads)))
            set_shares(results, limits, threads)
            part.write_text(json.dumps({"environment": environment, "results": results}, indent=1) + "\n")
            print_result(results[-1])
    part.replace(args.out)
    print(f"written: {args.out}")


main()
