"""Several identity files of one person to one, each weighted by its information."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2

from src.personalization.calibration.population import Population
from src.personalization.calibration.views import design_effect
from src.personalization.solver.status import CalibrationError
from src.personalization.terms.hand_size import (
    LENGTHS,
    accepted_conflicts,
    dispersed,
    joints_of,
    length_gradient,
    lengths_mm,
)
from template import HandAssets
from utils.artifacts import Identity

logger = logging.getLogger(__name__)

#: How often two files of one person differ so much, by chance: doubted and refused below. Intervals are somewhat too
#: narrow on networks' predictions, so a refusal needs more than the usual significance.
DOUBTED, REFUSED = 1e-2, 1e-4

Gaussian = tuple[np.ndarray, np.ndarray]  # in information form: precision (10,10), precision @ mean (10,)


def merge_identities(
    identities: list[Identity], assets: HandAssets, population: Population, accept_conflict: bool = False
) -> Identity:
    """The posterior from all images together, as far as Gaussians go.

    A file's posterior is a product of Gaussians: the population, what the network's predicted betas say, measured
    lengths, and the images. The first is in each of them and counts once. So does an error that the network makes in
    every image of a person: the predicted betas are pooled, as if all had been calibrated at once. A length in
    several files with the same millimetres is one measurement. Images add up; but where their errors are taken to
    repeat (`CalibrationOptions.errors_repeat`), they are averaged.

    Args:
        identities: at least two, with covariance, of the hand model ``assets``, of one person and side.
        population: that the files were made with.
        accept_conflict: merge even what does not look like one person's hand.

    Raises:
        CalibrationError: no covariance, different persons or sides, shared images, another population, or shapes
            that one hand does not have.
    """
    if len(identities) < 2:
        raise CalibrationError("merging needs at least two identities")
    _check(identities, assets, population)
    # As the solver had them: errors that images share do not count.
    solved = [np.array(i.evidence.get("intervals", {"solved": i.covariance})["solved"], float) for i in identities]
    _check_person(identities, solved, population, accept_conflict)
    landmarks, (factors, repeats) = _landmarks(identities), _repeats(identities)
    people = _information(population.betas_mean, population.betas_covariance)
    groups = [*([identity] for identity in identities), identities]
    *each, (evidence, shared) = [_shared(group, population, assets) for group in groups]
    parts, repeating = [people, *shared], []
    if repeats:
        evidence["repeats"] = repeats
    for identity, covariance, (_, own), factor in zip(identities, solved, each, factors, strict=True):
        known, posterior = [people, *own], _information(identity.betas, covariance)
        images = tuple(posterior[index] - sum(part[index] for part in known) for index in (0, 1))
        if identity.evidence.get("errors_repeat"):
            repeating.append((identity.n_images, images))
        else:
            parts.append((factor * images[0], factor * images[1]))
    if repeating:
        counts = np.array([count for count, _ in repeating], dtype=np.float64)
        parts += [(w * own[0], w * own[1]) for w, (_, own) in zip(counts / counts.sum(), repeating, strict=True)]
    precision, pulled = (np.sum([part[index] for part in parts], axis=0) for index in (0, 1))
    precision = (precision + precision.T) / 2
    if np.linalg.eigvalsh(precision).min() <= 0:
        raise CalibrationError("the files say less than the prior they contain; were they made with another --prior?")
    covariance = np.linalg.inv(precision)
    covariance = (covariance + covariance.T) / 2
    betas = covariance @ pulled
    intervals = [i.evidence["intervals"] for i in identities if "intervals" in i.evidence]
    if intervals:
        count, most = (f([each[name] for each in intervals]) for f, name in ((sum, "images"), (max, "correlation")))
        evidence["intervals"] = {"solved": covariance.tolist(), "images": count, "correlation": most}
        covariance = dispersed(covariance, sum(part[0] for part in (people, *shared)), count, most)
    length, std = lengths_mm(assets, betas, covariance, ("hand",))["hand"]
    first, last = identities[0], identities[-1]
    images = [image for identity in identities for image in identity.images()]
    return replace(
        first,
        betas=betas,
        covariance=covariance,
        hand_length_mm=length,
        hand_length_std_mm=std,
        side=first.side if all(i.side == first.side for i in identities) else "both",
        method="merged " + " + ".join(dict.fromkeys(i.method.removeprefix("merged ") for i in identities)),
        n_images=sum(identity.n_images for identity in identities),
        image_ids=[number for number, _ in images],
        images_of=images[0][1] if len({of for _, of in images}) == 1 else [of for _, of in images],
        subject_id=first.subject_id if first.subject_id is not None else last.subject_id,
        created_by=last.created_by,
        scale_evidence=" + ".join(dict.fromkeys(p for i in identities for p in i.scale_evidence.split(" + "))),
        evidence=evidence,
        landmarks=landmarks,
        source="merged identity",
    )


def _repeats(identities: list[Identity]) -> tuple[np.ndarray, dict[str, Any]]:
    """What each file's images count of what they counted alone, where all pictures, and all joints in space, share a
    part of their errors, and what is assumed of all together, by their `design_effect`."""
    told = [identity.evidence.get("repeats") for identity in identities]
    if not all(told):
        return np.ones(len(identities)), {}
    everywhere = np.array([one["in_common"][0] for one in told])
    worth, views = (np.array([one[name] for one in told], dtype=np.float64) for name in ("worth", "views"))
    left = 1 - everywhere * worth
    alone = np.where(left > 1e-3, worth * (1 - everywhere) / left.clip(1e-3), views)
    factors, independent = np.ones(len(identities)), 0.0
    kinds = [set(identity.method.removeprefix("merged ").split(" + ")) for identity in identities]
    mixed = any(kind > {"joints_3d"} for kind in kinds)  # shares errors with both
    in_space = np.array([mixed or kind == {"joints_3d"} for kind in kinds])  # which err as no picture does
    for own in (rows for rows in (in_space, ~in_space) if rows.any()):
        together = design_effect(alone[own].sum(), everywhere[own].max())
        factors[own] = design_effect(alone[own], everywhere[own]) / together
        independent += float(alone[own].sum() / together)
    in_common = [max(one["in_common"][place] for one in told) for place in (0, 1)]
    videos = sum(one["videos"] for one in told)
    said = {"views": int(views.sum()), "videos": videos, "in_common": in_common}
    return factors, said | {"worth": round(independent, 2)}


def _landmarks(identities: list[Identity]) -> dict[str, np.ndarray]:
    """Each source's points on this hand, (21,3) m: the mean over the images."""
    found = {}
    for name in sorted({name for identity in identities for name in identity.landmarks}):
        own = [identity for identity in identities if name in identity.landmarks]
        points, counts = [i.landmarks[name] for i in own], [max(1, i.n_images) for i in own]
        found[name] = np.average(points, axis=0, weights=counts)
    return found


