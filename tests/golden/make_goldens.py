"""Writes the golden files beside this script: what PyTorch computes for every layer, loss and optimizer option.

    python3 -m pip install torch numpy safetensors
    python3 tests/golden/make_goldens.py

Inputs are drawn with fixed seeds and rounded to f32. PyTorch computes on them in f64, so that a row measures the
error of stet and not that of two libraries; layers and losses are stored rounded to f32, optimizers as f64. The
checked-in files were written with the versions that their metadata names.

One case is "operation/number/...": "in.NAME" an input, "index.NAME" an i64 input, "options" numbers whose order the
function here and its reader in nn_golden_test.cpp and optim_golden_test.cpp share, "seed" the gradient of the
output, "out" the output, "grad.NAME" the gradient of an input.
"""

import itertools
import pathlib

import numpy
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
REDUCTIONS = ["none", "mean", "sum", "batchmean"]  # in the order of nn::Reduction
torch.set_num_threads(1)


class Cases:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = {}
        self.counts = {}

    def randn(self, *shape, scale=1.0, shift=0.0):
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale + shift
        return drawn.float().double()

    def rand(self, *shape, low=0.0, high=1.0):
        drawn = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return drawn.float().double()

    def randint(self, high, *shape):
        return torch.randint(high, shape, generator=self.generator)

    def add(self, operation, function, inputs, indices=None, options=(), constants=()):
        """Runs one case forward and backward; inputs named in `constants` get no gradient."""
        number = self.counts[operation] = self.counts.get(operation, -1) + 1
        name = f"{operation}/{number:02d}/"
        leaves = {k: v.clone().requires_grad_(k not in constants) for k, v in inputs.items()}
        out = function(**leaves, **(indices or {}))
        seed = self.randn(*out.shape)
        out.backward(seed)
        put = self.tensors.__setitem__
        for key, leaf in leaves.items():
            put(name + "in." + key, leaf.detach().float())
            if leaf.requires_grad:
                put(name + "grad." + key, leaf.grad.float())
        for key, index in (indices or {}).items():
            put(name + "index." + key, index)
        put(name + "options", torch.tensor(list(options), dtype=torch.float64))
        put(name + "seed", seed.float())
        put(name + "out", out.detach().float())

    def write(self, file):
        versions = [f"{m.__name__} {m.__version__}" for m in (torch, numpy, safetensors)]
        tensors = {k: v.contiguous() for k, v in self.tensors.items()}
        save_file(tensors, HERE / file, metadata={"versions": ", ".join(versions)})
        rows = sum("/out" in k or "/grad." in k or "/end." in k for k in tensors)
        print(f"{file}: {rows} rows, {(HERE / file).stat().st_size} bytes")


# --- layers ---------------------------------------------------------------------------------------------------------

ACTIVATIONS = [lambda x: x, F.relu, F.gelu, torch.tanh, torch.sigmoid]  # in the order of stet::Activation


def linear(cases):
    shapes = [((5,), 3), ((1, 5), 3), ((4, 7), 3), ((10, 33), 17), ((20, 100), 10), ((2, 5, 8), 6), ((3, 1, 16), 32)]
    for (shape, out), bias, act in itertools.product(shapes, [True, False], range(len(ACTIVATIONS))):
        if act and (len(shape) == 1 or out > 17 or out < 6):
            continue
        bound = shape[-1] ** -0.5
        inputs = {"x": cases.randn(*shape), "weight": cases.rand(out, shape[-1], low=-bound, high=bound)}
        if bias:
            inputs["bias"] = cases.rand(out, low=-bound, high=bound)
        call = lambda x, weight, bias=None: ACTIVATIONS[act](F.linear(x, weight, bias))
        cases.add("linear", call, inputs, options=[act])


