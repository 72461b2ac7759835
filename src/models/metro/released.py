"""Released METRO checkpoints: the name of every tensor in `Metro`, and the tensors that it never used."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from src.models.state_dicts import StateDictError

#: In the file, but in no computation: what BERT and the image classifier brought along.
UNUSED = re.compile(
    r"trans_encoder\.\d+\.bert\.embeddings\.(word_embeddings|position_embeddings|token_type_embeddings)\.weight"
    r"|trans_encoder\.\d+\.bert\.embeddings\.LayerNorm\.(weight|bias)"
    r"|trans_encoder\.\d+\.bert\.pooler\.dense\.(weight|bias)"
    r"|backbone\.(classifier|fc)\.(weight|bias)"
)

#: Released prefix -> ours, applied in this order.
_RENAMED = (
    (r"^trans_encoder\.(\d+)\.", r"transformer.encoders.\1."),
    (r"\.bert\.encoder\.layer\.(\d+)\.", r".layers.\1."),
    (r"\.attention\.self\.(query|key|value)\.", r".\1."),
    (r"\.attention\.output\.dense\.", ".attended."),
    (r"\.attention\.output\.LayerNorm\.", ".norm1."),
    (r"\.intermediate\.dense\.", ".widen."),
    (r"(\.layers\.\d+)\.output\.dense\.", r"\1.narrow."),
    (r"(\.layers\.\d+)\.output\.LayerNorm\.", r"\1.norm2."),
    (r"\.bert\.img_embedding\.", ".embedding."),
    (r"\.bert\.position_embeddings\.weight$", ".position"),
    (r"\.cls_head\.", ".head."),
    (r"^upsampling\.", "transformer.upsampling."),
    (r"^cam_param_fc\.", "transformer.camera.0."),
    (r"^cam_param_fc2\.", "transformer.camera.1."),
    (r"^cam_param_fc3\.", "transformer.camera.2."),
)


def translate(state: Mapping[str, torch.Tensor], tokens: int, layers: int) -> dict[str, torch.Tensor]:
    """A released state dict by our names, without what is `UNUSED`, and with the positions of our tokens only.

    Args:
        state: cleaned (`state_dicts.clean_state_dict`).
        tokens, layers: of our network: its tokens, and layers of each encoder.

    Raises:
        StateDictError: it is Graphormer, METRO's network for bodies, or has another number of layers; says so.
    """
    graph = next((name for name in state if "graph_conv" in name or name.startswith("grid_feat_dim")), None)
    if graph:
        raise StateDictError(f"is a Mesh Graphormer, not METRO (it holds {graph}); give metro_hand_state_dict.bin")
    found = state["cam_param_fc2.weight"].shape[1] if "cam_param_fc2.weight" in state else tokens
    if "upsampling2.weight" in state or found != tokens:
        raise StateDictError(
            f"is METRO for another body part ({found} tokens, a hand has {tokens}): its network for bodies has the "
            "same names; give metro_hand_state_dict.bin"
        )
    numbers: dict[str, set[str]] = {}
    for name in state:
        if place := re.match(r"trans_encoder\.(\d+)\.bert\.encoder\.layer\.(\d+)\.", name):
            numbers.setdefault(place[1], set()).add(place[2])
    other = {number: len(found) for number, found in numbers.items() if len(found) != layers}
    if other:
        said = ", ".join(f"trans_encoder.{number} has {count}" for number, count in other.items())
        raise StateDictError(f"has another number of layers than METRO's {layers} an encoder: {said}")
    renamed = {}
    for name, value in state.items():
        if UNUSED.fullmatch(name):
            continue
        own = name
        for pattern, replacement in _RENAMED:
            own = re.sub(pattern, replacement, own)
        renamed[own] = value[:tokens] if own.endswith(".position") else value
    return renamed
