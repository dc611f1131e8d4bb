"""Whether what is inferred of a gene is more like that gene than like others."""

from __future__ import annotations

import numpy as np

from gexinfer.engine.blocks import Float, row_slices

# Genes whose correlations with all others are held at a time.
TILE = 512


def recall(measured: Float, inferred: Float) -> Float:
    """Return of each gene the share of the others whose measured profile is more like its inferred one than its own.

    Both are (samples, genes) and overwritten. NaN where the gene's own measured or inferred profile is constant; other
    genes with a constant profile are like none, and count as recalled worse.
    """
    varies = [unit_length(values) for values in (measured, inferred)]
    genes = measured.shape[1]
    better = np.empty(genes)
    for part in row_slices(genes, TILE):
        alike = inferred[:, part].T @ measured
        alike[:, ~varies[0]] = -np.inf
        own = np.take_along_axis(alike, np.arange(genes)[part, None], axis=1)
        better[part] = (alike > own).sum(axis=1) / (genes - 1)
    return np.where(varies[0] & varies[1], better, np.nan).astype(np.float32)


def unit_length(values: Float) -> np.ndarray:
    """Centre profiles and bring them to length 1, in place; return which of them vary."""
    constant = (values == values[0]).all(axis=0)
    values -= values.mean(axis=0, dtype=np.float64).astype(np.float32)
    length = np.sqrt((values * values).sum(axis=0, dtype=np.float32))
    values /= np.where(constant | (length == 0), 1, length)
    return ~constant & (length > 0)
