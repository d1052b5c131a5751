"""The networks of models/define.py trained by other frameworks, one a process, for bench/train.py.

A peer warms up on one epoch, says "ready", and then trains an epoch for every line on stdin; it answers with wall seconds, CPU
seconds and the loss. Data come from a folder as bench/train.py makes it, sequences in their dense form.
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = 801  # particles of a dense event
CLASSES = 3


def load(folder, inputs, rows):
    """Arrays by input, sequences padded with zeros to STEPS, and the labels."""
    import numpy as np
    arrays = {}
    for name, width in inputs.items():
        values = np.fromfile(f"{folder}/{name}.f32", np.float32).reshape(-1, width)
        offsets = Path(f"{folder}/{name}.i64")
        if offsets.exists():
            offsets = np.fromfile(offsets, np.int64)
            dense = np.zeros((rows, STEPS, width), np.float32)
            for row in range(rows):
                dense[row, :offsets[row + 1] - offsets[row]] = values[offsets[row]:offsets[row + 1]]
            values = dense
        arrays[name] = values
    return arrays, np.fromfile(f"{folder}/label.i32", np.int32)


def serve(train_epoch):
    train_epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = train_epoch()
        print(time.perf_counter() - wall, time.process_time() - cpu, loss, flush=True)


# ---- Keras, with TensorFlow or JAX ----------------------------------------------------------------------------------


def keras_peer(task):
    sys.path.insert(0, str(ROOT / "models"))
    import define
    import keras
    import numpy as np
    arrays, label = load(task["folder"], task["inputs"], task["rows"])
    model = getattr(define, task["network"])()
    x = [arrays[i.name] for i in model.inputs] if len(arrays) > 1 else next(iter(arrays.values()))
    y = np.eye(CLASSES, dtype=np.float32)[label]
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", **task["options"])
    serve(lambda: model.fit(x, y, batch_size=task["batch"], epochs=1, shuffle=True, verbose=0).history["loss"][0])


# ---- PyTorch: the same networks, written as its users write them ------------------------------------------------------


def torch_network(name):
    import torch
    from torch import nn

    class Inclusive(nn.Module):
        """A branch for the particles beside the high-level features."""

        def __init__(self, particles, width):
            super().__init__()
            self.particles, self.drop = particles, nn.Dropout(0.2)
            self.head = nn.Sequential(nn.Linear(width + 14, 25), nn.ReLU(), nn.Linear(25, CLASSES))

        def forward(self, particles, hlf):
            return self.head(torch.cat([self.particles(particles), self.drop(hlf)], 1))

    class Recurrent(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layer, self.drop = kind(19, 50, batch_first=True), nn.Dropout(0.2)

        def forward(self, x):
            return self.drop(self.layer(x)[0][:, -1])

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(19, 8 * 19) for _ in range(3))
            self.out, self.norm, self.drop = nn.Linear(8 * 19, 19), nn.LayerNorm(19, eps=1e-6), nn.Dropout(0.2)
            self.step, self.last = nn.Linear(19, 20), nn.Linear(STEPS * 20, 10)

        def forward(self, x):
            heads = [f(x).unflatten(2, (8, 19)).transpose(1, 2) for f in (self.query, self.key, self.value)]
            x = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            x = self.drop(self.norm(self.out(x)))
            return torch.relu(self.last(torch.relu(self.step(x)).flatten(1)))

    if name == "hlf":
        return nn.Sequential(nn.Linear(14, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(),
                             nn.Linear(10, CLASSES))
    if name == "inclusive_transformer":
        return Inclusive(Transformer(), 10)
    return Inclusive(Recurrent(nn.GRU if name == "inclusive_gru" else nn.LSTM), 50)


def torch_peer(task):
    import torch
    torch.set_num_threads(1)
    arrays, label = load(task["folder"], task["inputs"], task["rows"])
    inputs = [torch.from_numpy(arrays[name]) for name in task["inputs"]]
    label = torch.from_numpy(label).long()
    model = torch_network(task["network"])
    how = task["options"]["compile"]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7, fused=how != "step", foreach=how == "step")

    def loss_of(x, target):
        return torch.nn.functional.cross_entropy(model(*x), target)

    step = optimizer.step
    if how:
        loss_of = torch.compile(loss_of)
    if how == "step":
        step = torch.compile(optimizer.step)

    def train_epoch():
        order, loss = torch.randperm(len(label)), None
        x, target = [a[order] for a in inputs], label[order]  # at once: cheaper than batch by batch
        for i in range(0, len(label), task["batch"]):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of([a[i:i + task["batch"]] for a in x], target[i:i + task["batch"]])
            loss.backward()
            step()
        return float(loss.detach())

    serve(train_epoch)


# ---- JAX by hand: what expert work gives for the HLF network alone ------------------------------------------------------


def jax_peer(task):
    """The whole epoch is one compiled scan, so nothing is left of Python's overhead."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    widths, rows, batch = (14, 50, 20, 10, CLASSES), task["rows"], task["batch"]
    shuffler = np.random.default_rng(1)
    arrays, label = load(task["folder"], task["inputs"], rows)
    x = arrays["hlf"]
    keys = jax.random.split(jax.random.key(1), len(widths))
    weights = [(jax.nn.initializers.glorot_uniform()(k, (a, b)), jnp.zeros(b))
               for k, a, b in zip(keys, widths[:-1], widths[1:])]
    steps = rows // batch

    def loss_of(weights, inputs, target):
        for kernel, bias in weights[:-1]:
            inputs = jax.nn.relu(inputs @ kernel + bias)
        scores = jax.nn.log_softmax(inputs @ weights[-1][0] + weights[-1][1])
        return -jnp.mean(jnp.take_along_axis(scores, target[:, None], 1))

    def step(state, data):
        weights, m, v, n = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, *data)
        m = jax.tree.map(lambda a, g: a + 0.1 * (g - a), m, gradients)
        v = jax.tree.map(lambda a, g: a + 0.001 * (g * g - a), v, gradients)
        alpha = 1e-3 * jnp.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        weights = jax.tree.map(lambda w, a, b: w - alpha * a / (jnp.sqrt(b) + 1e-7), weights, m, v)
        return (weights, m, v, n + 1), loss

    @jax.jit
    def epoch(state, inputs, target):
        return jax.lax.scan(step, state, (inputs, target))

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, zeros, jnp.float32(1))]

    def train_epoch():
        order = shuffler.permutation(rows)[:steps * batch]
        inputs, target = x[order].reshape(steps, batch, -1), label[order].reshape(steps, batch)
        state[0], losses = epoch(state[0], inputs, target)
        return float(losses.mean())

    serve(train_epoch)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    {"keras": keras_peer, "torch": torch_peer, "jax": jax_peer}[given["framework"]](given)
