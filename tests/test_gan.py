"""The GANs: that each term pulls, and where; that the discriminator judges; that it shows when they do not get on."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from math import sqrt

import anndata as ad
import numpy as np
import pytest
import torch
from conftest import standardised
from scipy.stats import energy_distance
from torch.nn import functional as F

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine import loop
from gexinfer.engine.feed import shuffled
from gexinfer.engine.network import Step
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods._adversarial import LOSSES, Discriminator, gradient_penalty, signs
from gexinfer.methods._perceptron import Perceptron, optimiser_of
from gexinfer.methods.ggan import GGAN, Conditional
from gexinfer.methods.semigan import Cooperating, SemiGAN

QUICK = {"epochs": 3, "hidden": 16, "discriminator_hidden": 16}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def conditional(n_in=6, n_out=4, **options) -> Conditional:
    config = GGAN(**{"hidden": 8, "discriminator_hidden": 8, "warm_up": 0.0, **options})
    drawn = Conditional.drawn(config, n_in, n_out, generator())
    return Conditional.learning(config, drawn, {}, torch.device("cpu"))


def step(n=32, n_in=6, n_out=4, done=0.5, unlabeled=None, seed=1) -> Step:
    x, y = torch.randn(n, n_in, generator=generator(seed)), torch.randn(n, n_out, generator=generator(seed + 1))
    return Step(x, y, unlabeled, generator(seed + 2), done)


def gradient(loss, network, name):
    return torch.autograd.grad(loss, network.parameters[name], retain_graph=True)[0]


def weights(adata, key):
    return records(adata, key)[key].model.arrays


# ---- the terms


def test_the_adversarial_term_pulls_what_is_shown_to_where_scores_are_high():
    network = conditional(dropout=0.0, input_noise=0.1)
    with torch.no_grad():  # a score that rises with each target
        network.parameters["discriminator.0.weight"].fill_(0.1)
        network.parameters["discriminator.1.weight"].fill_(0.1)
        network.parameters["discriminator.1.bias"].fill_(-3.0)
    batch, output = step(done=0.4), "2.bias"
    shown = network.visible(replace(batch, generator=generator(5)), batch.y)
    assert 0 < shown.sum() < len(shown)
    for name in LOSSES:
        network.config = replace(network.config, adversarial=name)
        scores = network.judge().frozen().score(batch.x, network.infer(batch.x), shown)
        assert (scores < 1).all()
        pull = gradient(LOSSES[name][1](scores), network, output)
        assert (pull[shown] < 0).all(), name  # a step against it raises what is inferred
        assert (pull[~shown] == 0).all(), name
    terms = network.loss("network", batch).terms
    assert gradient(terms["adversarial"], network, "0.weight").abs().max() > 0


def test_the_consistency_term_pulls_towards_weights_that_do_not_amplify_noise():
    network = conditional(trunk="mlp", layers=1, dropout=0.0, lambda_adv=0.0)
    with torch.no_grad():
        network.parameters["1.weight"].zero_()
        network.parameters["skip.weight"].normal_(generator=generator(3))
    term = network.loss("network", step()).terms["consistency"]
    # Of a linear path it is a square in its weights: their product with the gradient is twice the term.
    pull = gradient(term, network, "skip.weight")
    assert (pull * network.parameters["skip.weight"]).sum().item() == pytest.approx(2 * term.item(), rel=1e-4)
    # The two perturbations are independent: the variance of what is inferred, twice.
    many = network.loss("network", step(n=20_000)).terms["consistency"]
    expected = 2 * network.config.input_noise**2 * network.parameters["skip.weight"].square().sum(1).mean()
    assert many.item() == pytest.approx(expected.item(), rel=0.03)


def test_the_l1_term_pulls_towards_what_was_measured():
    network, batch = conditional(dropout=0.0, input_noise=0.0, lambda_cons=0.0), step()
    pull = gradient(network.loss("network", batch).terms["l1"], network, "2.bias")
    expected = torch.sign(network.infer(batch.x) - batch.y).mean(0) / 4
    torch.testing.assert_close(pull, expected)


def test_the_terms_add_up_with_their_weights_and_the_warm_up():
    for done, ramp in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)):
        network = conditional(lambda_adv=3.0, lambda_cons=2.0, warm_up=0.4)
        loss = network.loss("network", step(done=done))
        terms = loss.terms
        expected = terms["l1"] + 3 * ramp * terms["adversarial"] + 2 * terms["consistency"]
        torch.testing.assert_close(loss.total, expected)


def test_the_pull_of_the_adversarial_term_is_about_the_same_for_500_genes_as_for_10000():
    """With as many landmarks and units as there are by default: twofold, as the page says, and not ninefold."""
    pulls = []
    for n_out in (500, 10_000):
        network = conditional(978, n_out, lambda_cons=0.0, discriminator_hidden=500)
        for _ in range(100):
            network.prepare("discriminator")
        batch = replace(step(16, 978, n_out), done=1.0)
        inferred = network.infer(batch.x).detach().requires_grad_()
        scores = network.judge().frozen().score(batch.x, inferred, torch.ones(n_out, dtype=torch.bool))
        adversarial = LOSSES["hinge"][1](scores) / sqrt(n_out)
        both = [torch.autograd.grad(term, inferred)[0].norm() for term in (adversarial, F.l1_loss(inferred, batch.y))]
        pulls.append((both[0] / both[1]).item())
    assert 1.7 < pulls[1] / pulls[0] < 2.5


def test_without_the_other_terms_it_is_plain_l1_training_bit_for_bit(small, monkeypatch):
    # The training below is in float32, also where a processor is faster in bfloat16.
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: False)
    options = {"hidden": 12, "layers": 2, "epochs": 4, "batch_size": 50, "lambda_adv": 0.0, "lambda_cons": 0.0}
    gx.tl.fit(small, "ggan", progress=False, **options)

    (x, y), (x_held, y_held) = (map(torch.from_numpy, pair) for pair in standardised(small, "train", "validation"))
    task, config = {}, GGAN(**options)

    def spy(network, plan, training, validation, run, *others, true=loop.train):
        task.update(plan=plan, training=training, validation=validation)
        return true(network, plan, training, validation, run, *others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gexinfer.methods._fitting.train", spy)
        gx.tl.fit(small, "ggan", key_added="again", progress=False, **options)
    seed = task["plan"].seed
    X, Y = (torch.from_numpy(a) for a in task["training"].arrays())
    X_held, Y_held = (torch.from_numpy(a) for a in task["validation"].arrays())
    torch.testing.assert_close(X, x.float(), atol=1e-5, rtol=1e-5)

    drawn = Perceptron.drawn(config, 60, 90, generator(seed))
    network = Perceptron.learning(config, drawn, {}, torch.device("cpu"))
    optimiser = optimiser_of(config, network.parameters)
    best, kept = np.inf, None
    for epoch in range(1, 5):
        picks = shuffled(task["training"], 50, 10**6, generator(loop.seed_of(seed, epoch, 0)))
        noise = generator(loop.seed_of(seed, epoch, 1))
        for i, rows in enumerate(picks):
            for group in optimiser.param_groups:
                done = ((epoch - 1) * len(picks) + i) / (4 * len(picks))
                group["lr"] = SCHEDULES[config.schedule](config.learning_rate, done, [])
            optimiser.zero_grad()
            F.l1_loss(network.forward(X[rows], noise), Y[rows]).backward()
            optimiser.step()
        error = F.l1_loss(network.infer(X_held), Y_held).item()
        if error < best:
            best, kept = error, {name: p.detach().clone().numpy() for name, p in network.parameters.items()}
    found = weights(small, "ggan")
    assert kept.keys() == {name.removeprefix("0.") for name in found if "history" not in name} - {"block"}
    for name, p in kept.items():
        np.testing.assert_array_equal(found[f"0.{name}"], p, err_msg=name)


# ---- the discriminator


@pytest.mark.parametrize("adversarial", LOSSES)
@pytest.mark.parametrize("norm", ["none", "weight", "spectral"])
def test_the_discriminator_learns_from_measured_and_from_inferred_pairs(adversarial, norm):
    network = conditional(
        adversarial=adversarial, discriminator_norm=norm, lambda_cons=0.0, input_noise=0.0, dropout=0.0
    )
    with torch.no_grad():
        network.parameters["2.weight"].normal_(generator=generator(3))
    batch = step()
    total = network.loss("discriminator", batch).total
    assert all(p.grad is None for p in network.parameters.values())
    # The obvious way, with the same draw of what is visible.
    again = generator(3)
    visible = torch.rand(4, generator=again) < 0.1 + 0.89 * 0.5
    judge, inferred = network.judge(), network.infer(batch.x).detach()
    real, made = judge.score(batch.x, batch.y, visible), judge.score(batch.x, inferred, visible)
    parts = {
        "least_squares": ((real - 1).square().mean() / 2, made.square().mean() / 2),
        "hinge": ((1 - real).clamp(min=0).mean() / 2, (1 + made).clamp(min=0).mean() / 2),
        "wasserstein": (-real.mean(), made.mean()),
    }[adversarial]
    pulls = [gradient(part, network, "discriminator.0.weight") for part in parts]
    assert all(pull.abs().max() > 0 for pull in pulls)
    if adversarial == "wasserstein":
        penalty = gradient_penalty(judge, batch.x, batch.y, inferred, visible, replace(batch, generator=again))
        pulls.append(gradient(penalty, network, "discriminator.0.weight"))
    torch.testing.assert_close(gradient(total, network, "discriminator.0.weight"), sum(pulls), rtol=1e-4, atol=1e-6)


def test_who_is_judged_does_not_change_the_judge_and_the_other_way_round():
    network, batch = conditional(), step()
    network.loss("network", batch).total.backward()
    network.loss("network", batch).total.backward()
    assert all((p.grad is None) == name.startswith("discriminator.") for name, p in network.parameters.items())
    for p in network.parameters.values():
        p.grad = None
    network.loss("discriminator", batch).total.backward()
    learned = {name for name, p in network.parameters.items() if p.grad is not None}
    assert learned == {f"discriminator.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}


def test_the_gradient_penalty_is_that_of_each_sample():
    network, batch = conditional(n_out=5), step(n=7, n_out=5)
    judge, made = network.judge(), torch.randn(7, 5, generator=generator(9))
    visible = torch.tensor([True, True, False, True, True])
    found = gradient_penalty(judge, batch.x, batch.y, made, visible, replace(batch, generator=generator(4)))
    share, slopes = torch.rand(7, 1, generator=generator(4)), []
    for i in range(7):
        between = share[i] * batch.y[i] + (1 - share[i]) * made[i]
        slope = []
        for g in range(5):  # by differences
            up, down = between.clone(), between.clone()
            up[g] += 1e-2
            down[g] -= 1e-2
            score = [judge.score(batch.x[i][None], row[None], visible) for row in (up, down)]
            slope.append(((score[0] - score[1]) / 2e-2).item())
        slopes.append(np.linalg.norm(slope))
    assert found.item() == pytest.approx(10 * np.mean((np.array(slopes) - 1) ** 2), rel=2e-2)


def test_spectral_normalisation_brings_the_largest_singular_value_to_one():
    network = conditional(20, 30, discriminator_hidden=16)
    judge = network.judge()
    for _ in range(200):
        judge.turn()
    for i in (0, 1):
        assert torch.linalg.matrix_norm(judge.weight(i), 2).item() == pytest.approx(1, rel=1e-3)


def test_the_discriminator_needs_the_landmarks_it_is_given():
    """Made targets have the measured ones' distribution: only beside their landmarks can they be told apart."""
    network = conditional(4, 4, trunk="mlp", layers=1, dropout=0.0, input_noise=0.1, discriminator_hidden=64)
    with torch.no_grad():
        network.parameters["1.weight"].zero_()
        network.parameters["skip.weight"].copy_(-torch.eye(4))
    (player,) = (p for p in network.players() if p.name == "discriminator")
    for i in range(600):
        x = torch.randn(64, 4, generator=generator(i))
        player.optimiser.zero_grad()
        network.loss("discriminator", Step(x, x.clone(), None, generator(10_000 + i), 1.0)).total.backward()
        player.optimiser.step()
    x = torch.randn(2000, 4, generator=generator(99_999))
    judge, visible = network.judge(), torch.ones(4, dtype=torch.bool)
    permuted = x[torch.randperm(2000, generator=generator(5))]

    def right(landmarks):
        with torch.no_grad():
            real, made = judge.score(landmarks, x, visible), judge.score(landmarks, network.infer(x), visible)
        return (real > made).float().mean().item()

    assert right(x) > 0.95
    assert right(permuted) == pytest.approx(0.5, abs=0.05)


