"""State dicts that users already own: unwrapped, cleaned, and loaded strictly by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

#: Where checkpoint files keep the weights beside an epoch and the like.
WRAPPERS = ("model_state_dict", "state_dict", "model")

#: Stored by the paper's released code although they come from the hand model (docs/architectures.md).
_HAND_MODEL_ENTRY = re.compile(r"th_selected_comps|th_hands_mean|j_regressor|mano_layer\.th_\w+")


class StateDictError(ValueError):
    """A state dict is not of the network it is loaded into."""


def clean_state_dict(content: Any) -> dict[str, torch.Tensor]:
    """Names and tensors of a network from whatever a checkpoint file held.

    Takes off the wrapper (``model_state_dict`` and the like) and a ``module.`` that prefixes every
    name, and drops the entries of the hand model that the released code stored with its networks.

    Args:
        content: of ``torch.load(..., weights_only=True)``.

    Raises:
        StateDictError: there are no named tensors in it; says what there is.
    """
    state, named = content, _holds_tensors(content)
    while not named and isinstance(state, Mapping):
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state, named = inner, _holds_tensors(inner)
    if not named:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise StateDictError(f"no named tensors, found {found}; expected a state dict, or one under {WRAPPERS}")
    while all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in state.items() if not _HAND_MODEL_ENTRY.fullmatch(name)}


def _holds_tensors(state: Any) -> bool:
    named = isinstance(state, Mapping) and bool(state)
    return named and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())


def load_strict(model: nn.Module, state: Mapping[str, torch.Tensor]) -> int:
    """Load every tensor by name.

    Returns:
        how many tensors were taken: all of ``state``, which are all of the model's.

    Raises:
        StateDictError: names are missing or left over, or shapes differ; names up to eight of each.
            The model is as it was.
    """
    own = model.state_dict()
    problems = {
        "missing": [name for name in own if name not in state],
        "left over": [name for name in state if name not in own],
        "misshapen": [
            f"{name} {tuple(state[name].shape)}, the model's is {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        said = [
            f"{len(names)} {kind}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for kind, names in problems.items()
            if names
        ]
        raise StateDictError(f"does not fit {type(model).__name__}: {'; '.join(said)}")
    model.load_state_dict(state, strict=True)
    return len(own)
