"""PyTorch's figures for the cases of kernels.cpp that it has: one JSON line each, with the names used there.

    python bench/cuda/peer.py
"""

import json
import statistics
import time

import torch
import torch.nn.functional as F


def median_seconds(work):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    calls = max(1, min(5000, int(0.05 / max(time.perf_counter() - start, 1e-6))))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def report(name, work):
    print(json.dumps({"case": name, "seconds": median_seconds(work)}), flush=True)


def memory():
    n = 1 << 28
    a, b, out = torch.rand(n, device="cuda"), torch.rand(n, device="cuda"), torch.empty(n, device="cuda")
    report("copy", lambda: out.copy_(a))
    report("add", lambda: a + b)
    report("exp", lambda: torch.exp(a))
    report("gelu", lambda: F.gelu(a))
    report("sum all", lambda: a.sum())
    m = a[: 16384 * 16384].view(16384, 16384)
    report("sum rows", lambda: m.sum(1))
    report("sum columns", lambda: m.sum(0))
    report("transpose", lambda: m.t().contiguous())


def rows():
    x = torch.randn(32768, 1024, device="cuda")
    report("softmax", lambda: F.softmax(x, -1))
    report("layer_norm", lambda: F.layer_norm(x, (1024,)))
    logits = torch.randn(8192, 50257, device="cuda", requires_grad=True)
    target = torch.randint(0, 50257, (8192,), device="cuda")
    report("cross_entropy forward+backward",
           lambda: torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), logits))


def gemm():
    shapes = [(8192, 8192, 8192), (4096, 4096, 4096), (8192, 768, 3072), (8192, 3072, 768), (64, 256, 784),
              (10, 100, 784)]
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for m, n, k in shapes:
            a, w, bias = (torch.randn(*s, device="cuda") for s in ((m, k), (n, k), (n,)))
            report(f"linear {m}x{n}x{k} {'tf32' if tf32 else 'f32'}", lambda: torch.relu(F.linear(a, w, bias)))
    torch.backends.cuda.matmul.allow_tf32 = False


def small_step():
    model = torch.nn.Sequential(torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU(),
                                torch.nn.Linear(100, 10)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    x, y = torch.rand(10, 784, device="cuda"), torch.randint(0, 10, (10,), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    report("mlp step eager", step)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    report("mlp step recorded", graph.replay)


def optimizer():
    count, block = 124_439_808, 4096
    w = torch.zeros(count, device="cuda", requires_grad=True)
    w.grad = torch.randn(count, device="cuda")
    adamw = torch.optim.AdamW([w], lr=1e-4, fused=True)
    report("adamw", adamw.step)
    mask = (torch.arange(count, device="cuda") // block % 10 == 0).float()

    def masked():
        w.grad.mul_(mask)
        adamw.step()

    report("adamw masked", masked)


if __name__ == "__main__":
    for part in (memory, rows, gemm, small_step, optimizer):
        part()
        torch.cuda.empty_cache()
