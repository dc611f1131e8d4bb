"""The network against numpy, its training against the paper's recipe."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
import torch
from conftest import standardised

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine.network import Step
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods.dgex import DGEX, Regression


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron(config: DGEX, n_in: int = 10, n_out: int = 5) -> Regression:
    return Regression.learning(config, Regression.drawn(config, n_in, n_out, generator()), {}, torch.device("cpu"))


def test_paper_recipe_is_the_paper_s():
    config = DGEX(recipe="paper")
    assert (config.hidden, config.activation, config.loss) == (3000, "tanh", "mse")
    assert (config.batch_size, config.epochs) == (200, 200)
    # Nothing that the paper does not have.
    assert (config.input_noise, config.weight_decay, config.ema) == (0, 0, 0)
    assert (config.layer_norm, config.skip, config.target_blocks) == (False, False, 1)
    assert (config.optimiser, config.schedule) == ("sgd", "decay_on_rise")
    assert DGEX(recipe="paper", layers=1).learning_rate == 5e-4
    assert DGEX(recipe="paper", layers=2).learning_rate == DGEX(recipe="paper", layers=3).learning_rate == 3e-4


def test_paper_initialisation():
    network = perceptron(DGEX(recipe="paper", layers=2, hidden=200), 100, 50)
    for name, n_in, n_out in (("0", 100, 200), ("1", 200, 200)):
        weight, bound = network.parameters[f"{name}.weight"], np.sqrt(6 / (n_in + n_out))
        assert weight.shape == (n_out, n_in)
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert 0.99e-4 < network.parameters["2.weight"].abs().max() <= 1e-4
    assert all((network.parameters[f"{i}.bias"] == 0).all() for i in range(3))


def test_paper_optimiser():
    network = perceptron(DGEX(recipe="paper", layers=3, hidden=20))
    (player,) = network.players()
    optimiser = player.optimiser
    assert isinstance(optimiser, torch.optim.SGD)
    rate = {id(p): (g["lr"], g["momentum"]) for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in network.parameters.items():
        later = name in ("1.weight", "2.weight", "3.weight")
        assert rate[id(parameter)] == (pytest.approx(9e-4 if later else 3e-4), 0.5), name


def test_paper_schedule():
    schedule = SCHEDULES[DGEX(recipe="paper").schedule]
    assert schedule(3e-4, 0.5, []) == schedule(3e-4, 0.5, [0.5, 0.4]) == 3e-4
    assert schedule(3e-4, 0.0, [0.5, 0.4, 0.41, 0.41]) == pytest.approx(3e-4 * 0.9)  # one rise
    assert schedule(9e-4, 0.0, [0.5, 0.6, 0.4, 0.5]) == pytest.approx(9e-4 * 0.81)
    assert schedule(9e-4, 0.0, list(range(100))) == 1e-5


def test_paper_learning_rate_falls_when_the_training_error_rises(small):
    """In a real run, from the errors that were measured."""
    gx.tl.fit(small, "dgex", recipe="paper", hidden=50, learning_rate=0.02, epochs=40, progress=False)
    arrays = records(small)["dgex"].model.arrays
    error, rate = arrays["0.history.train_mae"], arrays["0.history.learning_rate"]
    assert (np.diff(error) > 0).any()
    expected = [0.02]
    for before, after in zip(error[:-2], error[1:-1], strict=True):
        expected.append(expected[-1] * (0.9 if after > before else 1))
    # The rate of an epoch follows from the errors before it.
    np.testing.assert_allclose(rate[1:], expected, rtol=1e-6)


def test_paper_loss_is_summed_over_targets_and_averaged_over_samples():
    network = perceptron(DGEX(recipe="paper", hidden=20, dropout=0.0))
    x, y = torch.randn(7, 10, generator=generator(1)), torch.randn(7, 5, generator=generator(2))
    expected = ((network.infer(x) - y) ** 2).sum(1).mean()
    step = Step(x, y, None, generator(), 0.0)
    torch.testing.assert_close(network.loss("network", step).total, expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_forward_is_the_obvious_matrix_products(layers):
    network = perceptron(DGEX(recipe="paper", layers=layers, hidden=12))
    p = {name: tensor.detach().numpy() for name, tensor in network.parameters.items()}
    x = np.random.default_rng(0).standard_normal((7, 10)).astype(np.float32)
    h = x
    for i in range(layers):
        h = np.tanh(h @ p[f"{i}.weight"].T + p[f"{i}.bias"])
    expected = h @ p[f"{layers}.weight"].T + p[f"{layers}.bias"]
    np.testing.assert_allclose(network.infer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-6)


def test_dropout_is_on_hidden_activations_only_and_off_in_inference():
    config = DGEX(recipe="paper", hidden=4000, dropout=0.25)
    network = perceptron(config, 10, 4000)
    with torch.no_grad():
        # The output shows the hidden activations; a zeroed input would zero them all at once.
        network.parameters["1.weight"].copy_(torch.eye(4000))
        network.parameters["0.bias"].fill_(0.5)
    x = torch.ones(1, 10)
    clean, noisy = network.infer(x)[0], network.forward(x, generator())[0]
    dropped = noisy == 0
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(noisy[~dropped], clean[~dropped] / 0.75)
    torch.testing.assert_close(network.infer(x)[0], clean)


def test_same_seed_same_bits_another_seed_others(small):
    states = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        torch.manual_seed(seed * 7)
        gx.tl.fit(small, "dgex", epochs=2, hidden=16, rng=seed, progress=False)
        states.append(small.uns["dgex"]["state"].copy())
    np.testing.assert_array_equal(states[0], states[1])
    assert (states[0] != states[2]).any()


def test_no_global_generator_moves(small):
    before = torch.random.get_rng_state()
    gx.tl.fit(small, "dgex", epochs=1, hidden=8, progress=False)
    gx.tl.predict(small, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("recipe", ["modern", "paper"])
def test_both_recipes_learn(small, recipe):
    epochs = {"modern": 30, "paper": 100}[recipe]
    gx.tl.fit(small, "dgex", recipe=recipe, hidden=100, epochs=epochs, progress=False)
    history = records(small)["dgex"].model.arrays["0.history.validation_mae"]
    (_, Y), (_, Y_val) = standardised(small, "train", "validation")
    assert len(history) == epochs
    assert history.min() < 0.8 * np.abs(Y_val - Y.mean(0)).mean()
    assert small.uns["dgex"]["params"]["best_epoch"] == history.argmin() + 1
    assert small.uns["dgex"]["params"]["validation_mae"] == pytest.approx(history.min(), rel=1e-5)


# ---- blocks of targets


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_each_block_is_a_network_of_its_own_targets(small, device):
    options = {"epochs": 3, "hidden": 16, "progress": False}
    gx.tl.fit(small, "dgex", target_blocks=2, device=device, **options)
    gx.tl.predict(small, progress=False)
    model = records(small)["dgex"].model
    assert np.bincount(model.arrays["block"]).tolist() == [45, 45]
    targets = small.var_names[~small.var["landmark"]]
    seeds = np.random.default_rng(0)
    seeds.permutation(90)  # how the targets were dealt out
    for b, seed in enumerate(seeds.integers(2**63, size=2)):
        alone = small.copy()

        class Dealt:
            """Gives a fit of half the targets the seed that this half had."""

            def permutation(self, x):
                return x

            def integers(self, high, size=None, seed=seed):
                return np.array([seed])

        own = targets[model.arrays["block"] == b]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np.random, "default_rng", lambda seed: Dealt())
            gx.tl.fit(alone, "dgex", targets=list(own), key_added="alone", **options)
        gx.tl.predict(alone, key="alone", progress=False)
        np.testing.assert_allclose(alone[:, own].layers["alone"], small[:, own].layers["dgex"], rtol=1e-5)
        assert small.uns["dgex"]["params"][f"best_epoch_{b + 1}"] == alone.uns["alone"]["params"]["best_epoch"]


def test_clustered_blocks_are_genes_that_go_together(small):
    gx.tl.fit(small, "dgex", target_blocks=2, block_by="clusters", epochs=1, hidden=8, progress=False)
    block = records(small)["dgex"].model.arrays["block"]
    (_, Y) = standardised(small, "train")[0]
    r = np.corrcoef(Y.T)
    same = block[:, None] == block
    np.fill_diagonal(same, False)
    assert r[same].mean() > r[block[:, None] != block].mean() + 0.2


def test_a_block_without_a_target(small):
    gx.tl.fit(small, "dgex", target_blocks=2, epochs=1, hidden=8, progress=False)
    model = records(small)["dgex"]
    first = np.array(model.targets)[model.model.arrays["block"] == 0]
    with pytest.raises(ValueError, match="Network 2 of the 2 of target_blocks is left without a target"):
        gx.tl.fit(small, "dgex", init=small, targets=list(first), progress=False)


def test_more_blocks_than_targets(small):
    with pytest.raises(ValueError, match="target_blocks=91 are more than the 90 targets"):
        gx.tl.fit(small, "dgex", target_blocks=91, progress=False)


def test_ctrl_c_with_several_devices_stops_all_and_keeps_what_they_have(small):
    seen = []

    def press(told):
        seen.append(told["title"])
        # Once both have an epoch. In a thread; a person's signal goes to the main one.
        if len(set(seen)) == 2 and len(set(seen[:-1])) == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    options = {"target_blocks": 2, "device": "cpu,cpu", "epochs": 100_000, "hidden": 8, "progress": False}
    with pytest.warns(UserWarning, match="interrupted in epoch .* the model is that of epoch") as told:
        gx.tl.fit(small, "dgex", callback=press, **options)
    assert len(told) == 2
    gx.tl.predict(small, progress=False)


def test_one_block_that_fails_stops_the_others(small):
    def fail(told):
        if told["title"] == "dgex block 2 of 2":
            raise RuntimeError("as a callback may")

    options = {"target_blocks": 2, "device": "cpu,cpu", "epochs": 100_000, "hidden": 8, "progress": False}
    with pytest.raises(RuntimeError, match="as a callback may"):
        gx.tl.fit(small, "dgex", callback=fail, **options)


# ---- starting from another model


@pytest.mark.filterwarnings("ignore:.* genes are constant")
def test_fine_tuned_on_100_samples_it_is_better_than_the_old_and_than_one_from_scratch(bulk_once):
    adata = bulk_once.copy()
    gx.pp.landmarks(adata)
    # Normal kidney of TCGA: 126 samples of an organ of which the others hold 60 tumours and 32 samples of GTEx.
    new = adata.obs["cohort"].isin([f"TCGA normal:{kind}" for kind in ("kirc", "kirp", "kich")])
    old, new = adata[~new].copy(), adata[new].copy()
    gx.pp.split(old)
    gx.tl.fit(old, "dgex", epochs=30, progress=False)
    sides = np.repeat(["train", "validation", "test"], [80, 20, 26])
    new.obs["split"] = np.random.default_rng(0).permutation(sides)

    gx.tl.fit(new, "dgex", progress=False, key_added="scratch")
    gx.tl.fit(new, "dgex", init=old, progress=False, key_added="tuned")
    gx.tl.predict(new, progress=False)
    gx.tl.predict(new, model=old, progress=False)
    targets = ~new.var["landmark"].to_numpy()
    train, test = ((new.obs["split"] == side).to_numpy() for side in ("train", "test"))
    unit = new.X[train].std(axis=0) + 1e-3
    varies = targets & (unit > 1e-3)
    error = {k: (np.abs(new.layers[k] - new.X)[test] / unit)[:, varies].mean() for k in ("dgex", "scratch", "tuned")}
    assert error["tuned"] < 0.97 * error["scratch"], error
    assert error["tuned"] < 0.97 * error["dgex"], error
    assert new.uns["tuned"]["params"]["learning_rate"] == 3e-4


def still(adata, **options):
    """Fit with steps too small to change a weight."""
    gx.tl.fit(adata, "dgex", epochs=1, learning_rate=1e-30, progress=False, **options)


def test_started_from_itself_it_infers_the_same_genes_matched_by_name(small):
    small.var_names = [f"ENSG{i:011d}" for i in range(small.n_vars)]
    for options in ({}, {"target_blocks": 2, "layers": 2, "skip": False}):
        gx.tl.fit(small, "dgex", epochs=3, hidden=16, progress=False, **options)
        gx.tl.predict(small, progress=False)
        other = small[:, np.random.default_rng(0).permutation(small.n_vars)].copy()
        other.var_names = other.var_names + ".7"  # a version
        del other.uns["dgex"], other.layers["dgex"]
        still(other, init=small)
        gx.tl.predict(other, progress=False)
        other.var_names = other.var_names.str[:-2]
        np.testing.assert_allclose(other[:, small.var_names].layers["dgex"], small.layers["dgex"], atol=1e-5)
        assert other.uns["dgex"]["params"]["hidden"] == 16


def test_new_landmarks_weigh_nothing_and_new_targets_start_at_their_mean(small):
    known = small[:, 10:140].copy()
    gx.tl.fit(known, "dgex", epochs=3, hidden=16, progress=False)
    still(small, init=known)
    gx.tl.predict(small, progress=False)
    landmark, old = small.var["landmark"].to_numpy(), small.var_names.isin(known.var_names)
    train = small.X[(small.obs["split"] == "train").to_numpy()]
    np.testing.assert_allclose(
        small.layers["dgex"][:, ~landmark & ~old], np.tile(train.mean(0)[~landmark & ~old], (240, 1)), atol=0.01
    )
    before = small.layers["dgex"].copy()
    small.X[:, landmark & ~old] += 1
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(small.layers["dgex"][:, ~landmark], before[:, ~landmark])
    gx.tl.predict(known, progress=False)
    both = ~landmark & old
    np.testing.assert_allclose(before[:, both], known[:, small.var_names[both]].layers["dgex"], atol=1e-5)


def test_what_the_model_to_start_from_has_seen_is_no_test_row(small):
    gx.tl.fit(small, "dgex", epochs=1, hidden=8, progress=False)
    other = small.copy()
    gx.pp.split(other, rng=1)
    gx.tl.fit(other, "dgex", init=small, epochs=1, progress=False, key_added="tuned")
    gx.tl.predict(other, key="tuned", progress=False)
    with pytest.raises(ValueError, match="tuned"):
        gx.tl.evaluate(other, key="tuned")


def test_a_start_with_few_genes_in_common_is_told(small, caplog):
    gx.tl.fit(small, "dgex", epochs=1, hidden=8, progress=False)
    with caplog.at_level("INFO"):
        gx.tl.fit(small, "dgex", init=small, epochs=1)
    assert "init: 60 of 60 landmarks and 90 of 90 targets are known to the model" in caplog.text
    other = small.copy()
    other.var_names = np.where(small.var["landmark"], small.var_names, [f"gene {i}" for i in range(150)])
    with pytest.warns(UserWarning, match="60 of 60 landmarks and 0 of 90 targets are known to the model. It has names"):
        gx.tl.fit(other, "dgex", init=small, epochs=1, progress=False)


def test_a_start_that_is_none(small, tmp_path):
    gx.tl.fit(small, "dgex", epochs=1, hidden=16, progress=False)
    bare = small.copy()
    del bare.uns["dgex"]
    ridge_alone = gx.tl.fit(bare, "ridge", progress=False, copy=True)
    gx.tl.fit(small, "ridge", progress=False)
    for options, error, match in (
        ({"hidden": 32, "init": small}, ValueError, "hidden=32, but the model of init= has 16. Leave hidden= out"),
        ({"method": "ridge", "init": small}, ValueError, "init= is for networks"),
        ({"init": "model.safetensors"}, TypeError, r"init is a str; pass an AnnData with a model, or gexinfer.io.read"),
        (
            {"init": records(small)["ridge"]},
            ValueError,
            "init is a model of method='ridge'; method='dgex' starts from its own only",
        ),
        (
            {"init": ridge_alone},
            ValueError,
            "init.uns holds no model of method='dgex'; it holds 'ridge'. Run gexinfer.tl",
        ),
        ({"init": bare}, ValueError, "init.uns holds no model of method='dgex'; it holds no model"),
    ):
        with pytest.raises(error, match=match):
            gx.tl.fit(small, **{"method": "dgex", "progress": False, **options})
    other = small.copy()
    other.var_names = [f"gene {i}" for i in range(other.n_vars)]
    with pytest.raises(ValueError, match="init shares no landmark with adata: it has .*, adata 'gene "):
        gx.tl.fit(other, "dgex", init=small, progress=False)
    gx.tl.fit(small, "dgex", epochs=1, hidden=8, key_added="second", progress=False)
    with pytest.raises(ValueError, match="several models of method='dgex': 'dgex', 'second'. Pass the one"):
        gx.tl.fit(other, "dgex", init=small, key_added="third", progress=False)
    gx.io.write_model(small, tmp_path / "second.safetensors", key="second")
    gx.tl.fit(small, "dgex", init=gx.io.read_model(tmp_path / "second.safetensors"), progress=False, epochs=1)
    assert small.uns["dgex"]["params"]["hidden"] == 8


def test_divergence_says_when_and_what_to_change(small):
    with pytest.raises(
        FloatingPointError,
        match=r"diverged in epoch \d+, step \d+ of 1, at a learning rate of .*Fit again with learning_rate=",
    ):
        gx.tl.fit(small, "dgex", recipe="paper", hidden=50, learning_rate=1e6, progress=False)
    assert "dgex" not in small.uns


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recipe": "new"}, "recipe='new' is not known; choose one of modern, paper"),
        ({"activation": "sigmoid"}, "choose one of tanh, relu, silu, gelu"),
        ({"loss": "l2"}, "choose one of mse, l1, huber"),
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0 must be"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"input_noise": -1.0}, "input_noise=-1.0 must not be negative"),
    ],
)
def test_bad_options(small, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "dgex", progress=False, **options)


def test_a_device_that_is_not_there(small):
    with pytest.raises(ValueError, match="device='warp' is not to be had here"):
        gx.tl.fit(small, "dgex", device="warp", progress=False)
