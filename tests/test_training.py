"""The training loop: where rows come from, what happens when it is cut short, several processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine import feed, linear, loop
from gexinfer.engine.blocks import Pairs, Rows, Scale
from gexinfer.engine.network import Loss, Plan, Player, Step
from gexinfer.engine.run import Run
from gexinfer.methods.dgex import Regression

TINY = {"epochs": 4, "hidden": 16}
# With neither noise nor dropout a step does not depend on how many rows go through the network at a time, and the
# paper's optimiser does not blow up rounding where a gradient is next to nothing, as Adam does.
PLAIN = {"recipe": "paper", "epochs": 3, "hidden": 16, "dropout": 0.0, "learning_rate": 2e-3}


def weights(adata, key="dgex"):
    return records(adata, key)[key].model.arrays


def assert_same_weights(one, other, **tolerance):
    for name, array in weights(one).items():
        if "history" not in name:
            np.testing.assert_allclose(array, weights(other)[name], err_msg=name, **tolerance)


def pairs(source, landmarks=6):
    genes = np.arange(source.shape[1])
    scale = Scale(np.linspace(1, 2, len(genes)), np.linspace(0, 3, len(genes)))  # the first gene is constant
    return Pairs(Rows(source, np.arange(0, source.shape[0], 2), genes[:landmarks], genes[landmarks:]), scale)


class OnDisk:
    """An array whose rows are dear to pick, as those of a file."""

    def __init__(self, values, chunk=None):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        if chunk:
            self.chunks = (chunk, values.shape[1])

    def __getitem__(self, rows):
        assert isinstance(rows, slice), "single rows must not be picked from a file"
        return self.values[rows]


# ---- rows


@pytest.mark.parametrize("form", ["array", "disk", "chunks", "csr", "csc float64"])
@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_standardised_rows_that_were_picked(form, resident):
    rng = np.random.default_rng(0)
    values = rng.poisson(0.8, (300, 20)).astype(np.float32)
    forms = {
        "array": lambda v: v,
        "disk": OnDisk,
        "chunks": lambda v: OnDisk(v, 32),
        "csr": sp.csr_matrix,
        "csc float64": lambda v: sp.csr_array(sp.csc_array(v.astype(np.float64))),
    }
    made = pairs(forms[form](values))
    device = torch.device("cpu")
    rows = feed.Resident(made, device, 40) if resident else feed.Streamed(made, device, buffer=40)
    expected = made.scale.standardise(values[::2])
    picks = feed.shuffled(made, 16, 40, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(picks).tolist()) == list(range(150))
    for part, (x, y) in zip(picks, rows.batches(picks), strict=True):
        np.testing.assert_array_equal(np.hstack([x, y]), expected[part])
        assert x.shape[1] == 6
    some = np.array([3, 4, 77])
    np.testing.assert_array_equal(np.vstack([np.hstack([x, y]) for x, y in rows.blocks(some)]), expected[some])
    np.testing.assert_array_equal(np.vstack([np.hstack([x, y]) for x, y in rows.blocks()]), expected)


@settings(deadline=None)
@given(
    n=st.integers(1, 900),
    batch=st.integers(1, 70),
    buffer=st.integers(1, 300),
    chunk=st.sampled_from([None, 1, 50, 700]),
)
def test_each_row_comes_once_an_epoch_in_an_order_of_its_own(n, batch, buffer, chunk):
    made = pairs(OnDisk(np.zeros((2 * n, 8), np.float32), chunk))
    one, same, other = (feed.shuffled(made, batch, buffer, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.cat(one).sort().values.tolist() == list(range(n))
    assert [len(part) for part in one[:-1]] == [batch] * (len(one) - 1)
    assert torch.equal(torch.cat(one), torch.cat(same))
    assert n < 20 or not torch.equal(torch.cat(one), torch.cat(other))


def test_a_batch_from_a_file_comes_from_many_places():
    """Files are often sorted by cohort: a batch of neighbours would be a batch of one kind."""
    made = pairs(OnDisk(np.zeros((40_000, 8), np.float32)))
    for part in feed.shuffled(made, 200, 2_000, torch.Generator().manual_seed(0)):
        assert len(np.unique(part // 1000)) >= 10


@pytest.mark.parametrize("form", ["array", "csr", "h5ad", "h5ad csr", "zarr"])
def test_streamed_is_resident(small, form, tmp_path, monkeypatch):
    # Buffers of a few batches, so that the shuffling in parts is what is compared.
    monkeypatch.setattr(feed, "WINDOW", 8)
    if "csr" in form:
        small.X = sp.csr_matrix(small.X)
    if form.startswith("h5ad"):
        small.write_h5ad(tmp_path / "a.h5ad")
        small = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    if form == "zarr":
        small.write_zarr(tmp_path / "a.zarr", chunks=(20, small.n_vars))
        small = ad.experimental.read_lazy(tmp_path / "a.zarr")
        small.obs, small.var = small.obs.to_memory(), small.var.to_memory()
    used = []
    for cls in (feed.Resident, feed.Streamed):
        monkeypatch.setattr(
            cls, "batches", lambda self, picks, true=cls.batches: used.append(type(self)) or true(self, picks)
        )
    for free in (10**9, 0):
        monkeypatch.setattr(loop, "available", lambda device, free=free: free)
        # The size of the buffer follows from what is free, too; here only the place of the rows shall.
        monkeypatch.setattr(loop, "buffer_rows", lambda pairs, free: 100)
        gx.tl.fit(small, "dgex", key_added=f"with {free}", progress=False, **TINY)
    assert set(used[: len(used) // 2]) == {feed.Resident}
    assert set(used[len(used) // 2 :]) == {feed.Streamed}
    one, other = weights(small, "with 1000000000"), weights(small, "with 0")
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("method", ["ggan", "semigan"])
def test_a_gan_learns_the_same_from_streamed_rows(small, tmp_path, monkeypatch, method):
    small.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    other = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    monkeypatch.setattr(loop, "buffer_rows", lambda pairs, free: 100)
    unlabeled = {"unlabeled": other} if method == "semigan" else {}
    for free in (10**9, 0):
        monkeypatch.setattr(loop, "available", lambda device, free=free: free)
        gx.tl.fit(backed, method, key_added=f"with {free}", progress=False, **unlabeled, **TINY)
    one, two = weights(backed, "with 1000000000"), weights(backed, "with 0")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6, err_msg=name)


BEYOND = """
import resource, sys
import anndata as ad, numpy as np, psutil, torch
import gexinfer as gx
torch.set_num_threads(2)
small = ad.AnnData(np.random.default_rng(0).random((100, 40), np.float32))
small.var["landmark"] = np.arange(40) < 10
small.obs["split"] = ["train"] * 80 + ["validation"] * 20
gx.tl.fit(small, "dgex", epochs=1, hidden=8, progress=False)  # loads what any training needs
adata = ad.read_h5ad(sys.argv[1], backed="r")
allowed = adata.n_obs * adata.n_vars * 4 // 4
resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + allowed,) * 2)
gx.tl.fit(adata, "dgex", epochs=1, hidden=8, batch_size=256, device="cpu")
print("validation", adata.uns["dgex"]["params"]["validation_mae"])
try:
    adata.to_memory()
