"""The PyTorch side of the benchmark cases: for each case the weights and data that both sides start from, the losses
to agree on, and the timed variants, each in PyTorch's best honest setting (fused optimizers, torch.compile tried) and
in the form that continual-learning libraries use."""

import torch
import torch.nn.functional as F

from shapes import BLOCK, COUNT, PERCEPTRONS

LR = {1: 0.01, 2: 1e-3, 3: 3e-4, 6: 1e-3}
LAMBDA = 100.0


class Classifier(torch.nn.Module):
    def __init__(self, inputs, h1, h2, classes):
        super().__init__()
        self.fc1 = torch.nn.Linear(inputs, h1)
        self.fc2 = torch.nn.Linear(h1, h2)
        self.fc3 = torch.nn.Linear(h2, classes)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def make_file(case):
    """Tensors that both sides load."""
    torch.manual_seed(case)
    if case == 8:
        return {"none": torch.zeros(1)}
    if case == 7:
        blocks = (torch.rand(COUNT // BLOCK) < 0.1).to(torch.uint8)
        return {"count": torch.tensor(COUNT), "blocks": blocks}
    inputs, h1, h2, classes, batch = PERCEPTRONS[case]
    file = {k: v.detach().clone() for k, v in Classifier(inputs, h1, h2, classes).state_dict().items()}
    file["x"] = torch.rand(8, batch, inputs)
    file["y"] = torch.randint(0, classes, (8, batch))
    if case == 6:
        for name in [k for k in file if k.startswith("fc")]:
            file["importance/" + name] = torch.rand_like(file[name])
            file["anchor/" + name] = file[name] + 0.01 * torch.randn_like(file[name])
    return file


def model_of(case, file):
    model = Classifier(*PERCEPTRONS[case][:4])
    model.load_state_dict({k: v for k, v in file.items() if k.startswith("fc")})
    return model


def training(case, file, fused, compiled):
    model = model_of(case, file)
    make = torch.optim.SGD if case == 1 else torch.optim.Adam
    optimizer = make(model.parameters(), lr=LR[case], fused=fused)
    forward = torch.compile(model) if compiled else model
    x, y = file["x"], file["y"]
    anchors = {n: (file["importance/" + n], file["anchor/" + n]) for n, _ in model.named_parameters()} if case == 6 else {}

    def step(i):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(x[i % 8]), y[i % 8])
        total = loss
        for name, p in model.named_parameters() if anchors else ():
            importance, anchor = anchors[name]
            total = total + LAMBDA / 2 * (importance * (p - anchor) ** 2).sum()
        total.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def fisher_loop(case, file, exact):
    """One sample at a time, as van de Ven's estimate_fisher and Mammoth's ewc_on do; all labels need one backward
    pass each. Returns the time of a whole batch from a part of it, since the cost is the same for every sample."""
    model = model_of(case, file)
    params = list(model.parameters())
    x, y = file["x"], file["y"]
    part = 4 if exact else 32

    def step(i, samples=part):
        sums = [torch.zeros_like(p) for p in params]
        for b in range(samples):
            logits = model(x[i % 8][b : b + 1])
            logp = F.log_softmax(logits, 1)
            for c in range(logits.shape[1]) if exact else [int(y[i % 8][b])]:
                model.zero_grad()
                (-logp[0, c]).backward(retain_graph=exact)
                weight = float(logp[0, c].exp()) if exact else 1.0
                for s, p in zip(sums, params):
                    s += weight * p.grad ** 2
        return float(sum(s.double().sum() for s in sums))

    step.scale = PERCEPTRONS[case][4] / part
    step.whole = lambda i: step(i, PERCEPTRONS[case][4])
    return step


def fisher_vmap(case, file):
    """torch.func: gradients of every sample materialised, then squared and summed."""
    model = model_of(case, file)
    params = {k: v.detach() for k, v in model.named_parameters()}
    x, y = file["x"], file["y"]

    def loss(p, one_x, one_y):
        logits = torch.func.functional_call(model, p, (one_x.unsqueeze(0),))
        return F.cross_entropy(logits, one_y.unsqueeze(0))

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def step(i, chunk=64):
        total = 0.0
        for at in range(0, x.shape[1], chunk):
            g = per_sample(params, x[i % 8][at : at + chunk], y[i % 8][at : at + chunk])
            total += float(sum((v ** 2).sum(0).double().sum() for v in g.values()))
        return total

    return step


def masked_adam(file):
    w = torch.zeros(COUNT, requires_grad=True)
    mask = file["blocks"].float().repeat_interleave(BLOCK)
    optimizer = torch.optim.Adam([w], lr=1e-3, fused=True)
    w.grad = torch.full((COUNT,), 0.01)

    def step(i):
        w.grad.mul_(mask)
        optimizer.step()
        return 0.0

    return step


def overhead():
    x = torch.tensor(1.5, requires_grad=True)

    def step(i):
        x.grad = None
        (x * x).backward()
        return 0.0

    return step


def variants(case, file):
    """name -> step; the first one's losses are compared with stet's."""
    if case in (1, 2, 3, 6):
        return {"eager": training(case, file, None, False), "fused": training(case, file, True, False),
                "compile": training(case, file, True, True)}
    if case == 4:
        return {"loop": fisher_loop(4, file, False), "vmap": fisher_vmap(4, file)}
    if case == 5:
        return {"loop": fisher_loop(5, file, True)}
    if case == 7:
        return {"fused": masked_adam(file)}
    return {"eager": overhead()}
