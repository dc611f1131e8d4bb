"""Ensembles: several networks for the same targets, trained in one go."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import torch
from conftest import quick

import gexinfer as gx
from gexinfer.engine.network import Step
from gexinfer.methods import _fitting, get_method
from gexinfer.methods._ensemble import Ensemble
from gexinfer.methods._fitting import member_seeds
from gexinfer.methods.dgex import DGEX, Regression
from gexinfer.tl import _held_out

NETWORKS = ("dgex", "residual", "ggan", "semigan")
# Nothing drawn at random but the first weights.
STILL = {"input_noise": 0.0, "dropout": 0.0}


def fit(adata, method="dgex", **options):
    """Fit a small network and return its record."""
    gx.tl.fit(adata, method, progress=False, device="cpu", **{**quick(method), **options})
    return gx.io.read_model(adata, key=options.get("key_added", method))


def alone(fitted, m):
    """Return member m as a model of its own."""
    arrays = {
        name: a[m] if name[0].isdigit() and ".history." not in name else a for name, a in fitted.model.arrays.items()
    }
    return SimpleNamespace(config=replace(fitted.config, n_members=1), arrays=arrays)


def inferred_alone(fitted, m, X):
    """Return what one member infers of standardised landmarks."""
    member = alone(fitted, m)
    return np.concatenate([*get_method(fitted.method).predict(member, member.config, [X], "cpu")])


def small_ensemble(config, device="cpu", n_in=10, n_out=6):
    drawn = [Regression.drawn(config, n_in, n_out, torch.Generator().manual_seed(m)) for m in range(config.n_members)]
    # Output weights start at next to nothing.
    drawn = [
        {n: p + 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(m)) for n, p in own.items()}
        for m, own in enumerate(drawn)
    ]
    return Ensemble.learning(Regression, config, drawn, {}, torch.device(device))


def gradients(network, step):
    loss = network.loss("network", step)
    for p in network.parameters.values():
        p.grad = None
    loss.total.backward()
    return loss, {name: p.grad.clone() for name, p in network.parameters.items()}


def with_targets(adata, n):
    """Return a copy with all landmarks and some of the targets, split at random."""
    adata = adata.copy()
    gx.pp.landmarks(adata)
    targets = np.random.default_rng(0).choice(np.flatnonzero(~adata.var["landmark"]), n, replace=False)
    adata = adata[:, np.sort(np.r_[np.flatnonzero(adata.var["landmark"]), targets])].copy()
    gx.pp.split(adata)
    return adata


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trunk": "dense", "layers": 3},
        {"trunk": "residual", "layers": 3, "weight_norm": True},
        {"layers": 2, "weight_norm": True, "layer_norm": False, "skip": False, "loss": "mse"},
    ],
)
def test_one_pass_is_that_of_each_member_alone(options):
    config = DGEX(hidden=8, n_members=3, **{**STILL, **options})
    network = small_ensemble(config)
    x, y = torch.randn(7, 10), torch.randn(7, 6)
    step = Step(x, y, None, torch.Generator(), 0.0)
    found, grads = gradients(network, step)
    each = []
    for m in range(3):
        own = {name: p.detach()[m].clone().requires_grad_() for name, p in network.parameters.items()}
        member = Regression(config, own, {})
        loss, expected = gradients(member, step)
        each.append(loss.total)
        for name, gradient in expected.items():
            torch.testing.assert_close(grads[name][m], gradient, msg=name)
    torch.testing.assert_close(found.total, sum(each))
    assert found.networks == 3
    # And the loop over members, by which other kinds learn.
    network.kind = type("Single", (Regression,), {"at_once": False})
    looped, by_loop = gradients(network, step)
    torch.testing.assert_close(looped.total, found.total)
    for name, gradient in grads.items():
        torch.testing.assert_close(by_loop[name], gradient, msg=name)


def test_each_member_has_noise_and_dropout_of_its_own():
    config = DGEX(hidden=100, n_members=2)
    network = small_ensemble(config)
    for p in network.parameters.values():
        p.data[1] = p.data[0]
    x = torch.randn(1, 7, 10).expand(2, 7, 10)
    assert torch.equal(*network.whole.forward(x, None))
    for option in ({"dropout": 0.0}, {"input_noise": 0.0}):
        network.config = DGEX(hidden=100, n_members=2, **option)
        first, second = network.whole.forward(x, torch.Generator().manual_seed(0))
        assert (first != second).any(1).all()


@pytest.mark.parametrize("options", [{"recipe": "paper"}, {"recipe": "paper", "target_blocks": 2, "ema": 0.5}])
def test_a_member_learns_what_it_would_alone(small, monkeypatch, options):
    options = {**STILL, **options, "epochs": 2}
    together = fit(small, n_members=3, **options)
    X = standardised_landmarks(small, together)
    for m in range(3):
        monkeypatch.setattr(_fitting, "member_seeds", lambda seed, n, m=m: [member_seeds(seed, 3)[m]])
        single = fit(small, key_added="alone", **options)
        expected = np.concatenate([*get_method("dgex").predict(single.model, single.config, [X], "cpu")])
        np.testing.assert_allclose(inferred_alone(together, m, X), expected, atol=2e-5)


def standardised_landmarks(adata, fitted):
    return fitted.landmark_scale.standardise(np.asarray(adata[:, list(fitted.landmarks)].X))


@pytest.mark.filterwarnings("ignore:.*(at chance|not kept up)")
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dgex", {}),
        ("dgex", {"target_blocks": 2, "weight_norm": True, "trunk": "dense"}),
        ("dgex", {"trunk": "graph"}),
        ("residual", {"target_blocks": 2}),
        ("dgex", {"trunk": "conv1d", "layer_norm": False}),
        ("ggan", {}),
        ("semigan", {"keep_discriminator": True}),
    ],
)
def test_the_mean_of_the_members_is_inferred_and_their_spread_is_the_sd(small, method, options):
    fitted = fit(small, method, n_members=3, **options)
    X = standardised_landmarks(small, fitted)
    each = np.stack([inferred_alone(fitted, m, X) for m in range(3)])
    assert (each.std(0) > 0).mean() > 0.99
    rows = np.asarray(small[:, list(fitted.landmarks)].X)
    mean = fitted.target_scale.restore(each.mean(0))
    np.testing.assert_allclose(fitted.predict(rows, device="cpu"), mean, atol=1e-5)
    gx.tl.predict(small, key=method, std=True, progress=False)
    unit = np.where(fitted.target_scale.sd > 0, fitted.target_scale.unit, 0)
    deviations = small[:, list(fitted.targets)].layers[f"{method}_std"]
    np.testing.assert_allclose(deviations, each.std(0, ddof=1) * unit, atol=1e-5)
    landmark = small.var["landmark"].to_numpy()
    assert np.isnan(small.layers[f"{method}_std"][:, landmark]).all()
    # By Jensen's inequality, sample for sample.
    truth = fitted.target_scale.standardise(np.asarray(small[:, list(fitted.targets)].X))
    assert (np.abs(each.mean(0) - truth) <= np.abs(each - truth).mean(0) + 1e-5).all()


def test_slopes_and_hidden_units_are_those_of_all_members(small):
    fitted = fit(small, n_members=2, trunk="dense", target_blocks=2)
    X, method = standardised_landmarks(small, fitted)[:9], get_method("dgex")
    weights = np.full_like(X, 1 / len(X))
    members = [alone(fitted, m) for m in range(2)]
    expected = np.mean([method.jacobian(m, m.config, X, weights, "cpu") for m in members], axis=0)
    np.testing.assert_allclose(method.jacobian(fitted.model, fitted.config, X, weights, "cpu"), expected, atol=1e-6)
    (found,) = method.hidden(fitted.model, fitted.config, [X], "cpu")
    each = [next(method.hidden(m, m.config, [X], "cpu")) for m in members]
    assert len(found) == 2
    for b, units in enumerate(found):
        np.testing.assert_array_equal(units, np.hstack([each[0][b], each[1][b]]))
    table = gx.tl.nonlinearity(small, key="dgex", progress=False)
    assert np.isfinite(table.select_dtypes("number")).all(axis=None)
    assert gx.pl.weights(small, key="dgex", n_units=2) is not None


def test_its_error_is_below_the_mean_of_its_members_and_below_one_network(bulk_once):
    adata = with_targets(bulk_once, 200)
    options = {"hidden": 100, "epochs": 15}
    together, one = fit(adata, n_members=4, key_added="four", **options), fit(adata, **options)
    test = adata[adata.obs["split"] == "test"]
    X = standardised_landmarks(test, together)
    truth = together.target_scale.standardise(np.asarray(test[:, list(together.targets)].X))
    each = np.stack([inferred_alone(together, m, X) for m in range(4)])
    errors = np.abs(each - truth).mean((1, 2))
    whole = np.abs(each.mean(0) - truth).mean()
    single = np.abs(np.concatenate([*get_method("dgex").predict(one.model, one.config, [X], "cpu")]) - truth).mean()
    assert whole < errors.min()
    assert whole < single
    # What the training watches is the error of the mean.
    held = adata[adata.obs["split"] == "validation"]
    X, Y = standardised_landmarks(held, together), np.asarray(held[:, list(together.targets)].X)
    mean = np.mean([inferred_alone(together, m, X) for m in range(4)], axis=0)
    error = np.abs(mean - together.target_scale.standardise(Y)).mean()
    assert together.model.arrays["0.history.validation_mae"].min() == pytest.approx(error, rel=1e-5)
    assert together.model.notes["validation_mae"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("method", NETWORKS)
def test_one_member_is_a_network_without_another_axis(small, fitted_once, method):
    one, plain = fit(small, method, n_members=1), gx.io.read_model(fitted_once, key=method)
    assert one.model.arrays.keys() == plain.model.arrays.keys()
    for name, array in plain.model.arrays.items():
        np.testing.assert_array_equal(one.model.arrays[name], array)
    with pytest.raises(
        ValueError, match=f"std=True: {method!r} has no standard.*'kernel'.*those fitted with n_members=5"
    ):
        gx.tl.predict(small, key=method, std=True, progress=False)
    with pytest.raises(ValueError, match="Fit it with n_members=5"):
        next(one.std_blocks([np.zeros((1, len(one.landmarks)))], device="cpu"))


def test_the_first_member_begins_as_a_network_alone(small):
    """And the others elsewhere."""
    stop = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1, "hidden": 8}
    one, three = fit(small, key_added="one", **stop), fit(small, key_added="three", n_members=3, **stop)
    for name in ("0.0.weight", "0.1.weight"):
        np.testing.assert_allclose(three.model.arrays[name][0], one.model.arrays[name], atol=1e-12)
        first, *others = three.model.arrays[name]
        assert all((first != other).mean() > 0.99 for other in others)


def test_a_record_of_members_survives_a_file(small, tmp_path):
    fitted = fit(small, n_members=2)
    assert fitted.model.arrays["0.0.weight"].shape == (2, 32, 60)
    gx.io.write_model(small, tmp_path / "a.safetensors")
    back = gx.io.read_model(tmp_path / "a.safetensors")
    X = np.asarray(small[:, list(fitted.landmarks)].X)
    np.testing.assert_array_equal(back.predict(X), fitted.predict(X))
    assert small.uns["dgex"]["params"]["n_members"] == 2


def test_started_from_an_ensemble_each_member_goes_on(small):
    fitted = fit(small, n_members=2, weight_norm=True)
    again = fit(
        small[:, ::-1].copy(), key_added="again", init=fitted, learning_rate=1e-30, weight_decay=0.0, weight_norm=True
    )
    assert again.config.n_members == 2
    X = np.asarray(small[:, list(fitted.landmarks)].X)
    order = [again.targets.index(gene) for gene in fitted.targets]
    expected = fitted.predict(X, device="cpu")
    found = again.predict(np.asarray(small[:, list(again.landmarks)].X), device="cpu")[:, order]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match="n_members=3, but the model of init= has 2. Leave n_members= out"):
        gx.tl.fit(small, "dgex", init=fitted, n_members=3, progress=False)


def test_the_memory_of_all_members_is_told(small, capsys):
    told = []
    for n in (1, 5):
        gx.tl.fit(small, "dgex", n_members=n, device="cpu", **quick("dgex"))
        line = next(line for line in capsys.readouterr().err.splitlines() if "weights on cpu" in line)
        told.append(int(line.split()[1].replace(",", "")))
    assert told[1] == 5 * told[0]


def test_an_ensemble_of_none(small):
    with pytest.raises(ValueError, match="n_members=0 must be at least 1"):
        gx.tl.fit(small, "dgex", n_members=0)


def test_intervals_grow_where_members_are_apart(small, monkeypatch):
    """By hand: the root of a sample's novelty, times how far they are apart beside the gene and the sample's usual."""
    monkeypatch.setattr(_held_out, "MOST_ROWS", 30)  # of 36
    fitted = fit(small, n_members=3, target_blocks=2)
    gx.tl.predict(small, interval=0.9, progress=False)
    picks = np.unique(np.linspace(0, 35, 30).astype(int))
    factor, error = {}, {}
    for side in ("validation", "all"):
        part = small if side == "all" else small[small.obs["split"] == side][picks]
        X = standardised_landmarks(part, fitted)
        each = np.stack([inferred_alone(fitted, m, X) for m in range(3)])
        variance = each.var(0, ddof=1)
        share = variance / variance.mean(1, keepdims=True)
        if side == "validation":
            usual = share.mean(0)
        novelty = part.obs["gexinfer_novelty"].to_numpy()
        factor[side] = np.sqrt(novelty[:, None] * (2 * share / usual + 16) / 18)
        truth = fitted.target_scale.standardise(np.asarray(part[:, list(fitted.targets)].X))
        error[side] = np.abs(each.mean(0) - truth)
    rank = int(np.ceil(0.9 * 31 - 1e-9))
    widths = np.sort(error["validation"] / factor["validation"], axis=0)[rank - 1] * fitted.target_scale.unit
    upper, middle = (small[:, list(fitted.targets)].layers[name] for name in ("dgex_upper", "dgex"))
    np.testing.assert_allclose(upper - middle, factor["all"] * widths, rtol=4e-3, atol=1e-5)
    # Only where they are to grow.
    gx.tl.predict(small, interval=0.9, interval_scaled=False, progress=False)
    lower = small[:, list(fitted.targets)].layers["dgex_lower"]
    np.testing.assert_allclose(np.ptp(small[:, list(fitted.targets)].layers["dgex"] - lower, axis=0), 0, atol=1e-5)


def test_intervals_of_an_ensemble_are_the_same_of_a_lazy_query(small):
    fit(small, n_members=2)
    lazy = small.copy()
    lazy.X = da.from_array(np.asarray(small.X), chunks=(100, 50))
    for adata in (small, lazy):
        gx.tl.predict(adata, small, interval=0.9, std=True, progress=False)
    for name in ("dgex", "dgex_std", "dgex_lower", "dgex_upper"):
        np.testing.assert_array_equal(lazy.layers[name].compute(), small.layers[name])


def test_intervals_of_an_ensemble_hold_of_values_on_which_it_is_apart(bulk_once):
    adata = with_targets(bulk_once, 300)
    fitted = fit(adata, n_members=5, hidden=100, epochs=15)
    gx.tl.predict(adata, interval=0.9, std=True, progress=False)
    table = gx.tl.coverage(adata)
    assert table.set_index("kind").loc["all", "coverage"] == pytest.approx(0.9, abs=0.02)
    of_novelty = table.query("kind == 'samples by novelty'")["coverage"]
    assert of_novelty.max() - of_novelty.min() < 0.06
    test = adata[adata.obs["split"] == "test", list(fitted.targets)]
    held = (test.layers["dgex_lower"] <= test.X) & (test.layers["dgex_upper"] >= test.X)
    # By how far apart the members are on a value, among those of its gene.
    tenths = np.argsort(np.argsort(test.layers["dgex_std"], axis=0), axis=0) * 10 // len(test)
    of_spread = [held[tenths == i].mean() for i in range(10)]
    assert max(of_spread) - min(of_spread) < 0.05