except MemoryError:
    print("does not fit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_data_four_times_larger_than_memory(tmp_path):
    rng = np.random.default_rng(0)
    n, p, q = 80_000, 200, 3_000
    low = rng.standard_normal((20, p + q), dtype=np.float32)
    adata = ad.AnnData(np.empty((n, p + q), np.float32))
    for start in range(0, n, 5000):
        adata.X[start : start + 5000] = rng.standard_normal((5000, 20), dtype=np.float32) @ low + 5
    adata.var["landmark"] = np.arange(p + q) < p
    adata.obs["split"] = np.where(np.arange(n) < n - 2000, "train", "validation")
    adata.write_h5ad(tmp_path / "large.h5ad")
    del adata
    # glibc would give each thread a region of its own, and the limit counts them whole.
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEYOND, tmp_path / "large.h5ad"],
        env=os.environ | {"MALLOC_ARENA_MAX": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "does not fit" in told.stdout
    assert "rows at a time" in told.stderr
    # Twenty directions are behind it all, and so many rows are enough to find them.
    assert float(told.stdout.split()[1]) < 0.3


def test_the_memory_it_will_take_is_told(small, capsys):
    gx.tl.fit(small, "dgex", **TINY)
    told = capsys.readouterr().err
    n = sum(a.size for name, a in weights(small).items() if "history" not in name and name != "block")
    # Six times the weights, a batch and what it leaves behind, and the rows.
    size = 24 * n + 128 * 4 * (4 * 16 + 3 * 90 + 150) + 204 * 150 * 4
    assert f"dgex: {n:,} weights on cpu, about {size / 1e6:,.0f} MB with all rows there; " in told
    assert "B are free" in told


# ---- the loop


class Walker:
    """Its error falls until the third epoch, then rises."""

    def __init__(self):
        self.parameters = {"w": torch.zeros(1, requires_grad=True)}

    def loss(self, player, step):
        return Loss(-self.parameters["w"].sum())

    def prepare(self, player):
        pass

    def complaints(self, history):
        return {}

    def infer(self, x):
        return self.parameters["w"].expand(len(x), 1)

    def settle(self, validation):
        return {}


def walked(ema=0.0, schedule=lambda rate, done, errors: rate, run=None):
    network = Walker()
    values = np.tile(np.array([[0, 3]], np.float32), (4, 1))
    rows = Pairs(Rows(values, np.arange(4), np.array([0]), np.array([1])), Scale(np.zeros(2), np.ones(2) - 1e-3))
    optimiser = torch.optim.SGD(network.parameters.values(), lr=1.0)
    players = [Player("network", optimiser, schedule)]
    plan = Plan(players, 6, 4, ema, torch.device("cpu"), 1, 0, "walk", {})
    return loop.train(network, plan, rows, rows, run or Run(progress=False))


def test_the_best_validation_epoch_is_kept():
    trained = walked()
    np.testing.assert_allclose(trained.history["validation_mae"], [2, 1, 0, 1, 2, 3])
    np.testing.assert_allclose(trained.history["loss"], [0, -1, -2, -3, -4, -5])
    assert trained.best_epoch == 3
    assert trained.parameters["w"] == [3]


def test_an_average_of_the_parameters_is_kept_and_judged():
    average, averages = 0.0, []
    for step in range(6):
        past = min(0.5, (1 + step) / (10 + step))
        average = past * average + (1 - past) * (step + 1)
        averages.append(average)
    trained = walked(ema=0.5)
    expected = np.abs(3 - np.array(averages))
    np.testing.assert_allclose(trained.history["validation_mae"], expected, rtol=1e-6)
    assert trained.best_epoch == expected.argmin() + 1
    assert trained.parameters["w"] == pytest.approx(averages[expected.argmin()], rel=1e-6)


def test_the_schedule_is_asked_before_each_step():
    asked = []
    walked(schedule=lambda rate, done, errors: asked.append((rate, done, list(errors))) or 0.5)
    assert [done for _, done, _ in asked] == pytest.approx(np.arange(6) / 6)
    assert [rate for rate, _, _ in asked] == [1.0] * 6
    assert asked[2][2] == [2.5, 2.0]


def test_the_callback_is_told_of_each_epoch(small):
    told = []
    gx.tl.fit(small, "dgex", callback=told.append, progress=False, **TINY)
    assert [t["epoch"] for t in told] == [1, 2, 3, 4]
    for slot in ("loss", "train_mae", "validation_mae", "learning_rate"):
        np.testing.assert_array_equal([t[slot] for t in told], weights(small)[f"0.history.{slot}"])
    for t in told:
        assert (t["title"], t["epochs"]) == ("dgex", 4)
        assert t["samples_per_second"] > 0
        assert t["memory_bytes"] > 1e7


def test_out_of_memory_takes_fewer_rows_at_a_time(small, monkeypatch):
    # In bfloat16, which some processors take, the parts of a batch round otherwise than the whole.
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device: False)
    gx.tl.fit(small, "dgex", progress=False, batch_size=50, **PLAIN)
    whole, seen = small.copy(), []

    def loss(self, player, step, true=Regression.loss):
        seen.append(len(step.x))
        if len(step.x) > 15:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return true(self, player, step)

    monkeypatch.setattr(Regression, "loss", loss)
    with pytest.warns(
        UserWarning, match=r"dgex: out of memory on cpu with 50 rows; going on with (25|13) at a time"
    ) as told:
        gx.tl.fit(small, "dgex", progress=False, batch_size=50, **PLAIN)
    assert len(told) == 2  # 25, 13
    assert told[0].filename == __file__
    assert seen[:3] == [50, 25, 13]
    assert_same_weights(small, whole, rtol=1e-4, atol=1e-6)


