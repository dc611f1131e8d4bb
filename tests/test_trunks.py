"""The trunks against loops, and what they take for neighbours against the obvious search."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from conftest import standardised

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods._trunks import CHANNELS, NEIGHBOURS, STRIDE, TRUNKS, WINDOW
from gexinfer.methods.dgex import DGEX, Regression

TRUNK_NAMES = ["mlp", "dense", "residual", "conv1d", "graph"]


def network(fixed=None, n_in=13, n_out=5, **options) -> Regression:
    config = DGEX(**{"hidden": 7, "activation": "relu", "layer_norm": False, **options})
    drawn = Regression.drawn(config, n_in, n_out, torch.Generator().manual_seed(0))
    for name, p in drawn.items():  # all matter, also those that start at zero
        if name.endswith("bias") or name == "skip.weight" or p.shape[0] == n_out:
            p.normal_(generator=torch.Generator().manual_seed(len(name)))
    made = Regression.learning(
        config, drawn, {n: torch.from_numpy(a) for n, a in (fixed or {}).items()}, torch.device("cpu")
    )
    assert set(made.parameters) == set(drawn)
    return made


def arrays(made: Regression) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().astype(np.float64) for name, p in made.parameters.items()}


def relu(values):
    return np.maximum(values, 0)


X = np.random.default_rng(0).standard_normal((4, 13)).astype(np.float32)


def assert_infers(made: Regression, expected: np.ndarray) -> None:
    np.testing.assert_allclose(made.infer(torch.from_numpy(X)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_dense_every_layer_sees_the_landmarks_and_all_before_it():
    made = network(trunk="dense", layers=3)
    p, seen = arrays(made), [X]
    for i in range(3):
        seen.append(relu(np.hstack(seen) @ p[f"{i}.weight"].T + p[f"{i}.bias"]))
    assert "skip.weight" not in p  # the output sees the landmarks
    assert_infers(made, np.hstack(seen) @ p["3.weight"].T + p["3.bias"])


def test_residual_adds_what_each_layer_makes():
    made = network(trunk="residual", layers=3)
    p = arrays(made)
    h = relu(X @ p["0.weight"].T + p["0.bias"])
    for i in (1, 2):
        h = h + relu(h @ p[f"{i}.weight"].T + p[f"{i}.bias"])
    assert_infers(made, h @ p["3.weight"].T + p["3.bias"] + X @ p["skip.weight"].T)


def test_conv1d_is_a_window_over_the_ordered_landmarks():
    order = np.random.default_rng(1).permutation(13)
    made = network({"order": order}, trunk="conv1d", layers=2)
    p = arrays(made)
    h = X[:, None, order].astype(np.float64)
    for i in range(2):
        padded = np.pad(h, ((0, 0), (0, 0), (WINDOW // 2, WINDOW // 2)))
        places = range(0, h.shape[2], STRIDE)
        h = np.stack(
            [
                np.einsum("rcw,ocw->ro", padded[:, :, at : at + WINDOW], p[f"conv.{i}.weight"]) + p[f"conv.{i}.bias"]
                for at in places
            ],
            axis=2,
        )
        h = relu(h)
    h = relu(h.reshape(4, -1) @ p["0.weight"].T + p["0.bias"])
    assert_infers(made, h @ p["1.weight"].T + p["1.bias"] + X @ p["skip.weight"].T)


def test_graph_mixes_each_landmark_with_the_mean_of_its_neighbours():
    rng = np.random.default_rng(1)
    neighbours = np.stack([rng.permutation(13)[:4] for _ in range(13)])
    made = network({"order": np.arange(13), "neighbours": neighbours}, trunk="graph", layers=2)
    p = arrays(made)
    h = X[:, None, :].astype(np.float64)
    for i in range(2):
        new = np.empty((4, CHANNELS, 13))
        for gene in range(13):
            both = np.hstack([h[:, :, gene], h[:, :, neighbours[gene]].mean(axis=2)])
            new[:, :, gene] = relu(both @ p[f"conv.{i}.weight"].T + p[f"conv.{i}.bias"])
        h = new
    h = relu(h.reshape(4, -1) @ p["0.weight"].T + p["0.bias"])
    assert_infers(made, h @ p["1.weight"].T + p["1.bias"] + X @ p["skip.weight"].T)


def fitted(adata: ad.AnnData, method: str = "dgex", **options):
    quick = {"epochs": 2, "hidden": 8, "progress": False}
    gx.tl.fit(adata, method, **(quick | options))
    return records(adata)[options.get("key_added", method)]


def test_neighbours_in_the_graph_are_the_most_correlated_landmarks(small):
    ((X_train, _),) = standardised(small, "train")
    correlation = np.corrcoef(X_train.T)
    found = fitted(small, trunk="graph").model.arrays
    np.testing.assert_array_equal(found["order"], np.arange(60))
    for gene in range(60):
        others = sorted((g for g in range(60) if g != gene), key=lambda g: -correlation[gene, g])
        assert set(found["neighbours"][gene]) == set(others[:NEIGHBOURS])
    at_random = fitted(small, trunk="graph", structure="random").model.arrays["neighbours"]
    assert at_random.shape == (60, NEIGHBOURS)
    assert all(len(set(row) - {gene}) == NEIGHBOURS for gene, row in enumerate(at_random))
    assert (np.sort(at_random) != np.sort(found["neighbours"])).any(axis=1).all()


def test_neighbours_of_the_convolution_are_correlated_landmarks(small):
    ((X_train, _),) = standardised(small, "train")
    correlation = np.corrcoef(X_train.T)

    def next_to_each_other(order):
        assert sorted(order) == list(range(60))
        return correlation[order[:-1], order[1:]].mean()

    found = {kind: fitted(small, trunk="conv1d", structure=kind).model.arrays["order"] for kind in ("data", "random")}
    assert next_to_each_other(found["data"]) > 0.4 > 0.2 > next_to_each_other(found["random"])


@pytest.mark.parametrize("method", ["dgex", "ggan"])
@pytest.mark.parametrize("trunk", TRUNK_NAMES)
def test_every_trunk_learns_and_comes_back_from_a_file(small, tmp_path, method, trunk):
    gx.tl.fit(small, "mean", progress=False)
    fitted(small, method, trunk=trunk, epochs=30, hidden=32)
    gx.tl.predict(small, progress=False)
    table = gx.tl.evaluate(small)
    assert table.loc[method, "mae"] < 0.7 * table.loc["mean", "mae"]
    gx.io.write_model(small, tmp_path / "a.safetensors", key=method)
    back = gx.tl.predict(small[:9], gx.io.read_model(tmp_path / "a.safetensors"), output="anndata", progress=False)
    np.testing.assert_array_equal(back[:, small.var_names].layers[method], small[:9].layers[method])


@pytest.mark.parametrize("method", ["dgex", "ggan"])
@pytest.mark.parametrize("trunk", TRUNK_NAMES)
def test_started_from_itself_every_trunk_infers_the_same_genes_matched_by_name(small, method, trunk):
    """With a rate of next to nothing; the genes stand in another order."""
    fitted(small, method, trunk=trunk, weight_norm=True)
    shuffled = small[:, np.random.default_rng(0).permutation(small.n_vars)].copy()
    fitted(shuffled, method, init=small, learning_rate=1e-12, weight_decay=0.0, weight_norm=True)
    for adata in (small, shuffled):
        gx.tl.predict(adata, key=method, progress=False)
    again = shuffled[:, small.var_names].layers[method]
    np.testing.assert_allclose(again, small.layers[method], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trunk", ["dense", "residual"])
def test_new_landmarks_weigh_nothing(small, trunk):
    old = small[:, small.var_names[7:]].copy()
    assert old.var["landmark"].sum() < 60
    fitted(old, trunk=trunk)
    fitted(small, trunk=trunk, init=old, learning_rate=1e-12, weight_decay=0.0)
    for adata in (old, small):
        gx.tl.predict(adata, progress=False)
    known = old.var_names[~old.var["landmark"]]
    np.testing.assert_allclose(small[:, known].layers["dgex"], old[:, known].layers["dgex"], rtol=1e-4, atol=1e-4)


def test_neighbours_are_of_the_same_landmarks_only(small):
    fitted(small, trunk="conv1d")
    fewer = small[:, small.var_names != small.var_names[small.var["landmark"]][0]].copy()
    with pytest.raises(ValueError, match=r"init has 60 landmarks, of which adata has 59 among its 59.*same landmarks"):
        gx.tl.fit(fewer, "dgex", init=small, progress=False)


def test_lengths_of_weights_are_multiplied_into_the_record(small):
    model = fitted(small, weight_norm=True).model
    assert not any(name.endswith("length") for name in model.arrays)
    config = DGEX(weight_norm=True, hidden=6)
    drawn = Regression.drawn(config, 8, 4, torch.Generator().manual_seed(0))
    made = Regression.learning(config, drawn, {}, torch.device("cpu"))
    with torch.no_grad():
        for name in ("0.length", "1.length"):
            made.parameters[name].mul_(1.7)
        made.parameters["0.weight"].mul_(3)  # which has no effect
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    plain = made.learned({name: p.detach().numpy() for name, p in made.parameters.items()})
    np.testing.assert_allclose(plain["0.weight"], 1.7 * drawn["0.weight"], rtol=1e-5)
    bare = Regression(config, {name: torch.from_numpy(a) for name, a in plain.items()}, {})
    torch.testing.assert_close(bare.infer(x), made.infer(x).detach())


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("trunk", TRUNK_NAMES)
def test_every_weight_learns(small, trunk, weight_norm):
    start, end = (
        fitted(small, trunk=trunk, weight_norm=weight_norm, epochs=n, hidden=8, schedule="constant").model.arrays
        for n in (1, 3)
    )
    for name, array in end.items():
        if "history" not in name and name[0] == "0":
            assert array.any(), name
            assert (array != start[name]).any(), name


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"structure": "random"}, r"structure='random' is for trunk='conv1d' and 'graph'; trunk='mlp' has none"),
        ({"trunk": "dense", "skip": False}, r"skip=False: the output of trunk='dense' always sees the landmarks"),
        (
            {"trunk": "transformer"},
            r"trunk='transformer' is not known; choose one of mlp, dense, residual, conv1d, graph",
        ),
    ],
)
def test_trunks_that_are_none(small, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "dgex", **options)


def test_a_single_landmark_has_no_neighbour(small):
    small.var["landmark"] = np.arange(small.n_vars) == 0
    for trunk in TRUNK_NAMES:
        for structure in ("data", "random") if trunk not in TRUNKS else ("data",):
            model = fitted(small, trunk=trunk, structure=structure)
            assert np.isfinite(model.predict(small.X[:3, :1])).all()