def layer_norm(cases):
    shapes = [(4, 6), (3, 5), (6, 16), (3, 64), (2, 257), (2, 3, 33), (7,), (1, 600)]
    for shape, affine in itertools.product(shapes, [True, False]):
        eps = 1e-5 if len(shape) == 2 else 1e-3
        inputs = {"x": cases.randn(*shape, scale=2, shift=0.5)}
        if affine:
            inputs |= {"weight": cases.randn(shape[-1], shift=1, scale=0.3), "bias": cases.randn(shape[-1])}
        call = lambda x, weight=None, bias=None: F.layer_norm(x, shape[-1:], weight, bias, eps)
        cases.add("layer_norm", call, inputs, options=[eps])


def embedding(cases):
    for count, width, shape in [(10, 4, (6,)), (3, 5, (20,)), (7, 1, (2, 3)), (50, 8, (4, 9)), (5, 3, ())]:
        call = lambda weight, index: F.embedding(index, weight)
        cases.add("embedding", call, {"weight": cases.randn(count, width)}, {"index": cases.randint(count, *shape)})


def mlp(cases):
    for act, sizes in [(1, (6, 9, 4)), (2, (12, 16, 16, 5)), (3, (8, 7, 6, 5, 3)), (4, (20, 30, 10))]:
        inputs = {"x": cases.randn(5, sizes[0])}
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            inputs[f"fc{i + 1}.weight"] = cases.rand(b, a, low=-(a**-0.5), high=a**-0.5)
            inputs[f"fc{i + 1}.bias"] = cases.rand(b, low=-(a**-0.5), high=a**-0.5)

        def call(x, **p):
            for i in range(len(sizes) - 1):
                x = F.linear(x, p[f"fc{i + 1}.weight"], p[f"fc{i + 1}.bias"])
                x = ACTIVATIONS[act](x) if i + 2 < len(sizes) else x
            return x

        cases.add("mlp", call, inputs, options=[act])


def functions(cases):
    pointwise = {
        "relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
        "softplus": F.softplus, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "exp": torch.exp,
        "expm1": torch.expm1, "sin": torch.sin, "cos": torch.cos, "square": torch.square, "abs": torch.abs,
    }
    for name, function in pointwise.items():
        for shape, scale in [((17,), 1.0), ((5, 13), 3.0)]:
            cases.add(name, lambda x: function(x), {"x": cases.randn(*shape, scale=scale)})
    positive = {"log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal}
    for name, function in positive.items():
        cases.add(name, lambda x: function(x), {"x": cases.rand(37, low=0.1, high=5)})
    by_axis = {"softmax": torch.softmax, "log_softmax": torch.log_softmax, "logsumexp": torch.logsumexp}
    for name, function in by_axis.items():
        for shape, axis in [((5,), 0), ((4, 10), 1), ((4, 10), 0), ((2, 3, 7), -1), ((2, 3, 7), 1), ((3, 300), 1)]:
            cases.add(name, lambda x: function(x, axis), {"x": cases.randn(*shape, scale=1.5)}, options=[axis])


# --- losses ---------------------------------------------------------------------------------------------------------


def cross_entropy(cases):
    sizes = [(4, 3), (7, 10)]
    for (rows, classes), weighted, smoothing, ignore, reduction in itertools.product(
        sizes, [False, True], [0.0, 0.1], [False, True], range(3)
    ):
        target = cases.randint(classes, rows)
        if ignore:
            target[cases.randint(rows, 2)] = -100
        inputs = {"logits": cases.randn(rows, classes, scale=2)}
        if weighted:
            inputs["weight"] = cases.rand(classes, low=0.2, high=2)

        def call(logits, target, weight=None):
            return F.cross_entropy(logits, target, weight, label_smoothing=smoothing, reduction=REDUCTIONS[reduction])

        cases.add("cross_entropy", call, inputs, {"target": target}, [smoothing, -100, reduction], ["weight"])
    for ignore_index, smoothing in [(2, 0.0), (0, 0.3)]:  # an ignored class, on three axes
        call = lambda logits, target: F.cross_entropy(
            logits.reshape(-1, 5), target.reshape(-1), ignore_index=ignore_index, label_smoothing=smoothing)
        cases.add("cross_entropy", call, {"logits": cases.randn(3, 4, 5)}, {"target": cases.randint(5, 3, 4)},
                  [smoothing, ignore_index, 1])
    for shift in [30.0, 1000.0]:  # a common offset of the logits means nothing
        call = lambda logits, target: F.cross_entropy(logits, target)
        cases.add("cross_entropy", call, {"logits": cases.randn(6, 8, shift=shift)}, {"target": cases.randint(8, 6)}, [0, -100, 1])


def regression(cases):
    for shape, reduction in itertools.product([(6,), (4, 5), (2, 3, 4)], range(3)):
        name = REDUCTIONS[reduction]
        pair = lambda: {"input": cases.randn(*shape, scale=2), "target": cases.randn(*shape)}
        cases.add("mse", lambda input, target: F.mse_loss(input, target, reduction=name), pair(), options=[reduction])
        for delta in [0.5, 1.0, 2.5]:
            call = lambda input, target: F.huber_loss(input, target, reduction=name, delta=delta)
            cases.add("huber", call, pair(), options=[delta, reduction])


def bce(cases):
    for shape, weight, reduction in itertools.product([(7,), (4, 6)], [None, "one", "each"], range(3)):
        inputs = {"logits": cases.randn(*shape, scale=3), "target": cases.rand(*shape)}
        if reduction == 0:
            inputs["target"] = inputs["target"].round()
        if weight:
            inputs["pos_weight"] = cases.rand(1 if weight == "one" else shape[-1], low=0.5, high=3)

        def call(logits, target, pos_weight=None):
            return F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction=REDUCTIONS[reduction])

        cases.add("bce_with_logits", call, inputs, options=[reduction], constants=["pos_weight"])


