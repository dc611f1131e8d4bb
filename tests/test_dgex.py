"""The network against numpy, its training against the paper's recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import standardised

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine.loop import train
from gexinfer.methods.dgex import DGEX, DecayOnRise, Perceptron, prepare


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_paper_recipe_is_the_paper_s():
    config = DGEX(recipe="paper")
    assert (config.hidden, config.activation, config.loss, config.batch_size, config.epochs) == (
        3000,
        "tanh",
        "mse",
        200,
        200,
    )
    assert (config.input_noise, config.layer_norm) == (0, False)
    assert DGEX(recipe="paper", layers=1).learning_rate == 5e-4
    assert DGEX(recipe="paper", layers=2).learning_rate == DGEX(recipe="paper", layers=3).learning_rate == 3e-4


def test_paper_initialisation():
    network = Perceptron.initialised(DGEX(recipe="paper", layers=2, hidden=200), 100, 50, generator())
    for name, n_in, n_out in (("0", 100, 200), ("1", 200, 200)):
        weight, bound = network.parameters[f"{name}.weight"], np.sqrt(6 / (n_in + n_out))
        assert weight.shape == (n_out, n_in)
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert 0.99e-4 < network.parameters["2.weight"].abs().max() <= 1e-4
    assert all((network.parameters[f"{i}.bias"] == 0).all() for i in range(3))


def test_paper_optimiser():
    network = Perceptron.initialised(DGEX(recipe="paper", layers=3, hidden=20), 10, 5, generator())
    optimiser, schedule = prepare(network, 1000)
    rate = {id(p): (g["lr"], g["momentum"]) for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in network.parameters.items():
        later = name in ("1.weight", "2.weight", "3.weight")
        assert rate[id(parameter)] == (pytest.approx(9e-4 if later else 3e-4), 0.5), name

    assert isinstance(schedule, DecayOnRise)
    for error in (0.5, 0.4, 0.41, 0.41):  # one rise
        schedule.after_epoch(error)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(3e-4 * 0.9)
    for i in range(100):
        schedule.after_epoch(1.0 + i)
    assert [g["lr"] for g in optimiser.param_groups] == [1e-5, 1e-5]


def test_paper_loss_is_summed_over_targets_and_averaged_over_samples():
    network = Perceptron.initialised(DGEX(recipe="paper", hidden=20, dropout=0.0), 10, 5, generator())
    x, y = torch.randn(7, 10, generator=generator(1)), torch.randn(7, 5, generator=generator(2))
    expected = ((network.infer(x) - y) ** 2).sum(1).mean()
    torch.testing.assert_close(network.loss(x, y, generator()), expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_forward_is_the_obvious_matrix_products(layers):
    network = Perceptron.initialised(DGEX(recipe="paper", layers=layers, hidden=12), 10, 5, generator())
    p = {name: tensor.detach().numpy() for name, tensor in network.parameters.items()}
    x = np.random.default_rng(0).standard_normal((7, 10)).astype(np.float32)
    h = x
    for i in range(layers):
        h = np.tanh(h @ p[f"{i}.weight"].T + p[f"{i}.bias"])
    expected = h @ p[f"{layers}.weight"].T + p[f"{layers}.bias"]
    np.testing.assert_allclose(network.infer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-6)


def test_dropout_is_on_hidden_activations_only_and_off_in_inference():
    config = DGEX(recipe="paper", hidden=4000, dropout=0.25)
    network = Perceptron.initialised(config, 10, 4000, generator())
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


def test_the_best_validation_epoch_is_kept():
    class Walker:
        """Its error falls until the third epoch, then rises."""

        def __init__(self):
            self.parameters = {"w": torch.zeros(1, requires_grad=True)}

        def loss(self, x, y, generator):
            return -self.parameters["w"].sum()

        def infer(self, x):
            return self.parameters["w"].expand(len(x), 1)

    class Constant:
        def after_step(self):
            pass

        def after_epoch(self, train_mae):
            pass

    network = Walker()
    X, Y = np.zeros((4, 1), np.float32), np.full((4, 1), 3, np.float32)
    optimiser = torch.optim.SGD(network.parameters.values(), lr=1.0)
    trained = train(
        network, optimiser, Constant(), (X, Y), (X, Y),
        epochs=6, batch_size=4, generator=generator(), title="walk", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(trained.validation_mae, [2, 1, 0, 1, 2, 3])
    assert trained.best_epoch == 3
    assert trained.parameters["w"] == [3]


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
    history = records(small)["dgex"].model.arrays["history.validation_mae"]
    (_, Y), (_, Y_val) = standardised(small, "train", "validation")
    assert len(history) == epochs
    assert history.min() < 0.8 * np.abs(Y_val - Y.mean(0)).mean()
    assert small.uns["dgex"]["params"]["best_epoch"] == history.argmin() + 1
    assert small.uns["dgex"]["params"]["validation_mae"] == pytest.approx(history.min(), rel=1e-5)


def test_divergence_says_when_and_what_to_change(small):
    with pytest.raises(
        FloatingPointError, match=r"diverged in epoch \d+ at a learning rate of .*Fit again with learning_rate="
    ):
        gx.tl.fit(small, "dgex", recipe="paper", hidden=50, learning_rate=1e6, progress=False)
    assert "dgex" not in small.uns


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recipe": "new"}, "recipe='new' is not known; choose one of modern, paper"),
        ({"activation": "sigmoid"}, "choose one of tanh, relu, silu"),
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