def _check(identities: list[Identity], assets: HandAssets, population: Population) -> None:
    """What the files say of themselves must fit together."""
    first = identities[0]
    for identity in identities:
        identity.check_hand(assets)
        if identity.covariance is None:
            raise CalibrationError(
                f"{identity.source} (method {identity.method}) has no covariance, so its weight is unknown; "
                "calibrate with --method multi_frame"
            )
        if np.linalg.eigvalsh(identity.covariance).min() <= 0:
            raise CalibrationError(f"{identity.source}: its covariance leaves nothing open; calibrate again")
        if identity.evidence.get("prior", None if "network" in identity.scale_evidence else population.hash) != (
            population.hash
        ):
            raise CalibrationError(
                f"{identity.source} was made with another prior (hash {identity.evidence.get('prior', 'not written')}, "
                f"in use {population.hash}): what the files share is not known. Calibrate again, both alike (of "
                "predictions the same --prior, of --estimates the same --format, --trust and --prior_from)"
            )
        _check_evidence(identity, population)
        if None not in (first.subject_id, identity.subject_id) and first.subject_id != identity.subject_id:
            raise CalibrationError(f"subjects differ: {first.subject_id} and {identity.subject_id}; nothing was merged")
        if first.side != identity.side and "both" not in (first.side, identity.side):
            raise CalibrationError(f"sides differ: {first.side} and {identity.side}; a person's hands are not alike")
    before: dict[int, list[str]] = {}  # number: where it counts
    for number, of in (image for identity in identities for image in identity.images()):
        if any(not of or other in ("", of) for other in before.setdefault(number, [])):
            raise CalibrationError("the files share images, which would count twice; calibrate from all images at once")
        before[number].append(of)