def test_a_loss_that_explodes_is_told_with_its_step(small):
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 2 of 4, at a learning rate of 1e\+06.*was \d\S* at first"
    ) as told:
        gx.tl.fit(small, "dgex", recipe="paper", hidden=8, batch_size=50, learning_rate=1e6, progress=False)
    assert str(told.value).endswith("Fit again with learning_rate=0.001.")
    assert "dgex" not in small.uns


def test_a_network_that_infers_no_number_is_no_model(small, monkeypatch):
    monkeypatch.setattr(Regression, "infer", lambda self, x: torch.full((len(x), 90), torch.nan))
    with pytest.raises(FloatingPointError, match="epoch 1, step 2 of 2, .* the validation MAE is nan. Fit again"):
        gx.tl.fit(small, "dgex", progress=False, **TINY)


def test_idle_gpus_are_told(small, capsys, monkeypatch):
    monkeypatch.setattr(loop, "idle_gpus", lambda device: 3)
    gx.tl.fit(small, "dgex", **TINY)
    assert "3 more GPUs are idle. To use all: torchrun --nproc-per-node 4 -m gexinfer fit" in capsys.readouterr().err


# ---- cut short


def test_ctrl_c_keeps_the_best_epoch(small):
    def press(told):
        if told["epoch"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(
        UserWarning, match=r"interrupted in epoch 6 of 30; the model is that of epoch \d.*checkpoint="
    ) as told:
        gx.tl.fit(small, "dgex", epochs=30, hidden=16, callback=press, progress=False)
    assert told[0].filename == __file__
    history = weights(small)["0.history.validation_mae"]
    assert len(history) == 5
    assert small.uns["dgex"]["params"]["best_epoch"] == history.argmin() + 1
    assert small.uns["dgex"]["params"]["validation_mae"] == pytest.approx(history.min(), rel=1e-5)


def test_ctrl_c_in_the_first_epoch_leaves_nothing(small, monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "shuffled", press)
    with pytest.raises(KeyboardInterrupt):
        gx.tl.fit(small, "dgex", progress=False, **TINY)
    assert "dgex" not in small.uns


@pytest.mark.parametrize("free", [10**9, 0])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dgex", {"recipe": "paper"}),
        ("dgex", {"ema": 0.9, "trunk": "graph"}),
        ("dgex", {"target_blocks": 2, "layers": 2}),
        ("residual", {}),
        ("dgex", {"n_members": 3, "ema": 0.9, "weight_norm": True}),
        ("ggan", {"n_members": 2}),
        ("ggan", {"keep_discriminator": True, "adversarial": "wasserstein"}),
        ("semigan", {"keep_discriminator": True, "unlabeled": "other", "ema": 0.9}),
    ],
)
def test_broken_off_and_called_again_it_ends_in_the_same_bits(small, tmp_path, monkeypatch, method, options, free):
    small.layers["other"] = small.X + 0.1
    monkeypatch.setattr(loop, "available", lambda device: free)
    options = {"epochs": 6, "hidden": 16, "progress": False, "checkpoint_every": 2, "key_added": "dgex", **options}
    gx.tl.fit(small, method, checkpoint=tmp_path / "whole", **options)
    whole = small.uns.pop("dgex")["state"]
    seen = []

    def fail(told):
        seen.append((told["title"], told["epoch"]))
        if told["epoch"] == 5 and seen.count(seen[-1]) == 1:
            raise OSError("broken off")

    for _ in range(options.get("target_blocks", 1)):
        with pytest.raises(OSError, match="broken off"):
            gx.tl.fit(small, method, checkpoint=tmp_path / "broken", callback=fail, **options)
    assert "dgex" not in small.uns
    # What is free is another amount now, and the order of the rows is that of then.
    monkeypatch.setattr(loop, "buffer_rows", lambda pairs, free: 7)
    gx.tl.fit(small, method, checkpoint=tmp_path / "broken", callback=fail, **options)
    assert seen.count(seen[-1]) == 1
    assert {seen.count(one) for one in seen if one[1] == 5} == {2}  # from the state of epoch 4
    np.testing.assert_array_equal(small.uns["dgex"]["state"], whole)