def test_more_and_more_targets_are_shown_and_the_same_of_both(monkeypatch):
    network = conditional(n_out=4000)
    for done, share in ((0.0, 0.1), (0.5, 0.545), (1.0, 0.99)):
        shown = network.visible(step(done=done), torch.zeros(1, 4000))
        assert shown.float().mean().item() == pytest.approx(share, abs=0.03)
    judge, batch, seen = network.judge(), step(n_out=4000), []
    hidden = torch.zeros(4000, dtype=torch.bool)
    torch.testing.assert_close(judge.score(batch.x, batch.y, hidden), judge.score(batch.x, 0 * batch.y, ~hidden))
    true = Discriminator.score
    monkeypatch.setattr(Discriminator, "score", lambda self, x, y, v: seen.append(v) or true(self, x, y, v))
    network.loss("discriminator", batch)
    assert len(seen) == 2
    assert torch.equal(*seen)


def test_directions_turn_once_a_step_however_many_parts_it_takes(small, monkeypatch):
    turned, true = [], Discriminator.turn
    monkeypatch.setattr(Discriminator, "turn", lambda self: turned.append(1) or true(self))

    def loss(self, player, step, true=Conditional.loss):
        if len(step.x) > 15:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return true(self, player, step)

    monkeypatch.setattr(Conditional, "loss", loss)
    with pytest.warns(UserWarning, match="out of memory on cpu with 50 rows"):
        gx.tl.fit(small, "ggan", batch_size=50, progress=False, **QUICK)
    assert len(turned) == 3 * 4


