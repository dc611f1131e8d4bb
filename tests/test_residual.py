"""The residual network: never worse than ridge on validation rows, and better where there is something to learn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine import loop
from gexinfer.methods._ensemble import Ensemble
from gexinfer.methods.residual import SHARES, Residual, Rest

FORMS = [{}, {"target_blocks": 2}, {"layers": 2, "ema": 0.9}, {"trunk": "graph", "weight_norm": True}, {"n_members": 2}]


def notes(adata, key="residual"):
    return records(adata)[key].model.notes


def history(adata, name, key="residual"):
    return records(adata)[key].model.arrays[f"0.history.{name}"]


@pytest.mark.parametrize("options", FORMS)
def test_it_starts_as_ridge(small, options, monkeypatch):
    # Before the first step, whatever share of the network is inferred.
    errors, finished = [], loop.Training.finished

    def measured(training):
        for share in (0.0, 1.0):
            training.network.parameters["share"].fill_(share)
            errors.append((loop.error(training.network, training.validation), training.pairs.n_targets))
        return finished(training)

    monkeypatch.setattr(loop.Training, "finished", measured)
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.fit(small, "residual", epochs=1, hidden=8, progress=False, **options)
    for share, precision in ((0, 1e-5), (1, 5e-3)):
        if share == 1 and options.get("weight_norm"):
            continue  # whose output starts at full length
        own = errors[share::2]
        error = sum(e * n for e, n in own) / sum(n for _, n in own)
        assert error == pytest.approx(notes(small, "ridge")["validation_mae"], rel=precision)
    assert notes(small)["penalty"] == notes(small, "ridge")["penalty"]


@pytest.mark.parametrize("options", [*FORMS, {"penalty": 3000.0}])
def test_with_a_hopeless_rate_it_is_ridge(small, options):
    gx.tl.fit(small, "ridge", progress=False, **{n: v for n, v in options.items() if n == "penalty"})
    gx.tl.fit(small, "residual", epochs=3, hidden=16, learning_rate=0.5, progress=False, **options)
    assert notes(small)["validation_mae"] <= notes(small, "ridge")["validation_mae"] * (1 + 1e-6)


def test_where_the_share_is_nothing_it_is_ridge_to_the_last_bit(small):
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.fit(small, "residual", epochs=1, hidden=16, learning_rate=1.0, progress=False)
    arrays = records(small)["residual"].model.arrays
    assert arrays["0.history.share"] == [0]
    np.testing.assert_array_equal(arrays["0.skip.weight"].T, records(small)["ridge"].model.arrays["coefficients"])
    assert not arrays["0.1.weight"].any()
    gx.tl.predict(small, progress=False)
    np.testing.assert_allclose(small.layers["residual"], small.layers["ridge"], atol=1e-5)


def test_of_noise_it_learns_no_more_than_ridge(small):
    landmark = small.var["landmark"].to_numpy()
    small.X[:, ~landmark] = np.random.default_rng(0).normal(7, 1, (240, 90))
    for method in ("mean", "ridge"):
        gx.tl.fit(small, method, progress=False)
    gx.tl.fit(small, "residual", epochs=20, hidden=64, progress=False)
    gx.tl.predict(small, progress=False)
    table = gx.tl.evaluate(small)
    assert notes(small)["validation_mae"] <= notes(small, "ridge")["validation_mae"] * (1 + 1e-6)
    assert table.loc["residual", "mae"] < 1.01 * table.loc["mean", "mae"]


def test_it_learns_what_bends():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 10))
    Y = X @ rng.normal(size=(10, 20)) + 2 * np.abs(X) @ rng.normal(size=(10, 20))
    adata = ad.AnnData(np.hstack([X, Y]).astype(np.float32))
    adata.var["landmark"] = np.arange(30) < 10
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge", progress=False)
    gx.tl.fit(adata, "residual", hidden=200, epochs=40, progress=False)
    assert notes(adata)["validation_mae"] < 0.6 * notes(adata, "ridge")["validation_mae"]
    assert history(adata, "share")[-1] == 1


@pytest.mark.parametrize("n_members", [1, 3])
def test_the_share_is_the_best_of_all(n_members):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 6, generator=rng), torch.randn(30, 4, generator=rng)
    linear = torch.randn(4, 6, generator=rng)
    config = Residual(hidden=5, n_members=n_members)
    drawn = [Rest.drawn(config, 6, 4, torch.Generator().manual_seed(m)) for m in range(n_members)]
    for own in drawn:
        own |= {"skip.weight": torch.randn(4, 6, generator=rng) / 9, "1.weight": torch.randn(4, 5, generator=rng) / 9}
    cpu, fixed = torch.device("cpu"), {"linear": linear}
    of_ridge = x @ linear.T
    y = of_ridge + 0.02 * y
    network = (
        Rest.learning(config, drawn[0], fixed, cpu)
        if n_members == 1
        else Ensemble.learning(Rest, config, drawn, fixed, cpu)
    )
    share = network.parameters["share"]
    with torch.no_grad():
        share.fill_(1)
        whole = network.infer(x)
        y = of_ridge + 0.35 * (whole - of_ridge) + 0.01 * y
        errors = [(of_ridge + s * (whole - of_ridge) - y).abs().mean() for s in SHARES]
        best = SHARES[int(np.argmin(errors))]
        # In blocks of different size, as rows come from disk.
        assert network.settle([(x[:10], y[:10]), (x[10:], y[10:])]) == {"share": best}
        assert 0 < best < 1
        torch.testing.assert_close(network.infer(x), of_ridge + best * (whole - of_ridge))
        arrays = network.learned({name: p.detach().numpy() for name, p in network.parameters.items()})
    assert "share" not in arrays
    plain = [
        {name: torch.from_numpy(a if n_members == 1 else a[m]) for name, a in arrays.items()} for m in range(n_members)
    ]
    inferred = sum(super(Rest, Rest(config, own, {})).infer(x) for own in plain) / n_members
    torch.testing.assert_close(inferred, network.infer(x).detach())


def test_noise_follows_the_penalty(small):
    found = []
    for penalty in (10.0, 40.0):
        gx.tl.fit(small, "residual", penalty=penalty, epochs=1, hidden=8, progress=False)
        found.append(notes(small)["input_noise"])
        assert notes(small)["penalty"] == penalty
    assert found == pytest.approx([(10 / 168) ** 0.5, (40 / 168) ** 0.5])
    gx.tl.fit(small, "residual", input_noise=0.25, epochs=1, hidden=8, progress=False)
    assert notes(small)["input_noise"] == 0.25


def test_noise_of_variance_v_is_the_penalty_n_v():
    # What the default of input_noise rests on.
    rng = np.random.default_rng(0)
    X, Y, v = rng.normal(size=(50, 5)), rng.normal(size=(50, 3)), 0.3
    noisy = np.tile(X, (20000, 1)) + np.sqrt(v) * rng.normal(size=(20000 * 50, 5))
    learned = np.linalg.lstsq(noisy, np.tile(Y, (20000, 1)), rcond=None)[0]
    np.testing.assert_allclose(learned, np.linalg.solve(X.T @ X + 50 * v * np.eye(5), X.T @ Y), atol=2e-3)


def test_another_model_is_a_start(small):
    gx.tl.fit(small, "residual", epochs=30, hidden=64, progress=False)
    before = notes(small)["validation_mae"]
    gx.tl.fit(small, "residual", init=small, key_added="on", epochs=1, learning_rate=1e-12, progress=False)
    assert notes(small, "on")["validation_mae"] <= before * (1 + 1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"skip": False}, "skip=False: the linear path is what method='residual' starts from"),
        ({"trunk": "dense"}, "trunk='dense' has no linear path of its own"),
        ({"penalty": 0.0}, "penalty=0.0 must be positive and finite"),
        ({"input_noise": -1.0}, "input_noise=-1.0 must not be negative"),
        ({"recipe": "paper"}, "recipe='paper' is not known; choose one of modern"),
    ],
)
def test_what_it_cannot_do_is_refused(small, options, error):
    with pytest.raises(ValueError, match=error):
        gx.tl.fit(small, "residual", progress=False, **options)