TRAINED = """
import sys
import anndata as ad, torch
import gexinfer as gx
torch.set_num_threads(1)
adata = ad.read_h5ad(sys.argv[1])
gx.tl.fit(adata, "dgex", epochs=80, hidden=300, ema=0.9, checkpoint=sys.argv[2], checkpoint_every=1, progress=False,
          callback=lambda told: print(told["epoch"], flush=True))
gx.io.write_model(adata, sys.argv[3])
"""


def test_killed_and_started_again_it_ends_in_the_same_bits(small, tmp_path):
    small.write_h5ad(tmp_path / "a.h5ad")

    def start(folder, model):
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            TRAINED,
            tmp_path / "a.h5ad",
            tmp_path / folder,
            tmp_path / model,
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole", "whole.safetensors")
    assert [int(line) for line in whole.stdout] == list(range(1, 81))
    assert whole.wait() == 0

    begun = []
    for after in sorted(random.sample(range(3, 60), 2)):
        broken = start("broken", "broken.safetensors")
        first = None
        for line in broken.stdout:
            first = first or int(line)
            if int(line) >= after:
                break
        time.sleep(random.random() * 0.05)  # within an epoch, or while a state is written
        broken.kill()
        broken.wait()
        begun.append(first)
    last = start("broken", "broken.safetensors")
    begun.append(int(last.stdout.readline()))
    last.stdout.read()
    assert last.wait() == 0
    assert begun[0] == 1
    assert all(later > earlier for earlier, later in zip(begun[:-1], begun[1:], strict=True)), begun
    assert (tmp_path / "broken.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_training_is_not_repeated(small, tmp_path):
    gx.tl.fit(small, "dgex", checkpoint=tmp_path / "run", progress=False, **TINY)
    state, told = small.uns["dgex"]["state"], []
    gx.tl.fit(small, "dgex", checkpoint=str(tmp_path / "run"), callback=told.append, progress=False, **TINY)
    assert told == []
    np.testing.assert_array_equal(small.uns["dgex"]["state"], state)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dgex.safetensors"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden": 17}, "hidden was 16 and is 17"),
        ({"rng": 1}, "the seeds differ"),
        ({"epochs": 5}, "epochs was 4 and is 5"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(small, tmp_path, change, match):
    gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **TINY)
    with pytest.raises(
        ValueError, match=f"The checkpoint is of another training: .*{match}.*Delete it, or choose another"
    ):
        gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **{**TINY, **change})