# ---- what they are for


def two_modes() -> ad.AnnData:
    """Six targets that are high or low together, rather by chance, and six that follow the landmarks."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 8))
    high = rng.random((2000, 1)) < 1 / (1 + np.exp(-x[:, :1] / 2))
    modes = np.where(high, 1, -1) + 0.1 * rng.standard_normal((2000, 6))
    adata = ad.AnnData(np.hstack([x, modes, x @ rng.standard_normal((8, 6)) / 3]).astype(np.float32) + 5)
    adata.var["landmark"] = np.arange(20) < 8
    gx.pp.split(adata, fractions=(0.6, 0.2, 0.2))
    return adata


@pytest.mark.filterwarnings("ignore:.*(at chance|not kept up)")
def test_the_adversarial_term_sharpens_what_l1_blurs():
    adata, found = two_modes(), {}
    test = (adata.obs["split"] == "test").to_numpy()
    options = {"hidden": 64, "discriminator_hidden": 64, "batch_size": 64, "dropout": 0.0, "input_noise": 0.1}
    options |= {"weight_decay": 0.0, "learning_rate": 5e-4, "lambda_cons": 0.0, "progress": False}
    for lambda_adv in (0.0, 3.0):
        gx.tl.fit(adata, "ggan", lambda_adv=lambda_adv, **options)
        gx.tl.predict(adata, progress=False)
        inferred, measured = adata.layers["ggan"][test][:, 8:14], adata.X[test][:, 8:14]
        found[lambda_adv] = np.mean([energy_distance(inferred[:, g], measured[:, g]) for g in range(6)])
    assert found[3.0] < 0.6 * found[0.0]


def kinds(n: int, seed: int) -> ad.AnnData:
    """Samples of four kinds: landmarks are noisy about the kind's, targets are the kind's."""
    shared, rng = np.random.default_rng(100), np.random.default_rng(seed)
    centres, values = shared.standard_normal((4, 20)) * 1.2, shared.standard_normal((4, 10))
    kind = rng.integers(4, size=n)
    x = centres[kind] + rng.standard_normal((n, 20))
    y = values[kind] + 0.1 * rng.standard_normal((n, 10))
    adata = ad.AnnData(np.hstack([x, y]).astype(np.float32) + 8)
    adata.obs_names = [f"{seed} {i}" for i in range(n)]
    adata.var["landmark"] = np.arange(30) < 20
    return adata


@pytest.mark.filterwarnings("ignore:.*(at chance|not kept up)")
def test_samples_without_targets_help():
    """24 whole profiles tell what targets look like; 1,500 more with landmarks alone, where they may lie."""
    ratios = []
    for seed in (0, 1):
        adata = kinds(1000, seed)
        adata.obs["split"] = np.repeat(["train", "validation", "test"], [24, 24, 952])
        options = {"hidden": 64, "discriminator_hidden": 32, "generator_hidden": 32, "batch_size": 24, "epochs": 300}
        options |= {"lambda_adv": 5.0, "rng": seed, "progress": False}
        gx.tl.fit(adata, "semigan", key_added="alone", **options)
        gx.tl.fit(adata, "semigan", key_added="with", unlabeled=kinds(1500, seed + 50)[:, :20].copy(), **options)
        gx.tl.predict(adata, progress=False)
        table = gx.tl.evaluate(adata)
        ratios.append(table.loc["with", "mae"] / table.loc["alone", "mae"])
    assert max(ratios) < 0.99
    assert np.mean(ratios) < 0.95


# ---- the semi-supervised GAN


def cooperating(**options) -> Cooperating:
    config = SemiGAN(**{"hidden": 8, "discriminator_hidden": 8, "generator_hidden": 8, "warm_up": 0.0, **options})
    return Cooperating.learning(config, Cooperating.drawn(config, 6, 4, generator()), {}, torch.device("cpu"))


@pytest.mark.parametrize("unlabeled", [True, False])
def test_each_player_learns_from_all_that_it_should(unlabeled):
    network = cooperating(lambda_adv=1.0)
    batch = step(unlabeled=torch.randn(32, 6, generator=generator(8)) if unlabeled else None)
    network.trusted = lambda x, y, step: torch.ones(len(x))
    expected = {"l1", "consistency", "made"} | ({"adversarial"} if unlabeled else set())
    terms = network.loss("network", batch).terms
    assert set(terms) == expected
    for name, term in terms.items():
        assert gradient(term, network, "skip.weight").abs().max() > 0, name
    prefixes = {"network": "", "discriminator": "discriminator.", "generator": "generator."}
    for player, prefix in prefixes.items():
        for p in network.parameters.values():
            p.grad = None
        network.loss(player, replace(batch, generator=generator(1))).total.backward()
        for name, p in network.parameters.items():
            own = name.startswith(prefix) if prefix else not name.startswith(network.others)
            assert (p.grad is not None and p.grad.abs().max() > 0) == (own and p.requires_grad), (player, name)


def test_a_pair_counts_if_it_is_scored_as_high_as_half_of_the_measured_ones():
    network = cooperating(input_noise=0.0, dropout=0.0, lambda_cons=0.0)
    batch, visible = step(seed=3), torch.ones(4, dtype=torch.bool)
    network.visible = lambda step, y: visible
    made_x, made_y = network.made(replace(batch, generator=generator(7)))
    judge = network.judge()
    measured = sorted(judge.score(batch.x, batch.y, visible).tolist())
    scores = judge.score(made_x, made_y, visible)
    expected = scores >= measured[15]  # the lower middle of 32
    assert 0 < expected.sum() <= 16
    torch.testing.assert_close(network.trusted(made_x, made_y, batch), expected.float())
    # Where most are scored like that, none is trusted.
    best = made_x[expected], made_y[expected]
    assert network.trusted(*best, batch).sum() == 0
    term = network.loss("network", replace(batch, generator=generator(7))).terms["made"]
    errors = (network.infer(made_x) - made_y).abs().mean(1)
    torch.testing.assert_close(term, (errors * expected).mean())


def test_the_discriminator_learns_trusted_inferences_as_real_after_the_warm_up_too():
    """And nothing of the others: the difference to a batch without them is theirs and their landmarks'."""
    network = cooperating(input_noise=0.0, dropout=0.0, lambda_cons=0.0)
    with torch.no_grad():
        network.parameters["skip.weight"].normal_(generator=generator(2))
    unlabeled, visible = torch.randn(32, 6, generator=generator(8)), torch.ones(4, dtype=torch.bool)
    network.visible = lambda step, y: visible
    batch = replace(step(unlabeled=unlabeled), done=0.9)
    total = network.loss("discriminator", replace(batch, generator=generator(7))).total

    judge, hidden = network.judge(), torch.zeros(4, dtype=torch.bool)
    made_x, made_y = network.made(replace(batch, generator=generator(7)))
    made_x, made_y, inferred = made_x.detach(), made_y.detach(), network.infer(unlabeled).detach()
    real, scores = judge.score(batch.x, batch.y, visible), judge.score(unlabeled, inferred, visible)
    trusted = scores >= real.median()
    assert 0 < trusted.sum() < 32
    of_inferred = (trusted * (scores - 1) ** 2).mean()
    measured = ((real - 1) ** 2).mean() + ((judge.score(unlabeled, inferred, hidden) - 1) ** 2).mean()
    made = (judge.score(made_x, made_y, visible) ** 2).mean() + (judge.score(made_x, made_y, hidden) ** 2).mean()
    torch.testing.assert_close(total, (measured / 2 + made / 2 + of_inferred) / 2)
    assert gradient(of_inferred, network, "discriminator.0.weight").abs().max() > 1e-4


