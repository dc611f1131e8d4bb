"""How models of several target blocks are trained, each network from scratch or from another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float, Indices, Pairs, evenly
from gexinfer.engine.device import fast_products, pick_device
from gexinfer.engine.loop import seed_of, train
from gexinfer.engine.network import Plan, Trained
from gexinfer.engine.processes import join
from gexinfer.engine.report import warn
from gexinfer.methods._contract import Model, Start, Task
from gexinfer.methods._ensemble import Ensemble
from gexinfer.methods._perceptron import Perceptron, output_of
from gexinfer.methods._trunks import STRUCTURED, structure

# Targets are clustered on their values in this many training rows.
CLUSTER_ROWS = 2000


def fit(network: type[Perceptron], name: str, task: Task, config: Any, linear: Float | None = None) -> Model:
    """Train the networks of a method of this name, one for each block of targets.

    With (landmarks, targets) coefficients of a linear model their linear path starts there, not at 0, and they know it.
    """
    devices = [pick_device(device) for device in task.device.split(",")]
    processes = join(devices[0])
    if len(devices) > 1 and processes.size > 1:
        raise ValueError(f"device={task.device!r} names several, but under torchrun each process takes one; name none.")
    # The first process's, because the others may have come with a generator of their own.
    blocks = processes.same(assigned(task, config))
    seeds = processes.same(task.rng.integers(2**63, size=config.target_blocks)).tolist()
    fixed = structure(config.trunk, config.structure, task.train, task.rng)
    fixed = {slot: processes.same(array) for slot, array in fixed.items()}
    if task.start is not None and fixed:
        fixed = structure_of(task.start)
    linear = None if linear is None else processes.same(linear)

    n = config.target_blocks
    titles = [name if n == 1 else f"{name} block {b + 1} of {n}" for b in range(n)]

    def learned(b: int) -> Trained:
        own = np.flatnonzero(blocks == b)
        return learn(network, task, config, fixed, linear, own, b, devices[b % len(devices)], seeds[b], titles[b])

    with fast_products(devices[0]):
        trained = run_each(task, learned, n, len(devices), name)
    arrays: dict[str, np.ndarray] = {"block": blocks, **fixed}
    notes: dict[str, int] = {} if task.unlabeled is None else {"n_unlabeled": len(task.unlabeled)}
    for b, found in enumerate(trained):
        arrays |= {f"{b}.{slot}": p for slot, p in found.parameters.items()}
        arrays |= {f"{b}.history.{slot}": values for slot, values in found.history.items()}
        notes["best_epoch" if len(trained) == 1 else f"best_epoch_{b + 1}"] = found.best_epoch
        if found.interrupted:
            done = len(found.history["loss"])
            notes["epochs_done" if len(trained) == 1 else f"epochs_done_{b + 1}"] = done
            warn(
                f"{titles[b]}: interrupted in epoch {done + 1} of {config.epochs}; the model is that of epoch "
                f"{found.best_epoch}, the best so far (validation MAE {found.history['validation_mae'].min():.4f}). "
                f"{how_to_go_on(task, found)}"
            )
    return Model(arrays, notes)


def run_each(task: Task, learned: Callable[[int], Trained], n: int, n_devices: int, name: str) -> list[Trained]:
    """Train networks one after another, or as many at a time as there are devices."""
    if n_devices == 1:
        trained = []
        for b in range(n):
            trained.append(learned(b))
            if trained[-1].interrupted and b + 1 < n:
                raise KeyboardInterrupt(
                    f"{name}: interrupted in block {b + 1} of {n}, so that targets are left without a network. "
                    f"{how_to_go_on(task, trained[-1])}"
                )
        return trained
    with ThreadPoolExecutor(n_devices) as threads:
        coming = [threads.submit(learned, b) for b in range(n)]
        with suppress(KeyboardInterrupt):
            wait(coming, return_when=FIRST_EXCEPTION)
        if not all(network.done() for network in coming):
            # Cut short, or one has failed: the others would go on to their end.
            task.run.stop.set()
        wait(coming)
        errors = [network.exception() for network in coming]
        for error in errors:
            # Those that were stopped for its sake say less than the one that failed.
            if error is not None and not isinstance(error, KeyboardInterrupt):
                raise error
        return [network.result() for network in coming]


def how_to_go_on(task: Task, found: Trained) -> str:
    """Say what an interrupted training can do."""
    if task.run.checkpoint is None:
        return "With checkpoint= a training can be continued."
    if found.saved_epoch == 0:
        return "No checkpoint was due yet: a smaller checkpoint_every= writes them more often."
    return f"The same call goes on after epoch {found.saved_epoch}."


def learn(
    network: type[Perceptron],
    task: Task,
    config: Any,
    fixed: Mapping[str, Indices],
    linear: Float | None,
    targets: Indices,
    b: int,
    device: torch.device,
    seed: int,
    title: str,
) -> Trained:
    """Train the network of some targets."""
    training, validation = task.train.only(targets), task.validation.only(targets)
    n_in, n_out = training.n_landmarks, training.n_targets
    drawn = [
        network.drawn(config, n_in, n_out, torch.Generator().manual_seed(of_one))
        for of_one in member_seeds(seed, config.n_members)
    ]
    there = {name: torch.from_numpy(a) for name, a in fixed.items()}
    if linear is not None:
        there["linear"] = torch.from_numpy(np.ascontiguousarray(linear[:, targets].T))
        drawn = [{**own, "skip.weight": there["linear"]} for own in drawn]
    if task.start is not None:
        drawn = [begun(own, network.others, task.start, targets, b, m) for m, own in enumerate(drawn)]
    learning = (
        network.learning(config, drawn[0], there, device)
        if len(drawn) == 1
        else Ensemble.learning(network, config, drawn, there, device)
    )
    plan = Plan(
        learning.players(),
        config.epochs,
        config.batch_size,
        config.ema,
        device,
        learning.activations(n_in, n_out),
        seed,
        title,
        asdict(config),
    )
    test = None if task.run.test is None else Pairs(task.run.test, task.train.scale).only(targets)
    found = train(learning, plan, training, validation, task.run, task.unlabeled, test)
    return replace(found, parameters=learning.learned(found.parameters))


def member_seeds(seed: int, n: int) -> list[int]:
    """Return the seeds of the members' first weights; the first is that of a network alone."""
    return [seed, *(seed_of(seed, 0, m) for m in range(1, n))]


