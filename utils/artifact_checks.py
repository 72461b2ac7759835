"""What predictions and identity files have in common: their errors, checks and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch


class ArtifactError(ValueError):
    """A predictions or identity file (or object) is not what it should be."""


class HandMismatchError(ArtifactError):
    """The file was made with another hand model than the one in use."""


class HandLike(Protocol):
    """What a hand-hash check needs of `template.HandAssets` (which this floor cannot import)."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str: ...


def as_array(value: Any) -> Any:
    """A tensor as NumPy, wherever it is and whether or not it requires gradients; anything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


class OfHand:
    """What belongs to one hand model, whose name and hash it bears, and to no other."""

    hand_name: str
    hand_hash: str
    source: str

    def check_hand(self, assets: HandLike) -> None:
        """Raise HandMismatchError unless this belongs to the hand model ``assets``."""
        if not self.hand_hash:
            raise HandMismatchError(
                f"{self.source} is of the hand model {self.hand_name!r} as another estimator has it: its poses and "
                f"betas are none of {assets.name!r}. handid.personalise (run.py --phase personalise, or --estimates of "
                "a calibration) takes such results."
            )
        if self.hand_hash != assets.hash:
            raise HandMismatchError(
                f"{self.source} was made with the hand model {self.hand_name!r} (hash {self.hand_hash}), but the one "
                f"in use is {assets.name!r} (hash {assets.hash}): betas of one mean nothing in the other. Use the same "
                "--mano_dir as when it was made, or make it again with this hand model."
            )


def model_hash(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Short SHA-256 (12 hex digits) of a state dict: names, dtypes, shapes and values, any device or order."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def checked_array(name: str, value: Any, shape: tuple[int, ...], dtype: type, where: str) -> np.ndarray:
    """``value`` as a finite array of ``shape`` (None stands for any length) and ``dtype``."""
    array = np.asarray(value)
    if len(array.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ArtifactError(f"{where}: {name} has shape {array.shape}; it must be {shape} (None: any length)")
    kinds = {np.int64: "iu", np.bool_: "b", np.str_: "U"}
    if dtype in kinds:
        allowed = kinds[dtype]
        if array.dtype.kind not in allowed:
            raise ArtifactError(f"{where}: {name} has dtype {array.dtype}; it must be {np.dtype(dtype).name}")
    elif array.dtype.kind not in "fiu":
        raise ArtifactError(f"{where}: {name} has dtype {array.dtype}; it must be real numbers")
    elif not np.isfinite(array).all():
        first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise ArtifactError(
            f"{where}: {name}{list(first)} is {array[first]}; every value must be finite. Predict these samples again."
        )
    with np.errstate(over="ignore"):
        converted: np.ndarray = array.astype(dtype)
    if converted.dtype.kind == "f" and not np.isfinite(converted).all():
        raise ArtifactError(f"{where}: {name} reaches {np.abs(array).max():g}, more than {converted.dtype} can hold")
    return converted
