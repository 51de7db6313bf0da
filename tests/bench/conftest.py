"""What bench/ has is imported from there: its scripts by name, the parts of gpu.sh as the package gpu."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