def assigned(task: Task, config: Any) -> Indices:
    """Return which network infers each target."""
    n, q = config.target_blocks, task.train.n_targets
    if n > q:
        raise ValueError(f"target_blocks={n} are more than the {q:,} targets.")
    if config.block_by == "clusters" and n > 1:
        from sklearn.cluster import KMeans

        some = evenly(len(task.train), CLUSTER_ROWS)
        _, Y = task.train.select(some).arrays()
        blocks = KMeans(n, random_state=int(task.rng.integers(2**31))).fit_predict(Y.T)
    else:
        blocks = task.rng.permutation(np.arange(q) % n)
    if task.start is not None:
        # A target stays with the network that knows it.
        known = task.start.targets >= 0
        blocks[known] = task.start.model.arrays["block"][task.start.targets[known]]
    idle = np.flatnonzero(np.bincount(blocks, minlength=n) == 0)
    if len(idle):
        raise ValueError(
            f"Network {idle[0] + 1} of the {n} of target_blocks is left without a target; use fewer of them."
        )
    return blocks.astype(np.int32)


def structure_of(start: Start) -> dict[str, Indices]:
    """Return another model's neighbours for our landmarks, which must be the same."""
    order, known = start.model.arrays["order"], start.landmarks
    if len(known) != len(order) or (known < 0).any():
        raise ValueError(
            f"init has {len(order):,} landmarks, of which adata has {(known >= 0).sum():,} among its {len(known):,}; "
            f"a network of trunk={start.config.trunk!r} can only be started from with the same landmarks."
        )
    ours = np.empty_like(order)
    ours[known] = np.arange(len(known))
    return {slot: start.model.arrays[slot] for slot in ("neighbours",) if slot in start.model.arrays} | {
        "order": ours[order]
    }


def begun(
    drawn: Mapping[str, Tensor], others: tuple[str, ...], start: Start, targets: Indices, b: int, m: int
) -> dict[str, Tensor]:
    """Return another model's network b, of an ensemble its member m, for our genes.

    A new landmark has no weight yet, a new target those drawn. The weights work on standardised genes as they did, so
    that moments of the new rows take the place of the old: a shift of all samples, as between two studies, is taken up
    at once. Kept in units of the data, the network would have to unlearn it, and mostly ended worse than one from
    scratch. Whoever learns beside it begins anew.
    """
    place_in = np.full(len(start.model.arrays["block"]), -1)
    own = np.flatnonzero(start.model.arrays["block"] == b)
    place_in[own] = np.arange(len(own))
    x_there, y_there = np.flatnonzero(start.landmarks >= 0), np.flatnonzero(start.targets[targets] >= 0)
    x_old, y_old = start.landmarks[x_there], place_in[start.targets[targets][y_there]]
    n_in, last = len(start.landmarks), output_of(start.config)

    new = dict(drawn)
    for name, fresh in drawn.items():
        if name.startswith(others):
            continue
        stored = start.model.arrays[f"{b}.{name}"]
        old = torch.from_numpy(stored[m] if start.config.n_members > 1 else stored)
        rows = name.startswith((f"{last}.", "skip."))
        if fresh.ndim != 2 or not sees_landmarks(name, start.config.trunk):
            new[name] = fresh.clone() if rows else old.clone()
            if rows:
                new[name][y_there] = old[y_old]
            continue
        p_old = old.shape[1] - (fresh.shape[1] - n_in)
        # Landmarks come first in what a layer sees.
        weights = torch.cat([old.new_zeros(len(old), n_in), old[:, p_old:]], 1)
        weights[:, x_there] = old[:, x_old]
        if rows:
            new[name] = fresh.clone()
            new[name][y_there] = weights[y_old]
        else:
            new[name] = weights
    return new


def sees_landmarks(name: str, trunk: str) -> bool:
    """Whether the first columns of these weights belong to the landmarks."""
    return name == "skip.weight" or trunk == "dense" or (name == "0.weight" and trunk not in STRUCTURED)