def kl_div(cases):
    for (rows, classes), log_target, reduction in itertools.product([(5, 4), (3, 20)], [False, True], range(4)):
        log_input = torch.log_softmax(cases.randn(rows, classes), 1).float().double()
        target = torch.log_softmax(cases.randn(rows, classes), 1)
        target = (target if log_target else target.exp()).float().double()
        call = lambda log_input, target: F.kl_div(log_input, target, reduction=REDUCTIONS[reduction], log_target=log_target)
        cases.add("kl_div", call, {"log_input": log_input, "target": target}, options=[log_target, reduction])
    some_zeros = cases.rand(4, 6).round() / 3  # 0 log 0 = 0
    call = lambda log_input, target: F.kl_div(log_input, target, reduction="sum")
    cases.add("kl_div", call, {"log_input": torch.log_softmax(cases.randn(4, 6), 1), "target": some_zeros}, options=[0, 2],
              constants=["target"])


# --- optimizers -----------------------------------------------------------------------------------------------------

STEPS = 100
OPTIONS = ["lr", "momentum", "dampening", "weight_decay", "nesterov", "beta1", "beta2", "eps", "amsgrad", "lr_decay",
           "initial", "clip_norm", "clip_value", "step_every", "step_factor", "cosine_total", "cosine_last"]
STATE = {"momentum_buffer": "momentum", "exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max", "sum": "sum"}


def make_optimizer(kind, parameters, o):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=o["lr"], momentum=o["momentum"], dampening=o["dampening"],
                               weight_decay=o["weight_decay"], nesterov=o["nesterov"], foreach=False)
    if kind == "adagrad":
        return torch.optim.Adagrad(parameters, lr=o["lr"], lr_decay=o["lr_decay"], weight_decay=o["weight_decay"],
                                   initial_accumulator_value=o["initial"], eps=o["eps"], foreach=False)
    cls = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return cls(parameters, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"], weight_decay=o["weight_decay"],
               amsgrad=o["amsgrad"], foreach=False)