def test_samples_without_targets_come_from_an_object_a_layer_or_marked_rows(small):
    kept = small.obs["split"].isin(["train"]).to_numpy()
    other = small[kept][:, small.var["landmark"]].copy()
    other.X = other.X + 0.2
    small.layers["other"] = small.X + 0.2
    both = ad.concat([small, other], join="outer", fill_value=0, keys=["a", "b"], index_unique=" ")
    both.var["landmark"] = small.var["landmark"]
    both.obs["alone"] = np.arange(both.n_obs) >= small.n_obs
    both.obs["split"] = [*small.obs["split"], *[None] * other.n_obs]
    found = []
    for adata, unlabeled in ((small, other), (small, "other"), (both, "alone")):
        gx.tl.fit(adata, "semigan", unlabeled=unlabeled, progress=False, **QUICK)
        assert adata.uns["semigan"]["params"]["n_unlabeled"] == kept.sum()
        found.append(weights(adata, "semigan"))
    gx.tl.fit(small, "semigan", progress=False, **QUICK)
    assert "n_unlabeled" not in small.uns["semigan"]["params"]
    without = weights(small, "semigan")
    for name in found[0]:
        for again in found[1:]:
            np.testing.assert_allclose(found[0][name], again[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.abs(without["0.0.weight"] - found[0]["0.0.weight"]).max() > 1e-4


@pytest.mark.parametrize("n", [5, 1000])
def test_fewer_and_more_samples_without_targets_than_with(small, n, monkeypatch, tmp_path):
    """In memory and from a file; each epoch sees as many of them as of the others."""
    other = ad.concat([small] * -(-n // small.n_obs), index_unique=" ")[:n, small.var["landmark"]].copy()
    other.write_h5ad(tmp_path / "other.h5ad")
    gx.tl.fit(small, "semigan", unlabeled=other, progress=False, **QUICK)
    backed = ad.read_h5ad(tmp_path / "other.h5ad", backed="r")
    gx.tl.fit(small, "semigan", key_added="backed", unlabeled=backed, progress=False, **QUICK)
    for name, array in weights(small, "semigan").items():
        if n < 64:  # more rows of a file come in another order
            np.testing.assert_array_equal(array, weights(small, "backed")[name])
        assert np.isfinite(weights(small, "backed")[name]).all()


def without_a_landmark(query):
    return query[:, 1:].copy()


def with_a_gene_twice(query):
    query.var_names = [*query.var_names[:-1], query.var_names[0]]
    return query


def with_nan(query):
    query.X[3, 5] = np.nan
    return query


@pytest.mark.parametrize(
    ("method", "spoil", "error", "match"),
    [
        ("dgex", lambda q: q, ValueError, r"unlabeled= is for method='semigan'.*method='dgex' does not"),
        ("semigan", without_a_landmark, ValueError, r"unlabeled.var_names lacks 1 of the 60 landmarks"),
        ("semigan", with_a_gene_twice, ValueError, r"unlabeled.var_names holds 1 names more than once"),
        ("semigan", with_nan, ValueError, r"unlabeled.X holds NaN or inf in 1 of 60 genes"),
        ("semigan", lambda q: q[:0].copy(), ValueError, r"holds no sample; leave it out"),
        ("semigan", lambda q: q.X, TypeError, r"unlabeled is a ndarray; pass an AnnData, or the name"),
        ("semigan", lambda q: "missing", KeyError, r"unlabeled='missing' is neither a layer of adata.*nor a column"),
        ("semigan", lambda q: "tissue", TypeError, r"adata.obs\['tissue'\] has dtype .*must be bool"),
        ("semigan", lambda q: "all", ValueError, r"adata.obs\['all'\] marks 240 samples that adata.obs\['split'\]"),
        ("semigan", lambda q: "twice", ValueError, r"names a layer and a column of obs; rename one"),
    ],
)
def test_what_no_samples_without_targets_are(small, method, spoil, error, match):
    query = small[:20, small.var["landmark"]].copy()
    small.obs["all"] = small.obs["twice"] = True
    small.layers["twice"] = small.X.copy()
    if method == "semigan" and spoil is not with_nan:  # as targets that were not measured often are
        small.X[1, ~small.var["landmark"]] = np.nan
    before = small.copy()
    with pytest.raises(error, match=match):
        gx.tl.fit(small, method, unlabeled=spoil(query), progress=False)
    assert set(small.uns) == set(before.uns)


def test_samples_without_targets_on_another_scale_are_told(small):
    query = small[:, small.var["landmark"]].copy()
    query.X = 2 * query.X
    with pytest.warns(
        UserWarning, match=r"unlabeled: the query's landmarks are on another scale[\s\S]*Bring unlabeled.X"
    ):
        gx.tl.fit(small, "semigan", unlabeled=query, progress=False, **QUICK)


# ---- what is told and stored


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("ggan", {"l1", "adversarial", "consistency", "spread", "told_apart", "discriminator_loss"}),
        (
            "semigan",
            {"l1", "adversarial", "consistency", "made", "spread", "told_apart", "discriminator_loss", "generator_loss",
             "trusted_made", "trusted_inferred"},
        ),
    ],
)  # fmt: skip
def test_every_term_is_told_and_kept_for_each_epoch(small, method, terms):
    told = []
    unlabeled = {"unlabeled": small[:, small.var["landmark"]].copy()} if method == "semigan" else {}
    gx.tl.fit(small, method, callback=told.append, progress=False, **unlabeled, **QUICK)
    found = weights(small, method)
    for name in terms | {"loss", "train_mae", "validation_mae", "learning_rate"}:
        assert np.isfinite([t[name] for t in told]).all()
        np.testing.assert_array_equal(found[f"0.history.{name}"], [t[name] for t in told])


@pytest.mark.parametrize("method", ["ggan", "semigan"])
def test_the_discriminator_is_stored_where_asked(small, method):
    gx.tl.fit(small, method, progress=False, **QUICK)
    gx.tl.fit(small, method, key_added="more", keep_discriminator=True, progress=False, **QUICK)
    less, more = weights(small, method), weights(small, "more")
    beside = {name for name in more if name.startswith(("0.discriminator.", "0.generator."))}
    assert set(more) - set(less) == beside
    plain = {f"0.discriminator.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    made = {f"0.generator.{i}.{kind}" for i in (0, 1, 2) for kind in ("weight", "bias")}
    assert beside == (plain | made if method == "semigan" else plain)
    # As it judges, so that no one needs to know how it was normalised.
    assert np.linalg.norm(more["0.discriminator.0.weight"], 2) == pytest.approx(1, rel=0.3)
    for name, array in less.items():
        np.testing.assert_array_equal(array, more[name])
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(small.layers[method], small.layers["more"])


def test_the_stored_discriminator_judges_as_it_did(small):
    network = conditional()
    for _ in range(3):
        network.judge().turn()
    network.config = replace(network.config, keep_discriminator=True)
    batch, visible = step(), torch.ones(4, dtype=torch.bool)
    plain = network.learned({name: p.detach().numpy() for name, p in network.parameters.items()})
    kept = {n.removeprefix("discriminator."): torch.from_numpy(a) for n, a in plain.items() if "discriminator" in n}
    expected = network.judge().score(batch.x, batch.y, visible)
    torch.testing.assert_close(Discriminator(kept, "none").score(batch.x, batch.y, visible), expected.detach())


@pytest.mark.parametrize("method", ["ggan", "semigan"])
def test_it_starts_from_another_of_its_kind_but_judges_anew(small, method):
    gx.tl.fit(small, method, progress=False, keep_discriminator=True, **QUICK)
    short = QUICK | {"epochs": 1}
    gx.tl.fit(small, method, key_added="on", init=small, learning_rate=1e-12, weight_decay=0.0, progress=False, **short)
    gx.tl.predict(small, progress=False)
    np.testing.assert_allclose(small.layers["on"], small.layers[method], rtol=1e-4, atol=1e-4)


# ---- what goes wrong


def epochs(n=10, **of_each):
    entry = {"told_apart": 0.8, "discriminator_loss": 0.15, "spread": 0.9, "l1": 0.3}
    return [entry | of_each for _ in range(n)]


@pytest.mark.parametrize(
    ("history", "expected", "words"),
    [
        (epochs(), [], []),
        (epochs(told_apart=0.5), ["chance"], ["at chance for 10 epochs", "50% of pairs", "Raise discriminator_learning_rate= (now 0.002)"]),
        (epochs(told_apart=0.1), ["outrun"], ["not kept up for 10 epochs", "10% of pairs", "or lower lambda_adv="]),
        (epochs(discriminator_loss=0.01), ["certainty"], ["certain for 10 epochs", "its loss is 0.01", "Lower discriminator_learning_rate="]),
        (epochs(spread=0.02), ["collapse"], ["collapse: for 10 epochs", "2% of the measured standard deviation"]),
        ([*epochs(9, spread=0.02), *epochs(1)], [], []),
        ([*epochs(1, told_apart=0.5), *epochs(9, told_apart=0.1)], ["outrun"], ["14% of pairs"]),
        ([*epochs(1), *epochs(l1=0.6)], ["overwhelmed"], ["2.0 times its lowest for 10 epochs", "Lower lambda_adv= (now 0.3)"]),
    ],
)  # fmt: skip
def test_signs_of_trouble(history, expected, words):
    found = signs(history, GGAN())
    assert list(found) == expected
    for word in words:
        assert word in found[expected[0]]


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("ggan", {"discriminator_learning_rate": 1e-7, "lambda_adv": 5.0}, r"ggan, epoch \d+: the discriminator has not kept up for 10"),
        ("ggan", {"lambda_adv": 1e-6, "lambda_cons": 0.0, "learning_rate": 1e-6, "batch_size": 20, "epochs": 60}, r"ggan, epoch \d+: the discriminator has been certain for 10 .*Lower discriminator_learning_rate"),
        ("ggan", {"lambda_adv": 100.0, "adversarial": "wasserstein"}, r"ggan, epoch \d+: the L1 term has been .* times its lowest.*lambda_adv= \(now 100\)"),
        ("ggan", {"lambda_cons": 1e3}, r"ggan, epoch \d+: collapse: for 10 epochs .*Lower .*lambda_"),
        ("semigan", {"discriminator_learning_rate": 1e-7}, r"semigan, epoch \d+: (collapse|the discriminator has (been at chance|not kept up))"),
    ],
)  # fmt: skip
def test_trouble_is_told_once_with_what_to_change(small, method, options, match):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gx.tl.fit(small, method, progress=False, **({"epochs": 40, "hidden": 32} | options))
    found = [str(w.message) for w in told]
    assert sum(bool(re.search(match, message)) for message in found) == 1, found
    assert len(set(found)) == len(found)
    assert all(w.filename == __file__ for w in told)


def test_a_critic_of_wasserstein_is_never_certain():
    healthy = epochs(discriminator_loss=-0.3)
    assert signs(healthy, GGAN(adversarial="wasserstein")) == {}
    assert "certainty" in signs(epochs(discriminator_loss=0.04), GGAN(adversarial="hinge", discriminator_norm="none"))


def test_the_advice_is_none_that_is_taken_already():
    history = epochs(discriminator_loss=0.001)
    assert "discriminator_norm" not in signs(history, GGAN())["certainty"]
    assert "discriminator_norm='spectral'" in signs(history, GGAN(discriminator_norm="none"))["certainty"]


@pytest.mark.parametrize("method", ["ggan", "semigan"])
@pytest.mark.parametrize("rate", ["learning_rate", "discriminator_learning_rate"])
def test_whoever_explodes_the_rates_of_all_are_named(small, method, rate):
    with pytest.raises(
        FloatingPointError,
        match=rf"{method}: training diverged in epoch \d, step \d of \d, at a learning rate of \S+ and \S+ "
        r"\(discriminator\): the .*loss .*Fit again with learning_rate=\S+ or discriminator_learning_rate=\S+\.",
    ):
        gx.tl.fit(small, method, discriminator_norm="none", progress=False, **{rate: 1e30}, **QUICK)
    assert method not in small.uns


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("ggan", {"lambda_adv": -1.0}, "lambda_adv=-1.0 must not be negative"),
        (
            "ggan",
            {"lambda_cons": 1.0, "input_noise": 0.0, "dropout": 0.0},
            "input_noise=0 and dropout=0 perturb nothing",
        ),
        ("ggan", {"keep_discriminator": True, "lambda_adv": 0.0}, "with lambda_adv=0 there is none to keep"),
        ("ggan", {"warm_up": 1.0}, "warm_up=1.0 must be at least 0 and below 1"),
        ("ggan", {"discriminator_hidden": 0}, "discriminator_hidden=0 must be at least 1"),
        ("ggan", {"discriminator_learning_rate": 0.0}, "discriminator_learning_rate=0.0 must be positive"),
        ("ggan", {"adversarial": "vanilla"}, "choose one of least_squares, hinge, wasserstein"),
        ("ggan", {"discriminator_norm": "batch"}, "choose one of none, weight, spectral"),
        ("semigan", {"recipe": "paper"}, "recipe='paper' is not known; choose one of modern"),
        ("semigan", {"lambda_made": -1.0}, "lambda_made=-1.0 must not be negative"),
        ("semigan", {"generator_hidden": 0}, "generator_hidden=0 must be at least 1"),
    ],
)
def test_bad_options(small, method, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, method, **options)


def test_the_paper_s_recipe_is_what_is_known_of_it():
    config = GGAN(recipe="paper")
    assert (config.trunk, config.layers, config.hidden, config.activation) == ("dense", 3, 9000, "leaky_relu")
    assert (config.discriminator_hidden, config.adversarial) == (3000, "least_squares")
    assert (config.batch_size, config.epochs, config.weight_norm) == (200, 200, True)
    assert (config.weight_decay, config.layer_norm, config.schedule) == (0, False, "constant")
