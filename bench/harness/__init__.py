"""What the scripts of bench/ share: arguments, photographs, commands, times and memory, the machine, tables and JSON."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
DATA = Path(os.environ.get("OVSKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
"""The folder of the photographs."""

sys.path.append(str(ROOT))  # for tests/scenes.py
