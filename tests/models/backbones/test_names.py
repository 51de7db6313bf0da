"""The table of model names: short to import, and true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import timm
import torch

from ovskit.core.models.families import model_names, resolve_name
from ovskit.core.runtime.errors import UsageError

SHORT_TIMM = [entry for entry in model_names() if entry.model.startswith("timm:") and not entry.name.startswith("timm:")]


def test_the_table_imports_no_model_library() -> None:
    code = "import sys, ovskit.core.models.families; assert not {'torch', 'timm', 'open_clip', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("entry", SHORT_TIMM, ids=lambda entry: entry.name)
def test_short_names_are_published_models_of_that_size(entry: object) -> None:
    name, model, description = entry.name, entry.model.removeprefix("timm:"), entry.description  # type: ignore[attr-defined]
    config = timm.models.get_pretrained_cfg(model)
    assert config is not None
    assert config.hf_hub_id == f"timm/{model}"
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=0, depth=1)
    assert int(re.search(r"(\d+) channels", description)[1]) == network.embed_dim  # type: ignore[index]
    patch = re.search(r"(\d+)(plus)?(-reg)?$", name)
    assert patch is not None
    assert network.patch_embed.patch_size == (int(patch[1]),) * 2
    assert (network.num_prefix_tokens > 1) == ("-reg" in name or name.startswith("dinov3"))


def test_every_name_in_the_table_is_once_there_and_on_one_line() -> None:
    names = [entry.name for entry in model_names()]
    assert len(set(names)) == len(names)
    assert {"builtin", "handmade", "dino-vits8", "dinov2-vitg14-reg", "dinov3-vitl16", "clip:ARCH/TAG", "timm:NAME"} <= set(names)
    assert all(entry.description and "\n" not in entry.description for entry in model_names())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("builtin", "builtin-v1"),
        ("builtin-v1", "builtin-v1"),
        ("handmade", "handmade-v1"),
        ("handmade-v1", "handmade-v1"),
        ("dino-vitb8", "timm:vit_base_patch8_224.dino"),
        ("timm:anything.at_all", "timm:anything.at_all"),
        ("clip:ViT-B-16/openai", "clip:ViT-B-16/openai"),
    ],
)
def test_what_names_stand_for(name: str, model: str) -> None:
    assert resolve_name(name) == model


@pytest.mark.parametrize("name", ["", "dino", "Builtin", "timm:", "clip:", "vit_base_patch8_224.dino", "hf-hub:x/y", "a\nb"])
def test_unknown_names_list_the_valid_ones(name: str) -> None:
    with pytest.raises(UsageError, match="valid: builtin, handmade, dino-vits8") as caught:
        resolve_name(name)
    assert "\n" not in str(caught.value)