def run_optimizer(cases, kind, **given):
    """STEPS steps on the gradient curvature * (p - centre) + noise[t] of two parameters."""
    o = dict.fromkeys(OPTIONS, 0) | {"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8} | given
    number = cases.counts[kind] = cases.counts.get(kind, -1) + 1
    shared = cases.tensors
    parameters = {n: shared[f"start/{n}"].clone().requires_grad_() for n in ["a", "b"]}
    optimizer = make_optimizer(kind, list(parameters.values()), o)
    schedule = None
    if o["step_every"]:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, o["step_every"], o["step_factor"])
    if o["cosine_total"]:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, o["cosine_total"], o["lr"] * o["cosine_last"])
    for t in range(STEPS):
        for n, p in parameters.items():
            p.grad = shared[f"curvature/{n}"] * (p.detach() - shared[f"centre/{n}"]) + shared[f"noise/{n}"][t]
        if o["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(parameters.values(), o["clip_norm"])
        if o["clip_value"]:
            torch.nn.utils.clip_grad_value_(parameters.values(), o["clip_value"])
        optimizer.step()
        if schedule:
            schedule.step()
    name = f"{kind}/{number:02d}/"
    cases.tensors[name + "options"] = torch.tensor([float(o[k]) for k in OPTIONS], dtype=torch.float64)
    for n, p in parameters.items():
        cases.tensors[f"{name}end.{n}"] = p.detach().clone()
        for key, value in optimizer.state[p].items():
            if key in STATE and value is not None:
                cases.tensors[f"{name}end.{n}.{STATE[key]}"] = value.clone()


def optimizers(cases):
    for n, shape in {"a": (3, 4), "b": (5,)}.items():
        cases.tensors |= {f"start/{n}": cases.randn(*shape), f"centre/{n}": cases.randn(*shape),
                          f"curvature/{n}": cases.rand(*shape, low=0.2, high=2),
                          f"noise/{n}": cases.randn(STEPS, *shape, scale=0.5)}
    for momentum, dampening, nesterov, decay in itertools.product([0, 0.5, 0.9], [0, 0.1], [False, True], [0, 5e-4, 1e-2]):
        if nesterov and (momentum == 0 or dampening):
            continue
        run_optimizer(cases, "sgd", momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=decay)
    for kind in ["adam", "adamw"]:
        for betas, decay, amsgrad in itertools.product([(0.9, 0.999), (0.8, 0.95)], [0, 1e-2, 0.1], [False, True]):
            run_optimizer(cases, kind, beta1=betas[0], beta2=betas[1], weight_decay=decay, amsgrad=amsgrad)
        run_optimizer(cases, kind, lr=1e-3, eps=1e-3)
    for lr_decay, decay, initial in itertools.product([0, 1e-2], [0, 1e-2], [0, 0.1]):
        run_optimizer(cases, "adagrad", lr_decay=lr_decay, weight_decay=decay, initial=initial, eps=1e-10)
    for kind in ["sgd", "adam", "adamw", "adagrad"]:
        momentum = 0.9 if kind == "sgd" else 0
        for extra in [{"clip_norm": 1.0}, {"clip_value": 0.3}, {"step_every": 30, "step_factor": 0.1},
                      {"cosine_total": 100, "cosine_last": 0.1}]:
            run_optimizer(cases, kind, momentum=momentum, weight_decay=1e-3, **extra)


def main():
    layers = Cases(1)
    for part in [linear, layer_norm, embedding, mlp, functions]:
        part(layers)
    layers.write("layers.safetensors")
    losses = Cases(2)
    for part in [cross_entropy, regression, bce, kl_div]:
        part(losses)
    losses.write("losses.safetensors")
    optim = Cases(3)
    optimizers(optim)
    optim.write("optimizers.safetensors")


if __name__ == "__main__":
    main()
