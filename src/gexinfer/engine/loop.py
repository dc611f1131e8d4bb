"""The training loop of every network, alone or against others: minibatches, an error an epoch, the best epoch kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from gexinfer.engine import checkpoint
from gexinfer.engine.blocks import Indices, Pairs, row_slices
from gexinfer.engine.device import has_fast_bfloat16, idle_gpus, out_of_memory
from gexinfer.engine.divergence import diverged, refuse_diverged
from gexinfer.engine.feed import WINDOW, Feed, Resident, Streamed, buffer_rows, row_bytes, shuffled
from gexinfer.engine.memory import amount, available, taken
from gexinfer.engine.network import Network, Plan, Player, Step, Trained
from gexinfer.engine.processes import Processes, join
from gexinfer.engine.report import is_first, say, steps, warn
from gexinfer.engine.run import Run

# The paper watches the error on this many fixed training samples.
MONITOR_ROWS = 5000
# Weights, gradients, two moments of the optimiser, the best epoch, their average.
COPIES = 6


def train(
    network: Network,
    plan: Plan,
    training: Pairs,
    validation: Pairs,
    run: Run,
    unlabeled: Pairs | None = None,
    test: Pairs | None = None,
) -> Trained:
    """Train `network` in place and return its best epoch by validation MAE (standardised).

    A `KeyboardInterrupt` ends the training; where an epoch is complete, the best one is returned. Of `test` the error
    is measured, and nothing follows from it.
    """
    return Training(network, plan, training, validation, unlabeled, run, join(plan.device), test).finished()


class Training:
    """One training on its way: parameters, optimiser, and what has been measured."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        training: Pairs,
        validation: Pairs,
        unlabeled: Pairs | None,
        run: Run,
        processes: Processes,
        test: Pairs | None = None,
    ):
        self.network, self.plan, self.run, self.processes = network, plan, run, processes
        self.pairs, self.unlabeled_pairs, found = training, unlabeled, None
        if self.file is not None:
            # Now, because a place that cannot be written to shall not show after hours.
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.identity = checkpoint.identity(network, plan, training, validation, unlabeled)
            found = checkpoint.load(self.file, self.identity)
        free = available(plan.device)
        # It decides on the order of the rows, and what is free is another amount tomorrow and in another process.
        self.buffer = int(found[1]["buffer"] if found else processes.agree(buffer_rows(training, free)))
        self.validation, self.feed, self.unlabeled, self.test = self.feeds(free, validation, training, unlabeled, test)
        self.monitored = monitored(len(training))
        self.rates = {player.name: [g["lr"] for g in player.optimiser.param_groups] for player in plan.players}
        # Rows that go through the network at a time; fewer than a batch where the device lacks memory.
        self.micro = plan.batch_size
        self.half = has_fast_bfloat16(plan.device)
        self.kept = {name: p.detach().clone() for name, p in network.parameters.items()} if plan.ema else {}
        self.watched = copy(network)
        if plan.ema:
            self.watched.parameters = self.kept
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.first_loss = 0.0
        self.complained: set[str] = set()
        self.saved_at, self.saved_epoch = time.monotonic(), 0
        if plan.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(plan.device)
        if found is not None:
            self.resume(*found)
        if processes.agree(len(self.history)) != len(self.history):
            raise ValueError(
                f"Not all processes find the checkpoint {str(self.file)!r}; name a directory that all share."
            )

    def feeds(
        self, free: int, validation: Pairs, training: Pairs, unlabeled: Pairs | None, test: Pairs | None
    ) -> tuple[Feed, Feed, Feed | None, Feed | None]:
        """Return where rows come from, as many as fit resident on the device, and say what memory that takes."""
        plan = self.plan
        n_weights = sum(p.numel() for p in self.network.parameters.values())
        fixed = 4 * n_weights * COPIES + plan.batch_size * (4 * plan.activations + row_bytes(training))
        # Some is left to others, and to what no estimate foresees.
        room = 0.8 * free - fixed

        def placed(pairs: Pairs) -> Feed:
            nonlocal room, fixed
            size = len(pairs) * row_bytes(pairs)
            if size <= room:
                room -= size
                fixed += size
                return Resident(pairs, plan.device, self.buffer)
            fixed += 3 * self.buffer * row_bytes(pairs)
            return Streamed(pairs, plan.device, self.buffer)

        watched, learned = placed(validation), placed(training)
        others = [None if pairs is None else placed(pairs) for pairs in (unlabeled, test)]
        if self.run.progress:
            how = "all rows" if isinstance(learned, Resident) else f"{self.buffer:,} rows at a time"
            say(
                f"{plan.title}: {n_weights:,} weights on {plan.device}, about {amount(fixed)} with {how} there; "
                f"{amount(free)} are free"
            )
            idle = idle_gpus(plan.device)
            if idle and self.processes.size == 1:
                say(
                    f"{plan.title}: {idle} more GPUs are idle. To use all: torchrun --nproc-per-node {idle + 1} -m "
                    f"gexinfer fit reference.h5ad --method {plan.title.split()[0]}"
                )
        return watched, learned, others[0], others[1]

    def finished(self) -> Trained:
        """Go through the epochs that are left."""
        plan, interrupted = self.plan, False
        with steps(f"{plan.title} epoch", plan.epochs, show=self.run.progress) as advance:
            if self.history:
                advance(len(self.history), f"MAE val {self.best_error:.4f}, from the checkpoint")
            try:
                for epoch in range(len(self.history) + 1, plan.epochs + 1):
                    told = self.epoch(epoch)
                    advance(
                        1,
                        f"MAE train {told['train_mae']:.4f}, val {told['validation_mae']:.4f}, "
                        f"{told['samples_per_second']:,.0f} samples/s",
                    )
                    if self.run.callback is not None and is_first():
                        self.run.callback(told)
            except KeyboardInterrupt:
                if not self.history:
                    raise
                interrupted = True
        parameters = {name: p.cpu().numpy() for name, p in self.best.items()}
        history = {name: np.array([entry[name] for entry in self.history]) for name in self.history[0]}
        return Trained(parameters, self.best_epoch, history, interrupted, self.saved_epoch)

    @property
    def best_epoch(self) -> int:
        return int(np.argmin([entry["validation_mae"] for entry in self.history])) + 1

    @property
    def best_error(self) -> float:
        return min((entry["validation_mae"] for entry in self.history), default=np.inf)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Learn from each row once, measure, and return what is known of the epoch."""
        plan, started = self.plan, time.perf_counter()
        order = torch.Generator().manual_seed(seed_of(plan.seed, epoch, 0))
        # One each, so that what the last draws does not depend on which others there are.
        noises = [
            torch.Generator(plan.device).manual_seed(seed_of(plan.seed, epoch, 1 + self.processes.rank, *before))
            for before in [*((k,) for k in range(1, len(plan.players))), ()]
        ]
        picks = shuffled(self.pairs, plan.batch_size, self.buffer, order)
        errors = [entry["train_mae"] for entry in self.history]
        rates: list[list[float]] = []
        # They stay on the device: to ask for one would halt it.
        measured: list[Tensor] = []
        for i, (x, y, unlabeled) in enumerate(self.batches(picks, order)):
            if self.run.stop.is_set():
                raise KeyboardInterrupt
            done = ((epoch - 1) * len(picks) + i) / (plan.epochs * len(picks))
            told: dict[str, Tensor] = {}
            rates.append([])
            for player, noise in zip(plan.players, noises, strict=True):
                groups = player.optimiser.param_groups
                for group, base in zip(groups, self.rates[player.name], strict=True):
                    group["lr"] = player.schedule(base, done, errors)
                rates[-1].append(groups[0]["lr"])
                told |= self.gradients(player, Step(x, y, unlabeled, noise, done), len(picks[i]))
                self.processes.sum(weight.grad for weight in weights_of(player) if weight.grad is not None)
                player.optimiser.step()
            measured.append(torch.stack(list(told.values())))
            if plan.ema:
                self.average((epoch - 1) * len(picks) + i)
        values = torch.stack(measured)
        self.processes.sum([values])
        terms = dict(zip(told, values.cpu().numpy().T, strict=True))
        self.first_loss = self.first_loss or float(terms["loss"][0])
        refuse_diverged(plan, terms, self.first_loss, self.rates, rates, epoch)
        seconds = time.perf_counter() - started
        settled = self.watched.settle(self.validation.blocks())
        entry = {name: float(column.mean()) for name, column in terms.items()} | {
            **{name: self.processes.agree(value) for name, value in settled.items()},
            "train_mae": self.processes.agree(error(self.watched, self.feed, self.monitored)),
            "validation_mae": self.processes.agree(error(self.watched, self.validation)),
            "learning_rate": rates[-1][-1],
        }
        if self.test is not None:
            entry["test_mae"] = self.processes.agree(error(self.watched, self.test))
        if not np.isfinite(entry["validation_mae"]):
            how = f"the validation MAE is {entry['validation_mae']}"
            raise diverged(plan, self.rates, rates, epoch, len(picks) - 1, how)
        if entry["validation_mae"] < self.best_error:
            self.best = {name: p.detach().clone() for name, p in self.watched.parameters.items()}
        self.history.append(entry)
        self.save(epoch)
        self.complain(epoch)
        memory = torch.cuda.max_memory_allocated(plan.device) if plan.device.type == "cuda" else taken()
        return {
            "title": plan.title,
            "epoch": epoch,
            "epochs": plan.epochs,
            **entry,
            "samples_per_second": len(self.pairs) / seconds,
            "memory_bytes": memory,
        }

    def batches(
        self, picks: Sequence[Tensor], order: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield this process's rows of each batch, and as many without targets where there are such."""
        share = self.processes.share
        pairs = self.feed.batches([share(batch) for batch in picks])
        if self.unlabeled is None or self.unlabeled_pairs is None:
            yield from ((x, y, None) for x, y in pairs)
            return
        wanted = len(self.pairs)
        mixed: list[Tensor] = []
        while sum(map(len, mixed)) < wanted:
            mixed += shuffled(self.unlabeled_pairs, self.plan.batch_size, self.buffer, order)
        others = torch.cat(mixed)[:wanted].split([len(batch) for batch in picks])
        for (x, y), (unlabeled, _) in zip(pairs, self.unlabeled.batches([share(part) for part in others]), strict=True):
            yield x, y, unlabeled

    def gradients(self, player: Player, step: Step, of: int) -> dict[str, Tensor]:
        """Leave a player's gradients of a batch of `of` rows, of which these are this process's; return the terms."""
        x, weights = step.x, weights_of(player)
        self.network.prepare(player.name)
        while True:
            loss = terms = None
            try:
                told: dict[str, Tensor] = {}
                for weight in weights:
                    # With no row there is no gradient, but the other processes wait for it.
                    weight.grad = None if len(x) else torch.zeros_like(weight)
                # Without a row, the names of the terms are needed all the same.
                for part in row_slices(len(x), self.micro) if len(x) else [slice(0, 0)]:
                    n = part.stop - part.start
                    with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half):
                        loss = self.network.loss(player.name, step.part(part))
                    if n:
                        (loss.total * n / of).backward()
                    terms = {self.plan.loss_of(player): loss.total / loss.networks, **loss.terms}
                    for name, term in terms.items():
                        # A mean over no row is NaN.
                        value = term.detach().float() * n / of if n else torch.zeros((), device=x.device)
                        told[name] = told[name] + value if name in told else value
                return told
            except RuntimeError as failed:
                if not out_of_memory(failed) or min(self.micro, len(x)) < 2:
                    raise
                del loss, terms  # they hold on to all that they were computed from
                self.micro = -(-min(self.micro, len(x)) // 2)
            if x.device.type == "cuda":
                torch.cuda.empty_cache()
            warn(
                f"{self.plan.title}: out of memory on {x.device} with {len(x):,} rows; going on with {self.micro:,} at "
                "a time, which takes longer and has the same gradient, but for what is drawn at random. A smaller "
                "batch_size= or hidden= avoids it."
            )

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Move the kept parameters towards the present ones, faster in the beginning, when they move far."""
        weight = 1 - min(self.plan.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.kept.values()), list(self.network.parameters.values()), weight)

    def complain(self, epoch: int) -> None:
        """Say what goes wrong, each thing once."""
        for word, complaint in self.network.complaints(self.history).items():
            if word not in self.complained:
                self.complained.add(word)
                warn(f"{self.plan.title}, epoch {epoch}: {complaint}")

    @property
    def file(self) -> Path | None:
        return None if self.run.checkpoint is None else self.run.checkpoint / f"{self.plan.title}.safetensors"

    def save(self, epoch: int) -> None:
        """Write the state where it is due."""
        run = self.run
        due = run.every_epochs and epoch % run.every_epochs == 0
        due = due or (run.every_seconds and time.monotonic() - self.saved_at >= run.every_seconds)
        if self.file is None or not is_first() or not (due or epoch == self.plan.epochs):
            return
        tensors = dict(self.named(self.network.parameters, "parameter"))
        tensors |= dict(self.named(self.kept, "kept")) | dict(self.named(self.best, "best"))
        for player in self.plan.players:
            tensors |= checkpoint.optimiser_tensors(player.name, player.optimiser)
        notes = {
            "training": self.identity,
            "history": self.history,
            "first_loss": self.first_loss,
            "buffer": self.buffer,
            "micro": self.micro,
        }
        checkpoint.save(self.file, tensors, notes)
        self.saved_at, self.saved_epoch = time.monotonic(), epoch

    def named(self, tensors: Mapping[str, Tensor], kind: str) -> Iterator[tuple[str, Tensor]]:
        return ((f"{kind}.{name}", tensor) for name, tensor in tensors.items())

    @torch.no_grad()
    def resume(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        for kind, there in (("parameter", self.network.parameters), ("kept", self.kept)):
            for name, tensor in there.items():
                tensor.copy_(tensors[f"{kind}.{name}"])
        self.best = {n: tensors[f"best.{n}"].to(self.plan.device) for n in self.network.parameters}
        for player in self.plan.players:
            checkpoint.restore_optimiser(player.name, player.optimiser, tensors)
        self.history, self.first_loss, self.micro = notes["history"], notes["first_loss"], notes["micro"]
        self.saved_epoch = len(self.history)
        if self.run.progress:
            say(f"{self.plan.title}: going on after epoch {self.saved_epoch}, from the checkpoint {str(self.file)!r}")


def weights_of(player: Player) -> list[Tensor]:
    return [weight for group in player.optimiser.param_groups for weight in group["params"]]


def monitored(n: int) -> Indices | None:
    """Return which of n rows are watched: None for all, or some from everywhere, in runs that are cheap to read."""
    if n <= MONITOR_ROWS:
        return None
    first = np.linspace(0, n - WINDOW, MONITOR_ROWS // WINDOW).astype(np.intp)
    return np.unique(first[:, None] + np.arange(WINDOW))


@torch.no_grad()
def error(network: Network, feed: Feed, picks: Indices | None = None) -> float:
    """Return the MAE over all entries of some rows, or all."""
    sums = [l1_loss(network.infer(x), y) * len(x) for x, y in feed.blocks(picks)]
    return float(torch.stack(sums).sum()) / (len(feed) if picks is None else len(picks))


def seed_of(seed: int, epoch: int, *use: int) -> int:
    """Return a seed of its own for each epoch and use, so that an epoch is the same whatever went before it."""
    return int(np.random.SeedSequence([seed, epoch, *use]).generate_state(1, np.uint64)[0] >> 1)
