"""What an option states that groups of several rooms have: each once, as keywords of ``settings.option``."""

from __future__ import annotations

from typing import Any

WEIGHTS: Any = {
    "help": "The model's weights: a safetensors file, a torch checkpoint or a TorchScript archive; no code in it is run. "
    "Otherwise the local cache, then the model hub.",
    "flag": True,
    "metavar": "FILE",
    "decides": False,
}
WORKERS: Any = {
    "help": "Number of threads; results do not depend on it.",
    "flag": True,
    "short": "-j",
    "low": 1,
    "metavar": "N",
    "shown": "the cores available",
    "decides": False,
}
OUTPUT: Any = {
    "help": "Write to PATH, whole or not at all; - is stdout.",
    "flag": True,
    "short": "-o",
    "metavar": "PATH",
    "decides": False,
    "environment": "never",
}
NO_PG: Any = {"help": "Leave the provenance out of the output.", "flag": True, "decides": False}
