"""Several methods at once: what is chosen, how it is weighed, and that it is the sum of its parts."""

from __future__ import annotations

import logging
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from conftest import standardised
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from typer.testing import CliRunner

import gexinfer as gx
from gexinfer._slots import split_rows
from gexinfer.cli import app
from gexinfer.engine.blocks import Pairs, Rows
from gexinfer.engine.moments import moments
from gexinfer.engine.processes import Processes
from gexinfer.engine.run import Run
from gexinfer.methods import Task, _weights, configure, get_method
from gexinfer.methods import auto as module
from gexinfer.methods._cost import Size

CPU = torch.device("cpu")
# A member of each kind, quick enough for a test.
FEW = {
    "ridge": ("ridge", {}),
    "kernel": ("kernel", {"depth": 2, "linear": 0.0, "penalty": 0.1, "huber": 0.0}),
    "small": ("dgex", {"hidden": 16}),
}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(module, "CANDIDATES", FEW)
    monkeypatch.setattr(module, "EPOCHS", (3,))


def fit(adata, **options):
    """Fit and return the record."""
    gx.tl.fit(adata, progress=False, device="cpu", **options)
    return gx.io.read_model(adata, key="auto")


def task_of(adata, seed=0):
    """Return what `tl.fit` gives a method."""
    landmark = adata.var["landmark"].to_numpy()
    rows = {
        side: Rows(adata.X, split_rows(adata, side), np.flatnonzero(landmark), np.flatnonzero(~landmark))
        for side in ("train", "validation")
    }
    sums = moments(rows["train"].blocks(), int(landmark.sum()), len(rows["train"]))
    train, validation = (Pairs(rows[side], sums.scale) for side in rows)
    return Task(train, validation, sums.standardised(), np.random.default_rng(seed), "cpu", Run(progress=False))


def inferred(method, model, config, X):
    return np.concatenate([*get_method(method).predict(model, config, [np.asarray(X, np.float32)], "cpu")])


def instead(monkeypatch, name, fitting):
    """Have a method fitted in another way."""
    own = replace(get_method(name), fit=fitting)
    monkeypatch.setattr(module, "get_method", lambda asked: own if asked == name else get_method(asked))


