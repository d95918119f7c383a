"""Writes the table of a results file into docs/performance.md, between two marks: table.py RESULTS.json DOCUMENT.md MARK"""

import json
import pathlib
import sys


def time_text(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def main(results, document, mark):
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    data = json.loads(pathlib.Path(results).read_text())
    env = data["environment"]
    lines = [begin, f"PyTorch {env['torch']}, {env['processor']} at {env['mhz']} MHz, {env['system']}.", ""]
    for key in sorted(k for k in env if k.startswith("limits_")):
        limits = env[key]
        lines.append(f"{key[7:]} thread(s): {limits['gflops']:.0f} GFLOP/s, {limits['gbytes']:.1f} GB/s, kernels "
                     f"{limits['isa']}, OpenBLAS core {limits['blas']}.")
    lines += ["", "| case | threads | stet | peer, each variant (ratio) | goal | held against | ratio | share of the limit |",
              "|---|---|---|---|---|---|---|---|"]
    for r in sorted(data["results"], key=lambda r: (r["threads"], int(str(r["case"]).rstrip("abcd")), str(r["case"]))):
        peers = ", ".join(f"{n} {time_text(r['seconds'][n])} ({r['ratios'][n]:.2f}x)" for n in r["ratios"])
        limit = f"{r['limit']:.2f}" if r["limit"] else "–"
        best = f"; {r['ratio'] / r['limit']:.2f}x at the limit" if r["limit"] else ""
        met = "" if r["ratio"] >= r["goal"] else f" (missed{best})"
        lines.append(f"| {r['case']}. {r['title']} | {r['threads']} | {time_text(r['seconds']['stet'])} | {peers} | "
                     f"{r['goal']}x | {r['main']} | **{r['ratio']:.2f}x**{met} | {limit} |")
    path = pathlib.Path(document)
    text = path.read_text()
    before, rest = text.split(begin)
    path.write_text(before + "\n".join(lines + [end]) + rest.split(end)[1])


main(*sys.argv[1:])
