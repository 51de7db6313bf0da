"""The scripts of bench/ are no package: they import each other by name, from beside themselves."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
