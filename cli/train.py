"""``ovs-train``: models from masks, pairs or images alone; one subcommand for each thing there is to train."""

from __future__ import annotations

# Each adds its subcommand to the app, in this order.
from ovskit.cli import train_backbone, train_correct, train_dino, train_segment  # noqa: F401
from ovskit.cli.training_app import app

__all__ = ["app"]
