"""Several identity files of one person to one, each weighted by its information."""

from __future__ import annotations

import numpy as np

from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import lengths_mm
from template import HandAssets
from utils.artifacts import Identity


def merge_identities(
    identities: list[Identity], assets: HandAssets, prior_mean: np.ndarray, prior_covariance: np.ndarray
) -> Identity:
    """The posterior from all images together, as far as Gaussians go.

    Every file's posterior contains the population prior once; it must count only once, so
    ``precision = sum_i P_i - (n - 1) P_0`` and likewise for ``precision @ mean``. Where files share
    what was measured (the same ruler), that counts as often as it is in them.

    Args:
        identities: at least two, with covariance, of the hand model ``assets``, of one person and side.
        prior_mean, prior_covariance: (10,), (10,10) that the files were made with.

    Raises:
        CalibrationError: no covariance, different persons or sides, shared images, or files that
            say less than the prior they are said to contain.
    """
    if len(identities) < 2:
        raise CalibrationError("merging needs at least two identities")
    for identity in identities:
        identity.check_hand(assets)
        if identity.covariance is None:
            raise CalibrationError(
                f"{identity.source} (method {identity.method}) has no covariance, so its weight is unknown; "
                "calibrate with --method joint"
            )
    first = identities[0]
    for other in identities[1:]:
        if {first.subject_id, other.subject_id} - {None, first.subject_id}:
            raise CalibrationError(f"subjects differ: {first.subject_id} and {other.subject_id}; nothing was merged")
        if first.side != other.side and "both" not in (first.side, other.side):
            raise CalibrationError(f"sides differ: {first.side} and {other.side}; a person's hands are not alike")
    images = [image for identity in identities for image in identity.image_ids]
    if len(set(images)) < len(images):
        raise CalibrationError("the files share images, which would count twice; calibrate from all images at once")
    prior = np.linalg.inv(prior_covariance)
    precisions = [np.linalg.inv(identity.covariance) for identity in identities]
    total = sum(precisions) - (len(identities) - 1) * prior
    total = (total + total.T) / 2
    if np.linalg.eigvalsh(total).min() <= 0:
        raise CalibrationError("the files say less than the prior they contain; were they made with another --prior?")
    pulled = sum(p @ i.betas for p, i in zip(precisions, identities, strict=True))
    pulled = pulled - (len(identities) - 1) * prior @ prior_mean
    covariance = np.linalg.inv(total)
    covariance = (covariance + covariance.T) / 2
    betas = covariance @ pulled
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    return Identity(
        betas=betas,
        covariance=covariance,
        hand_name=first.hand_name,
        hand_hash=first.hand_hash,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side=first.side if all(i.side == first.side for i in identities) else "both",
        method="merged " + " + ".join(dict.fromkeys(identity.method for identity in identities)),
        n_images=sum(identity.n_images for identity in identities),
        image_ids=images,
        subject_id=first.subject_id if first.subject_id is not None else identities[-1].subject_id,
        created_by=identities[-1].created_by,
        scale_evidence=" + ".join(
            dict.fromkeys(part for identity in identities for part in identity.scale_evidence.split(" + "))
        ),
    )
