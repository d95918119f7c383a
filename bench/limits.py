"""The least time that a machine's own limits allow for a case: what has to be computed and moved is counted, what it
takes is measured (cases/limits.cpp). Needs no PyTorch; tested by compare_test.py."""

from shapes import ATTENTION, BATCH, BATCHES, EPOCHS, GPT, LENGTH, MINILM, PERCEPTRONS

CACHE = 24e6  # bytes: what fits is not counted as moved


def perceptron_operations(case):
    inputs, h1, h2, classes, batch = PERCEPTRONS[case]
    first, rest = inputs * h1, h1 * h2 + h2 * classes
    if case == 5:  # forward and squares once, activations' gradients once a label
        return 2 * batch * (2 * (first + rest) + 10 * rest)
    return 2 * batch * (3 * (first + rest) - first)  # nobody needs the gradient of the data


def minilm_operations(case):
    """FLOP of one unit: 2 a weight and token forward, 2 each for the gradients of input and weight; attention's two
    products 4 T width a token and block forward, its four of the gradients twice that. Heads, and LoRA's own
    matrices, a hundredth, are left out."""
    tokens, width, blocks = BATCH * LENGTH, MINILM["width"], MINILM["blocks"]
    block, attention = tokens * 2 * 12 * width ** 2, tokens * 4 * LENGTH * width
    # q, k and v are 3 of a block's 12 width^2 weights. Behind what is frozen nobody needs their input's gradient.
    qkv_input = block // 4
    forward = block + attention
    if case == "10a":
        return blocks * 3 * forward
    if case == "10b":  # no gradient of the base's weights; in the first block none of k, either
        return blocks * (2 * block + 3 * attention) - qkv_input - attention // 2
    if case == "10c":
        return (blocks - 1) * BATCHES * forward + EPOCHS * BATCHES * (3 * forward - qkv_input)
    return blocks * BATCHES * forward


def gpt_weights(case):
    s = GPT[case]
    return 12 * s["blocks"] * s["width"] ** 2 + s["vocab"] * s["width"]


def operations(case):
    """FLOP of one unit of the case; 0 where they are not counted."""
    if case in GPT:  # 6 a weight and token, and attention
        s = GPT[case]
        return 6 * s["batch"] * s["length"] * (gpt_weights(case) + s["blocks"] * s["length"] * s["width"])
    if case.startswith("13"):
        s = ATTENTION
        return 14 * s["batch"] * s["heads"] * s["length"] ** 2 * s["width"] // (2 if case == "13b" else 1)
    if case.startswith("10"):
        return minilm_operations(case)
    return perceptron_operations(int(case)) if case.isdigit() and int(case) in PERCEPTRONS else 0


def traffic(case, updated=0):
    """Bytes that the optimizer has to move in one unit, where they do not fit a cache. `updated`: the parameters that
    change in case 7."""
    if case == "7":
        return 28 * updated
    if case in GPT:
        return 28 * gpt_weights(case) if gpt_weights(case) > 1e6 else 0
    if not case.isdigit() or int(case) not in PERCEPTRONS:
        return 0
    inputs, h1, h2, classes, _ = PERCEPTRONS[int(case)]
    total = (inputs * h1 + h1 * h2 + h2 * classes) * {"1": 12, "2": 28, "3": 28, "6": 36}.get(case, 0)
    return total if total > CACHE else 0


def limit_seconds(case, limits, updated=0):
    """Least time for the case on this machine: its operations at the measured peak, or its bytes at the measured
    bandwidth, whichever is longer, since a machine can do both at once. What case 7 changes stays in the caches in
    part: it is held against an update of as many parameters without a mask."""
    bandwidth = limits["gbytes_adam_small" if case == "7" else "gbytes"]
    return max(operations(case) / (limits["gflops"] * 1e9), traffic(case, updated) / (bandwidth * 1e9))


def faster(limits, again):
    """The higher of each measured speed."""
    return limits | {k: max(limits[k], v) for k, v in again.items() if k.startswith(("gflops", "gbytes"))}
