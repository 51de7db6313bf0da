"""``ovs-train``'s app, to which every subcommand adds itself."""

from __future__ import annotations

from ovskit.cli.command import OvsGroup

app = OvsGroup(
    "ovs-train",
    about="Train a model. A run is a folder; killed at any moment, it goes on with --resume.",
    examples=[
        ("the built-in network, from photographs alone", "ovs-train backbone imgs/ -o run"),
        ("a vision transformer, from photographs alone", "ovs-train dino imgs/ -o run"),
        ("a segmenter, from masks that a clustering found", "ovs-train segment masks.json --images imgs -o run"),
        ("the same, learning from itself", "ovs-train correct masks.json --images imgs --from run -o run2"),
        ("what else can be set", "ovs-train backbone --help"),
    ],
)