def _check_evidence(identity: Identity, population: Population) -> None:
    """What a file says of its evidence is of the form that `Identity.evidence` has, and means something here."""
    network, cues = identity.evidence.get("network"), identity.evidence.get("cues", [])
    accepted_conflicts(identity)
    try:
        good = all(name in LENGTHS and 0 < mm < np.inf and 0 < std_mm < np.inf for name, mm, std_mm in cues)
        if network is not None:
            good &= (
                population.network is not None
                and 0 < network["images"] < np.inf
                and bool(np.isfinite(np.array(network["betas"], dtype=np.float64)).all())
            )
            good &= len(network["betas"]) == 10
        if (intervals := identity.evidence.get("intervals")) is not None:
            good &= np.shape(intervals["solved"]) == (10, 10) and np.linalg.eigvalsh(intervals["solved"]).min() > 0
            good &= 0 < intervals["images"] < np.inf and 0 <= intervals["correlation"] <= 1
        if repeats := identity.evidence.get("repeats"):
            everywhere, shared = repeats["in_common"]
            good &= 0 <= everywhere <= shared <= 1 and 0 < repeats["worth"] < np.inf
            good &= 0 < repeats["views"] < np.inf and 0 <= repeats["videos"] < np.inf
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise CalibrationError(f"{identity.source}: its evidence is not what calibration writes; calibrate again")


def _check_person(identities: list[Identity], solved: list[np.ndarray], population: Population, accept: bool) -> None:
    """One hand must explain all files, whose covariances are ``solved`` (10,10).

    A posterior mean is ``m0 + (1 - C / C0) (y - m0)`` with an observation y of the betas; so the difference of two of
    one person has the covariance ``D C0 D^T + C1 K1^T + C2 K2^T``, K = 1 - C / C0 and D = K1 - K2.
    """
    spread, inverse = population.betas_covariance, np.linalg.inv(population.betas_covariance)
    gains = [np.eye(10) - covariance @ inverse for covariance in solved]
    for other, covariance, gain in zip(identities[1:], solved[1:], gains[1:], strict=True):
        first = identities[0]
        apart = gains[0] - gain
        own = [c @ k.T for c, k in ((solved[0], gains[0]), (covariance, gain))]
        expected = apart @ spread @ apart.T + own[0] + own[1] + 1e-9 * np.eye(10)
        difference = first.betas - other.betas
        chance = float(chi2.sf(difference @ np.linalg.solve((expected + expected.T) / 2, difference), 10))
        said = (
            f"{first.source} ({first.hand_length_mm:.1f} mm) and {other.source} ({other.hand_length_mm:.1f} mm) do not "
            f"look like one person's hand: two calibrations of one differ so much in {100 * chance:.2g}% of cases"
        )
        if chance < REFUSED and not accept:
            raise CalibrationError(f"{said}. Nothing was merged; --accept_conflict merges them all the same")
        if chance < DOUBTED:
            logger.warning("%s", said)


def _information(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    precision = np.linalg.inv(covariance)
    return precision, precision @ mean


def _shared(
    identities: list[Identity], population: Population, assets: HandAssets
) -> tuple[dict[str, Any], list[Gaussian]]:
    """What one or more files share, each thing once, and the Gaussians of the network and the ruler in it.

    Lengths are linearised at the files' mean betas.
    """
    evidence: dict[str, Any] = {
        "prior": population.hash,
        "errors_repeat": all(i.evidence.get("errors_repeat", False) for i in identities),
    }
    parts, betas = [], np.mean([identity.betas for identity in identities], axis=0)
    networks = [i.evidence["network"] for i in identities if "network" in i.evidence]
    if networks:
        counts = np.array([network["images"] for network in networks])
        pooled = counts @ np.array([network["betas"] for network in networks], dtype=np.float64) / counts.sum()
        evidence["network"] = network = {"images": float(counts.sum()), "betas": pooled.round(6).tolist()}
        parts.append(population.network.information(np.array(network["betas"]), network["images"]))
    spreads: dict[tuple[str, float], float] = {}
    for name, mm, std_mm in (cue for i in identities for cue in i.evidence.get("cues", ())):
        spreads[name, mm] = max(std_mm, spreads.get((name, mm), 0.0))  # one measurement, believed as by the less sure
    cues = [(name, mm, std_mm) for (name, mm), std_mm in spreads.items()]
    conflicts = [conflict for i in identities for conflict in accepted_conflicts(i).items()]
    if conflicts:
        evidence["conflict"] = {name: max(by for one, by in conflicts if one == name) for name, _ in conflicts}
    if cues:
        evidence["cues"] = [list(cue) for cue in cues]
    for name, mm, std_mm in cues:
        length, gradient = length_gradient(joints_of(assets), torch.as_tensor(betas)[None], name)
        slope = 1000 * gradient[0].numpy() / std_mm
        parts.append((np.outer(slope, slope), slope * (mm / std_mm - 1000 * float(length[0]) / std_mm + slope @ betas)))
    return evidence, parts