def simulated(seed, k=3, n=40, q=7):
    """Return what k models predict for (n, q) measurements, and these; some are better, for some targets."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, q)).astype(np.float32)
    away = rng.standard_normal((k, n, q)) * rng.uniform(0.1, 1, (k, 1, q)) + 0.3 * rng.standard_normal((1, n, q))
    return [np.float32(y + own) for own in away], y


def exact(P, y):
    """Return the weights, not negative and of sum one, with the lowest sum of absolute errors, and that error."""
    k, n = P.shape
    # Of each row the error above and the error below the measured value.
    found = linprog(
        np.r_[np.zeros(k), np.ones(2 * n)],
        A_eq=np.vstack([np.hstack([P.T, np.eye(n), -np.eye(n)]), np.r_[np.ones(k), np.zeros(2 * n)]]),
        b_eq=np.r_[y, 1],
    )
    return found.x[:k], found.fun


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_nearly_those_of_a_linear_program(seed):
    predicted, y = simulated(seed)
    P, truth = _weights.gathered(predicted, y, np.arange(y.shape[1]))
    every = _weights.common(P, truth)
    _, lowest = exact(P.transpose(1, 0, 2).reshape(len(predicted), -1), truth.reshape(-1))
    assert _weights.absolute(P, truth, np.tile(every, (len(truth), 1))) < 1.002 * lowest
    own = _weights.own(P, truth, every, 0.0)
    for g in range(len(truth)):
        _, lowest = exact(P[g], truth[g])
        assert np.abs(own[g] @ P[g] - truth[g]).sum() < 1.02 * lowest


@pytest.mark.parametrize("hold", _weights.HOLDS)
def test_a_target_s_weights_are_held_to_those_of_all(hold):
    predicted, y = simulated(0, k=2)
    P, truth = _weights.gathered(predicted, y, np.arange(y.shape[1]))
    every = _weights.common(P, truth)
    anchor = (every + _weights.LEAST / 2) / (1 + _weights.LEAST)

    def objective(g, w):
        unit = hold * np.abs(anchor @ P[g] - truth[g]).mean()
        return np.abs(w @ P[g] - truth[g]).mean() + unit * (w * np.log(w / anchor)).sum()

    # The obvious slow way: try them all.
    shares = np.linspace(0.001, 0.999, 999)
    for g, own in enumerate(_weights.own(P, truth, every, hold)):
        lowest = min(objective(g, np.array([share, 1 - share])) for share in shares)
        assert objective(g, own) < 1.005 * lowest


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 5), n=st.integers(1, 60), q=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_a_blend_is_never_worse_than_its_best_member(seed, k, n, q):
    predicted, y = simulated(seed, k, n, q)
    weights, how = _weights.blend(predicted, y)
    assert weights.shape == (k, q)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-5)
    assert how.startswith(("weights per target", "the same weights", "the best model"))
    put_together = np.einsum("kgn,kn->gn", np.array(predicted), weights)
    alone = [np.abs(own - y).mean(dtype=float) for own in predicted]
    assert np.abs(put_together - y).mean(dtype=float) <= min(alone) * (1 + 1e-5)


def test_weights_follow_what_each_model_is_good_at():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((200, 40)).astype(np.float32)
    noise = rng.standard_normal((2, 200, 40)).astype(np.float32)
    noise[0, :, :20] *= 0.1
    noise[1, :, 20:] *= 0.1
    weights, how = _weights.blend(list(y + noise), y)
    assert how.startswith("weights per target")
    assert weights[0, :20].min() > 0.8
    assert weights[1, 20:].min() > 0.8
    # A model that is right is all there is, whoever stands beside it.
    weights, _ = _weights.blend([y + noise[0], y], y)
    assert weights[1].min() > 0.99
    # With few rows a target's own weights are of no use.
    assert not _weights.blend(list(y[:7] + noise[:, :7]), y[:7])[1].startswith("weights per target")


def test_it_is_the_weighted_sum_of_its_members(small, few):
    task = task_of(small)
    method, config = get_method("auto"), configure(get_method("auto"), {})
    model = method.fit(task, config)
    # One after another from the same generator.
    again, X = task_of(small), task.validation.arrays()[0]
    alone = []
    for name, options in FEW.values():
        own = configure(get_method(name), options | ({"epochs": 3} if name == "dgex" else {}))
        alone.append(inferred(name, get_method(name).fit(again, own), own, X))
    weights = model.arrays["weights"]
    assert weights.shape == (3, 90)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    assert (weights >= 0).all()
    expected = sum(values * share for values, share in zip(alone, weights, strict=True))
    np.testing.assert_allclose(inferred("auto", model, config, X), expected, atol=1e-5)
    # What is noted of each is its own error, on all 36 validation rows.
    y = task.validation.arrays()[1]
    assert [model.notes[f"{i}.mae"] for i in range(3)] == pytest.approx([np.abs(own - y).mean() for own in alone])
    assert [model.notes[f"{i}.method"] for i in range(3)] == ["ridge", "kernel", "dgex"]
    assert model.notes["members"] == "ridge; kernel; small"
    assert [model.notes[f"{i}.weight"] for i in range(3)] == pytest.approx(weights.mean(1))
    np.testing.assert_array_equal(expected.shape, (36, 90))


def test_ridge_and_kernel_end_with_the_validation_rows_among_theirs(small, few):
    task = task_of(small)
    method, config = get_method("auto"), configure(get_method("auto"), {})
    before = method.fit(task, config)
    after = method.refit(task, config, before)
    (X, Y), (x, y), (test, _) = standardised(small, "train", "validation", "test")
    both, targets = np.vstack([X, x]), np.vstack([Y, y])
    penalty = before.notes["0.note.penalty"] * len(both) / len(X)
    expected = [Ridge(alpha=penalty, fit_intercept=False).fit(both, targets).predict(test)]
    kernels = [arccos(A, both) for A in (both, test)]
    expected += [KernelRidge(alpha=0.1, kernel="precomputed").fit(kernels[0], targets).predict(kernels[1])]
    for (own, options, part, _), values in zip(module.members(after), expected, strict=False):
        np.testing.assert_allclose(inferred(own.name, part, options, test), values, atol=5e-4)
    # The network, the weights and what was chosen stay.
    same = [name for name in before.arrays if name == "weights" or name.startswith("2.")]
    assert len(same) > 5
    for name in same:
        np.testing.assert_array_equal(before.arrays[name], after.arrays[name])
    assert before.notes == after.notes


def arccos(A, B):
    """The arc-cosine kernel of two layers."""
    a, b = (np.sqrt((M**2).mean(1)) for M in (A, B))
    norms = a[:, None] * b
    cosine = A @ B.T / A.shape[1] / norms
    for _ in range(2):
        angle = np.arccos(np.clip(cosine, -1, 1))
        cosine = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    return cosine * norms


def test_the_validation_error_is_from_before_these_rows_were_learned(small, few):
    fitted = fit(small)
    other = small[(small.obs["split"] == "validation").to_numpy()].copy()
    other.obs_names = "other-" + other.obs_names
    # Rows of another object are no rows to learn from.
    without = small[(small.obs["split"] != "validation").to_numpy()].copy()
    gx.tl.fit(without, validation=other, progress=False, device="cpu")
    unlearned = gx.io.read_model(without, key="auto")
    (x, y) = standardised(small, "validation")[0]
    config = unlearned.config
    error = np.abs(inferred("auto", unlearned.model, config, x) - y).mean()
    assert fitted.model.notes["validation_mae"] == pytest.approx(error, rel=1e-4)
    assert unlearned.model.notes["validation_mae"] == pytest.approx(error, rel=1e-4)
    assert unlearned.model.arrays["1.landmarks"].shape[0] == 168
    assert fitted.model.arrays["1.landmarks"].shape[0] == 168 + 36
    assert np.abs(inferred("auto", fitted.model, config, x) - y).mean() < 0.9 * error
    # And so are intervals.
    for name in ("residuals", "residuals_scaled"):
        np.testing.assert_allclose(fitted.known[name], unlearned.known[name], rtol=2e-3)


def test_an_approximate_kernel_is_not_refitted(small, few, monkeypatch):
    monkeypatch.setitem(FEW, "kernel", ("kernel", {"n_inducing": 50}))
    monkeypatch.setattr(module, "CANDIDATES", FEW)
    assert fit(small).model.arrays["1.landmarks"].shape[0] == 50


def test_nor_is_one_for_which_there_is_no_memory(small, few, monkeypatch):
    kernel = get_method("kernel")
    model = kernel.fit(task_of(small), configure(kernel, {}))
    monkeypatch.setattr("gexinfer.methods.kernel.available", lambda device: 10**5)
    assert kernel.refit(task_of(small), configure(kernel, {}), model) is model


def last_fit(monkeypatch, error):
    """Have the last fit of a kernel end so."""

    def refitting(task, config, model):
        raise error

    own = replace(get_method("kernel"), refit=refitting)
    monkeypatch.setattr(module, "get_method", lambda asked: own if asked == "kernel" else get_method(asked))


@pytest.mark.parametrize("error", [FloatingPointError("too weak"), MemoryError("none left")])
def test_nor_is_one_whose_last_fit_fails(small, few, monkeypatch, error):
    last_fit(monkeypatch, error)
    with pytest.warns(UserWarning, match=f"auto: kernel stays as it was fitted, without the validation rows: {error}"):
        fitted = fit(small)
    assert fitted.model.notes["members"] == "ridge; kernel; small"
    assert fitted.model.arrays["1.landmarks"].shape[0] == 168
    last_fit(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        fit(small)


def test_ctrl_c_in_the_last_fit_keeps_the_model(small, few, monkeypatch):
    last_fit(monkeypatch, KeyboardInterrupt())
    with pytest.warns(UserWarning, match="auto: interrupted in the last fit of kernel, which stays as it was"):
        fitted = fit(small)
    assert fitted.model.arrays["1.landmarks"].shape[0] == 168
    assert fitted.params()["interrupted"] == "kernel"


def test_a_learning_curve_counts_all_rows_that_were_learned_from(small, few):
    table = gx.tl.learning_curve(small, ["auto"], sizes=[168], repeats=1, progress=False)
    other = small[(small.obs["split"] == "validation").to_numpy()].copy()
    other.obs_names = "other-" + other.obs_names
    # After which no validation row is learned from.
    gx.tl.fit(small, validation=other, progress=False)
    gx.tl.predict(small, progress=False)
    expected = gx.tl.evaluate(small, key="auto").loc["auto", "mae"]
    assert table.set_index("model").loc["auto", "mae"] == pytest.approx(expected, rel=1e-5)


SIZES = {"small": Size(168, 36, 60, 90), "bulk": Size(1114, 139, 978, 2000), "large": Size(100_000, 5000, 978, 11_000)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_more_time_is_for_more_and_never_more_than_there_is(size):
    before = -1.0
    for budget in (0.01, 1, 10, 60, 300, 3600, 86400):
        chosen, why_not = module.plan(size, budget, CPU)
        assert chosen[0].label == "ridge"
        assert len(chosen) + len(why_not) == len(module.CANDIDATES)
        seconds = sum(member.cost.seconds for member in chosen)
        assert seconds <= budget or len(chosen) == 1
        assert len(chosen) >= before
        before = len(chosen)
    assert not why_not or size is SIZES["large"]


def test_a_second_leaves_out_networks_and_says_so(bulk_once, caplog):
    some = gx.pp.landmarks(bulk_once, copy=True)[:, :1300].copy()
    gx.pp.split(some)
    with caplog.at_level(logging.INFO, "gexinfer"):
        gx.tl.fit(some, budget="1s", device="cpu")
    assert "dgex" not in some.uns["auto"]["params"]["members"]
    assert some.uns["auto"]["params"]["0.method"] == "ridge"
    lines = [line for line in caplog.messages if line.startswith("│ dgex")]
    assert len(lines) == sum(name == "dgex" for name, _ in module.CANDIDATES.values())
    assert all("would take" in line for line in lines)
    foretold = [line for line in caplog.messages if line.startswith("auto: ridge")]
    assert len(foretold) == 1
    assert "(budget 1s, " in foretold[0]


def test_what_there_is_no_memory_for_is_left_out(few, monkeypatch):
    monkeypatch.setattr(module, "available", lambda device: 10**6)
    chosen, why_not = module.plan(SIZES["bulk"], 86400, CPU)
    assert [member.label for member in chosen][0] == "ridge"
    assert why_not["small"].startswith("would take ")
    assert why_not["small"].endswith(" MB")


@pytest.mark.parametrize("budget", ["5 apples", "", "10", "1e3", "-1s", "0s", "NaT", "5M"])
def test_a_budget_that_is_no_time_says_what_one_is(small, budget):
    with pytest.raises(ValueError, match=r"budget='.*' must be a time such as '30s', '5min' or '2h'"):
        gx.tl.fit(small, budget=budget)
    assert "auto" not in small.uns


def test_a_number_is_no_budget(small):
    with pytest.raises(TypeError, match="budget=5 must be text, e.g. '5min'"):
        gx.tl.fit(small, budget=5)


@pytest.mark.parametrize("budget", ["1s", "5min", "2h", "1 day", "90 s"])
def test_times_are_read_as_people_write_them(budget):
    seconds = {"1s": 1, "5min": 300, "2h": 7200, "1 day": 86400, "90 s": 90}[budget]
    assert configure(get_method("auto"), {"budget": budget}).seconds == seconds


def test_an_option_of_another_method_says_whose_it_is(small):
    with pytest.raises(
        TypeError, match=r"it takes budget\. Methods that take penalty: ridge, .*; name one with method="
    ):
        gx.tl.fit(small, penalty=3)
    with pytest.raises(TypeError, match=r"it takes penalty, per_gene\. Methods that take hidden: dgex, .*semigan;"):
        gx.tl.fit(small, "ridge", hidden=3)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("checkpoint", "here"), ("callback", print), ("init", ad.AnnData()), ("unlabeled", "some")],
)
def test_what_is_for_other_methods_says_to_name_one(small, argument, value):
    with pytest.raises(ValueError, match=rf"{argument}=.*method='auto' does not\. Name "):
        gx.tl.fit(small, **{argument: value})


def test_the_same_seed_gives_the_same_bits_and_another_does_not(small, few):
    states = []
    for seed in (3, 3, 4):
        gx.tl.fit(small, rng=seed, progress=False)
        states.append(small.uns["auto"]["state"])
    np.testing.assert_array_equal(*states[:2])
    assert states[2].shape != states[0].shape or (states[2] != states[0]).any()


def test_a_member_that_diverges_is_left_out(small, few, monkeypatch):
    monkeypatch.setitem(module.CANDIDATES, "wild", ("dgex", {"hidden": 16, "optimiser": "sgd", "learning_rate": 1e30}))
    with pytest.warns(UserWarning, match="auto: wild is left out: .*learning_rate"):
        fitted = fit(small)
    assert fitted.model.notes["members"] == "ridge; kernel; small"


@pytest.mark.parametrize("error", [MemoryError("none left"), torch.cuda.OutOfMemoryError("none left")])
def test_so_is_one_that_runs_out_of_memory(small, few, monkeypatch, error):
    def fitting(task, config):
        raise error

    instead(monkeypatch, "kernel", fitting)
    with pytest.warns(UserWarning, match="auto: kernel is left out: none left"):
        fitted = fit(small)
    assert fitted.model.notes["members"] == "ridge; small"
    instead(monkeypatch, "ridge", fitting)
    with pytest.raises(type(error), match="none left"):
        fit(small)


def test_another_failure_is_not_hidden(small, few, monkeypatch):
    def fitting(task, config):
        raise RuntimeError("a bug")

    instead(monkeypatch, "kernel", fitting)
    with pytest.raises(RuntimeError, match="a bug"):
        fit(small)


def interrupted(task, config):
    raise KeyboardInterrupt


def test_after_ctrl_c_the_model_is_of_those_that_are_there(small, few, monkeypatch):
    instead(monkeypatch, "kernel", interrupted)
    with pytest.warns(UserWarning, match="auto: interrupted while fitting kernel; the model is of ridge"):
        fitted = fit(small)
    assert fitted.model.notes["members"] == "ridge"
    assert fitted.params()["interrupted"] == "kernel"
    np.testing.assert_array_equal(fitted.model.arrays["weights"], 1)
    # In a table it would stand as one that was not cut short.
    with pytest.warns(UserWarning, match="interrupted; the table holds the 2 fits before"):
        table = gx.tl.learning_curve(small, ["ridge", "auto"], sizes=[168], repeats=1, progress=False)
    assert table["model"].tolist() == ["mean", "ridge"]
    instead(monkeypatch, "ridge", interrupted)
    del small.uns["auto"]
    with pytest.raises(KeyboardInterrupt):
        fit(small)
    assert "auto" not in small.uns


def test_after_ctrl_c_in_a_network_its_best_epoch_takes_part(small, few, monkeypatch):
    def stop(told):
        if told["epoch"] == 2:
            raise KeyboardInterrupt

    dgex = get_method("dgex")
    monkeypatch.setitem(module.CANDIDATES, "never", ("knn", {}))
    monkeypatch.setitem(module.COSTS, "knn", module.COSTS["ridge"])
    instead(monkeypatch, "dgex", lambda task, config: dgex.fit(replace(task, run=Run(False, stop)), config))
    with pytest.warns(UserWarning, match="dgex: interrupted in epoch 3 of 3"):
        fitted = fit(small)
    assert fitted.model.notes["members"] == "ridge; kernel; small"
    assert fitted.model.notes["2.note.epochs_done"] == 2
    assert fitted.model.notes["interrupted"] == "small"


def test_it_survives_files(small, few, tmp_path):
    fitted = fit(small)
    gx.tl.predict(small, progress=False)
    expected = small.layers["auto"].copy()
    small.write_h5ad(tmp_path / "a.h5ad")
    small.write_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="168 training and 36 validation samples, .* include_samples=True"):
        gx.io.write_model(fitted, tmp_path / "a.safetensors")
    gx.io.write_model(fitted, tmp_path / "a.safetensors", include_samples=True)
    sources = [ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")]
    for source in (*sources, gx.io.read_model(tmp_path / "a.safetensors")):
        query = small[:, small.var["landmark"]].copy()
        full = gx.tl.predict(query, model=source, key="auto", output="anndata", progress=False)
        np.testing.assert_array_equal(full[:, small.var_names].X, expected)
    assert small.uns["auto"]["params"]["holds_training_samples"]


def test_slopes_are_finite_differences(small, few):
    fitted = fit(small)
    X = np.asarray(small.X[:6, small.var["landmark"].to_numpy()], float)
    found, step = fitted.jacobian(X), 0.02 * fitted.landmark_scale.unit
    for landmark in range(0, 60, 7):
        up, down = X.copy(), X.copy()
        up[:, landmark] += step[landmark]
        down[:, landmark] -= step[landmark]
        slope = (fitted.predict(up) - fitted.predict(down)).mean(0, dtype=float) / (2 * step[landmark])
        size = fitted.target_scale.unit / fitted.landmark_scale.unit[landmark]
        np.testing.assert_allclose(found[landmark] / size, slope / size, atol=2e-3)
    small.uns.pop("gexinfer_explained", None)
    influence = gx.tl.explain(small, "auto", progress=False)
    assert np.isfinite(influence).all(axis=None)


def test_intervals_hold_what_they_say_in_a_random_split(bulk_once):
    """The rows that weigh the members also say how wide intervals are."""
    full, rng = gx.pp.landmarks(bulk_once, copy=True), np.random.default_rng(0)
    landmark = full.var["landmark"].to_numpy()
    genes = [rng.choice(np.flatnonzero(side), n, replace=False) for side, n in ((landmark, 150), (~landmark, 200))]
    some = full[:, np.sort(np.concatenate(genes))].copy()
    gx.pp.split(some, fractions=(0.6, 0.2, 0.2))
    fit(some, budget="5s")
    gx.tl.predict(some, interval=0.9, progress=False)
    whole = gx.tl.coverage(some).query("kind == 'all'").iloc[0]
    assert 0.88 < whole["coverage"] < 0.94


def test_the_rows_that_weighed_it_cannot_judge_it(small, few):
    fit(small)
    gx.tl.predict(small, progress=False)
    small.obs["split"] = small.obs["split"].cat.rename_categories({"validation": "test", "test": "validation"})
    with pytest.raises(ValueError, match="36 of the 36 rows .* were training or validation rows of 'auto'"):
        gx.tl.evaluate(small, key="auto")


def test_it_stands_in_every_table(small, few):
    table = gx.tl.compare(small, {"ridge": {}, "auto": {}, "short": {"method": "auto", "budget": "1s"}}, progress=False)
    assert table.loc[["auto", "short"], "mae"].notna().all()
    gx.tl.predict(small, progress=False)
    folds = gx.tl.evaluate(small, key=["auto", "ridge"], cv=2)
    assert folds.loc["auto", "n_folds"] == 2
    curve = gx.tl.learning_curve(small, ["auto"], sizes=[60, 168], repeats=1, progress=False)
    assert curve["mae"].notna().all()
    swept = gx.tl.sweep(small, "auto", {"budget": ["1s", "5min"]}, progress=False)
    assert swept["mae"].notna().all()
    with pytest.raises(ValueError, match="method='auto' has no options that it does not choose itself"):
        gx.tl.tune(small, "auto")


def test_under_torchrun_it_names_what_can_be_fitted(small, monkeypatch):
    monkeypatch.setattr(module, "join", lambda device: Processes(0, 2))
    with pytest.raises(ValueError, match="under torchrun name a network, e.g. method='dgex'"):
        gx.tl.fit(small)


def test_rows_in_a_file_give_the_same(small, few, tmp_path):
    expected = fit(small).model.arrays
    small.uns.clear()
    small.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    found = fit(backed).model.arrays
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_a_query_that_lacks_landmarks_is_filled_in(small, few):
    fitted = fit(small)
    query = small[:20, small.var["landmark"]].copy()
    holed = np.asarray(query.X, float).copy()
    holed[:, :10] = np.nan
    full = gx.tl.predict(query[:, 10:].copy(), model=small, key="auto", output="anndata", progress=False)
    np.testing.assert_allclose(full[:, list(fitted.targets)].X, fitted.predict(holed), atol=1e-5)


def test_its_networks_are_drawn_where_it_is_named(small, few):
    fit(small)
    ax = gx.pl.training(small, "auto")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(label.startswith("auto: small, validation (") for label in labels)
    # Beside others it is a line, its own error on the validation rows.
    gx.tl.fit(small, "dgex", epochs=2, hidden=8, progress=False)
    labels = [text.get_text() for text in gx.pl.training(small).get_legend().get_texts()]
    assert sum(label.startswith("auto") for label in labels) == 1
    assert not any("small" in label for label in labels)
    del small.uns["dgex"]
    with pytest.raises(ValueError, match=r"None of \['auto'\] was trained by epochs"):
        gx.pl.training(small)
    for draw in (gx.pl.weights, gx.pl.terms, gx.tl.nonlinearity):
        with pytest.raises(ValueError, match="network|epochs|hidden units"):
            draw(small, "auto")


def test_the_shell_fits_it_where_nothing_is_named(small, few, tmp_path):
    path = tmp_path / "a.h5ad"
    small.write_h5ad(path)
    done = CliRunner().invoke(app, ["fit", str(path), "--budget", "10s"])
    assert done.exit_code == 0, done.output
    assert ad.read_h5ad(path).uns["auto"]["params"]["budget"] == "10s"
    done = CliRunner().invoke(app, ["fit", str(path), "-m", "ridge", "-m", "auto", "--budget", "2min"])
    assert done.exit_code == 0, done.output
    assert ad.read_h5ad(path).uns["auto"]["params"]["budget"] == "2min"
    for arguments, told in (
        (["-m", "ridge", "--budget", "2min"], "--budget is for --method auto"),
        (["--budget", "soon"], "--budget 'soon' must be a time"),
    ):
        done = CliRunner().invoke(app, ["fit", str(path), *arguments])
        assert done.exit_code == 1
        assert told in done.output