def test_a_checkpoint_with_other_samples_without_targets_is_refused(small, tmp_path):
    small.layers["other"] = small.X + 0.1
    options = TINY | {"checkpoint": tmp_path, "progress": False}
    gx.tl.fit(small, "semigan", unlabeled="other", **options)
    with pytest.raises(ValueError, match="unlabeled rows was 168 and is 0"):
        gx.tl.fit(small, "semigan", **options)
    small.layers["other"] = small.X + 0.2
    with pytest.raises(ValueError, match="the unlabeled rows differ"):
        gx.tl.fit(small, "semigan", unlabeled="other", **options)
    (tmp_path / "semigan.safetensors").unlink()
    gx.tl.fit(small, "semigan", **options)
    with pytest.raises(ValueError, match="unlabeled rows was 0 and is 168"):
        gx.tl.fit(small, "semigan", unlabeled="other", **options)


def test_a_checkpoint_of_other_data_and_a_damaged_one_are_refused(small, tmp_path):
    gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **TINY)
    before = small.copy()
    small.X[0] += 1
    with pytest.raises(ValueError, match="the data differ"):
        gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **TINY)
    small = before
    sides = small.obs["split"].to_numpy(dtype=object)
    swapped = [np.flatnonzero(sides == side)[0] for side in ("validation", "test")]
    sides[swapped] = sides[swapped[::-1]]
    small.obs["split"] = sides
    with pytest.raises(ValueError, match="the rows differ"):
        gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **TINY)
    file = tmp_path / "dgex.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="The checkpoint cannot be read .* Delete it"):
        gx.tl.fit(small, "dgex", checkpoint=tmp_path, progress=False, **TINY)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"checkpoint": "x", "method": "ridge"}, "checkpoint='x' is for networks.*method='ridge' does not"),
        ({"callback": print, "method": "knn"}, "callback=.* is for networks"),
        ({"checkpoint_every": "soon"}, "checkpoint_every='soon' must be a number of epochs, or a time such as '10min'"),
        ({"checkpoint_every": 0}, "checkpoint_every=0 must be"),
        ({"checkpoint_every": True}, "checkpoint_every=True must be"),
        ({"checkpoint": __file__}, "is a file; name a directory"),
    ],
)
def test_what_no_training_can_do(small, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, **{"method": "dgex", **options})


