"""Joins the JSON lines of kernels.cpp and peer.py into one JSON and one Markdown file.

    python3 bench/cuda/report.py DIRECTORY

DIRECTORY holds machine.txt, checks.txt (name, exit status, seconds), stet.jsonl and, where there is one, torch.jsonl;
cuda.json and cuda.md are written beside them.
"""

import json
import sys
from pathlib import Path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")] if path.exists() else []


def main():
    folder = Path(sys.argv[1])
    cases, peer = lines(folder / "stet.jsonl"), {row["case"]: row["seconds"] for row in lines(folder / "torch.jsonl")}
    checks = [line.split() for line in (folder / "checks.txt").read_text().splitlines()]
    machine = (folder / "machine.txt").read_text().strip()
    simulated = any(row["simulated"] for row in cases)
    for row in cases:
        if row["case"] in peer:
            row["torch_seconds"] = peer[row["case"]]
            row["ratio"] = peer[row["case"]] / row["seconds"]
    report = {"machine": machine.splitlines(), "simulated": simulated, "cases": cases,
              "checks": [{"name": n, "status": int(s), "seconds": int(t)} for n, s, t in checks]}
    (folder / "cuda.json").write_text(json.dumps(report, indent=1) + "\n")
    out = ["# CUDA report", "", "```", machine, "```", ""]
    if simulated:
        out += ["**Simulated device: the times below are no measurements.**", ""]
    out += ["| check | result | seconds |", "|---|---|---|"]
    results = {"0": "passed", "77": "could not run", "124": "OUT OF TIME"}
    out += [f"| {n} | {results.get(s, 'FAILED')} | {t} |" for n, s, t in checks]
    out += ["", "| case | time | rate | share of peak | time of PyTorch / time of stet |", "|---|---|---|---|---|"]
    for row in cases:
        rate = next((f"{row[k]:.4g} {u}" for k, u in (("gb_per_second", "GB/s"), ("tflop_per_second", "TFLOP/s"),
                                                      ("launches", "launches")) if k in row), "")
        share = f"{100 * row['share']:.0f} %" if "share" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        out.append(f"| {row['case']} | {row['seconds'] * 1e6:.1f} µs | {rate} | {share} | {ratio} |")
    (folder / "cuda.md").write_text("\n".join(out) + "\n")
    print("\n".join(out))


if __name__ == "__main__":
    main()
