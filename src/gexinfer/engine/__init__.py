"""Blocks of rows, moments, the training loop and devices: everything below the methods."""