def test_a_state_is_written_when_it_is_due(small, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(loop.checkpoint, "load", lambda path, training: None)
    monkeypatch.setattr(loop.checkpoint, "save", lambda path, tensors, notes: written.append(len(notes["history"])))
    gx.tl.fit(small, "dgex", checkpoint=tmp_path, checkpoint_every=3, epochs=8, hidden=8, progress=False)
    assert written == [3, 6, 8]
    written.clear()
    clock = iter(range(0, 10**6, 40))  # 40 seconds pass between any two looks at it
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    gx.tl.fit(small, "dgex", checkpoint=tmp_path, checkpoint_every="2min", epochs=8, hidden=8, progress=False)
    assert written == [3, 6, 8]


# ---- several processes


# The command line in float32: in bfloat16, which some processors take, the parts of a batch round otherwise than the whole.
IN_FLOAT32 = """
from gexinfer.cli import app
from gexinfer.engine import loop
loop.has_fast_bfloat16 = lambda device: False
app()
"""


def test_two_processes_train_what_one_does(small, tmp_path):
    small.write_h5ad(tmp_path / "a.h5ad")
    script = tmp_path / "in_float32.py"
    script.write_text(IN_FLOAT32)
    options = [f"--option={name}={value}" for name, value in {**PLAIN, "batch_size": 55}.items()]
    command = [script, "fit", tmp_path / "a.h5ad", "--method", "dgex", "--device", "cpu", *options]
    alone = [sys.executable, *command, "--out", tmp_path / "one.h5ad"]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(alone, check=True, env=environment)
    told = subprocess.run([*together, "--out", tmp_path / "two.h5ad"], env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("validation MAE") == 1, told.stderr
    one, two = (ad.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("one", "two"))
    # 168 rows in batches of 55: the last has 3, so that one process has one row and the other two.
    assert_same_weights(one, two, rtol=1e-4, atol=1e-6)
    for slot in ("loss", "train_mae", "validation_mae"):
        np.testing.assert_allclose(weights(one)[f"0.history.{slot}"], weights(two)[f"0.history.{slot}"], rtol=1e-4)


TOGETHER = """
import hashlib, os, sys, warnings
import anndata as ad, numpy as np
import gexinfer as gx
from gexinfer._record import records
warnings.simplefilter("error")
adata = ad.read_h5ad(sys.argv[1])
other = adata[:, adata.var["landmark"]].copy()
told = []
kept = {"keep_discriminator": True}
for method, options in (("ggan", {"adversarial": "hinge", **kept}), ("semigan", {"unlabeled": other, **kept}),
                        ("dgex", {"n_members": 2})):
    gx.tl.fit(adata, method, epochs=3, hidden=16, batch_size=167, device="cpu", progress=False, **options)
    arrays = records(adata)[method].model.arrays
    told.append(hashlib.sha256(b"".join(np.ascontiguousarray(arrays[n]).tobytes() for n in sorted(arrays))).hexdigest())
with open(f"{sys.argv[2]}/{os.environ['RANK']}", "w") as file:
    file.write(" ".join(told))
"""


def test_two_processes_have_one_gan_and_one_ensemble(small, tmp_path):
    """Of 168 rows in batches of 167 the last has one, so that one process has none."""
    small.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "script.py").write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [tmp_path / "script.py", tmp_path / "a.h5ad", tmp_path]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / rank).read_text() for rank in "01")
    assert one == other


@pytest.mark.filterwarnings("ignore:.*(at chance|not kept up)")
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dgex", {"trunk": "conv1d"}),
        ("dgex", {"trunk": "graph", "weight_norm": True}),
        ("dgex", {"trunk": "dense", "n_members": 2}),
        ("ggan", {}),
        ("ggan", {"adversarial": "wasserstein"}),
        ("semigan", {"unlabeled": "other"}),
    ],
)
def test_in_bfloat16_the_networks_learn_nearly_the_same(small, monkeypatch, method, options):
    small.layers["other"] = small.X.copy()
    errors = []
    for half in (False, True):
        monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device, half=half: half)
        gx.tl.fit(small, method, key_added="a", epochs=15, hidden=32, progress=False, **options)
        errors.append(small.uns["a"]["params"]["validation_mae"])
    assert errors[1] != errors[0]
    assert errors[1] == pytest.approx(errors[0], rel=0.03)


def test_a_process_without_a_row_does_not_halt_the_others():
    network = Walker()
    player = Player("network", torch.optim.SGD(network.parameters.values(), lr=1.0), None)
    training = object.__new__(loop.Training)
    training.network, training.plan = network, Plan([player], 1, 4, 0.0, torch.device("cpu"), 1, 0, "walk", {})
    training.micro, training.half = 4, False
    nothing = Step(torch.zeros(0, 1), torch.zeros(0, 1), None, torch.Generator(), 0.0)
    # The terms have their names, because all processes add them up.
    assert training.gradients(player, nothing, 4) == {"loss": 0}
    assert network.parameters["w"].grad == 0


@pytest.mark.parametrize("members", [(), (3,)])
def test_the_gradient_in_kept_memory_is_the_gradient(monkeypatch, members):
    monkeypatch.setattr(linear, "LARGE", 1)
    monkeypatch.setattr(linear, "LARGE_STACK", 1)
    generator = torch.Generator().manual_seed(0)
    weight, bias, x, target = (
        torch.randn(*members, *shape, generator=generator).requires_grad_() for shape in ((7, 5), (7,), (4, 5), (4, 7))
    )
    for _ in range(2):  # the second time in the same memory, which holds the first's
        for tensor in (weight, bias, x):
            tensor.grad = None
        made = torch.tanh(linear.linear(x, weight, bias))
        made.mul(target).sum().backward()
        # A second use adds up.
        linear.linear(2 * x.detach(), weight, bias).sum().backward()
        w, b, z = (tensor.detach().clone().requires_grad_() for tensor in (weight, bias, x))
        torch.tanh(z @ w.mT + b[..., None, :]).mul(target).sum().backward()
        (2 * z.detach() @ w.mT + b[..., None, :]).sum().backward()
        torch.testing.assert_close(
            (made, weight.grad, bias.grad, x.grad), (torch.tanh(z @ w.mT + b[..., None, :]), w.grad, b.grad, z.grad)
        )
        place = weight.grad.data_ptr()
    weight.grad = None
    linear.linear(x, weight, bias).sum().backward()
    assert weight.grad.data_ptr() == place


def test_the_benchmark_for_gpus_runs_on_the_processor(tmp_path):
    """So that it works on the day it meets one."""
    script = Path(__file__).parents[1] / "benchmarks" / "training_gpu.py"
    command = [
        sys.executable,
        "-W",
        "ignore",
        script,
        "--device",
        "cpu",
        "--scale",
        "100",
        "--epochs",
        "2",
        "--timed",
        "1",
    ]
    subprocess.run([*command, "--out", tmp_path / "found.json"], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    for batch in ("batch 8", "batch 40"):
        assert 0 < found[batch]["share of the peak"] < 1
        assert found[batch]["seconds an epoch"] > 0
    assert found["the whole run"]["epochs"] == 2
