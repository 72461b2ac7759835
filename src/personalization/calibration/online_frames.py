"""One frame's keypoints to what it says of a person's betas, for calibration while watching."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from src.personalization.calibration.from_keypoints import MAX_MISFIT, fit_options
from src.personalization.calibration.population import CalibrationOptions
from src.personalization.calibration.view_evidence import View, moved, no_evidence, parts_of, solve_frames
from src.personalization.fitting.fit import observe, reprojection_rmse
from src.personalization.fitting.from_keypoints import fit_keypoints
from src.personalization.fitting.translation import place_frames
from src.personalization.solver.levenberg_marquardt import LMOptions, State
from src.personalization.solver.status import CalibrationError, Status, usable
from src.personalization.terms.frame_terms import Observations
from src.personalization.terms.inputs import check_frames
from template import HandAssets
from template.kinematics import JointsModel, posed_points

STEPS = LMOptions(max_steps=20)
#: Of a right hand: K (1,3,3) px, keypoints (1,21,2) px, and confidence (1,21) or None.
Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class FrameFitter:
    """Fits frames one by one, each started from a network's pose or from its track's frame before.

    Args:
        assets: right hand; model: its points as the source of keypoints sees them, float64.
        options: noise and priors.
    """

    def __init__(self, assets: HandAssets, model: JointsModel, options: CalibrationOptions) -> None:
        self.assets, self.model, self.options = assets, model, options
        self._alone = fit_options(options)
        self._before: dict[int, torch.Tensor] = {}
        self._mean = model.rest_points(torch.zeros(1, 10, dtype=model.dtype, device=model.device))

    def view(
        self,
        keypoints: Any,
        confidence: Any,
        K: Any,
        pose: Any,
        predicted: Any,
        is_left: bool,
        track: int,
        person: torch.Tensor,
    ) -> View | str:
        """A frame, fitted with betas and offsets as in ``person`` (S,), as a view of its own, or why it is of no use.

        Other arguments as of `OnlineCalibration.add`.

        Raises:
            CalibrationError: no K, or arrays of other shapes.
        """
        seen = self._arrays(keypoints, confidence, K, is_left)
        told = None if predicted is None else self._tensor(predicted)
        for name, value, shape in (("pose", pose, (16, 3, 3)), ("betas", predicted, (10,))):
            if value is not None and np.shape(value) != shape:
                raise CalibrationError(f"{name} has shape {np.shape(value)}; {shape} is meant")
        found: View | str = "not fitted"
        if pose is not None:
            found = self._fit(seen, self._tensor(pose)[None], told, person)
        else:
            if track in self._before:
                found = self._fit(seen, self._before[track], told, person)
            if isinstance(found, str):
                (camera, points, trust), (betas, _) = seen, parts_of(person)
                start = fit_keypoints(self.assets, points, camera, trust, betas, None, self._alone, points.device)
                found = self._fit(seen, start.pose, told, person)
        if isinstance(found, View) and found.state is not None:
            self._before[track] = found.state["pose"]
        return found

    def _fit(self, given: Arrays, pose: torch.Tensor, told: torch.Tensor | None, person: torch.Tensor) -> View | str:
        betas, offsets = parts_of(person)
        model = moved(self.model, offsets)
        inputs = check_frames(pose, betas[None], *given, self.options.noise.min_confidence)
        if not bool(inputs.good):
            return Status(int(inputs.status)).name.lower().replace("_", " ")
        seen = observe(self.model, inputs, self.options)
        points = posed_points(model, inputs.pose, model.rest_points(betas[None])).points
        seen, wrist, placed = place_frames(seen, points, self.options.depths)
        if not bool(placed):
            return "behind the camera, or further than a hand is"
        state = {"pose": inputs.pose, "wrist": wrist, "betas": betas[None]}
        state, status, evidence = solve_frames(self.model, seen, state, STEPS, offsets)
        if not bool(usable(status)) or not bool(torch.isfinite(evidence.precision).all()):
            return "no fit"
        if self._misfit(model, seen, state) > MAX_MISFIT:
            return "no hand fits its keypoints"
        return View(
            points=posed_points(self.model, state["pose"], self._mean).points[0],
            count=1,
            others=no_evidence(person),
            key=evidence[0],
            seen=seen,
            state={name: state[name] for name in ("pose", "wrist")},
            betas=torch.zeros_like(betas) if told is None else told,
            told=int(told is not None),
        )

    def _misfit(self, model: JointsModel, seen: Observations, state: State) -> float:
        """Root mean square distance of joints and keypoints, in their standard deviations."""
        rest = model.rest_points(state["betas"])
        points = posed_points(model, state["pose"], rest).points + state["wrist"][:, None]
        weights = seen.weights[:, 0]
        off = reprojection_rmse(points, seen.projections[:, 0, :, :3], seen.keypoints[:, 0], weights)
        return float(off * (weights.sum() / (weights > 0).sum()).sqrt())

    def _arrays(self, keypoints: Any, confidence: Any, K: Any, is_left: bool) -> Arrays:
        if K is None:
            raise CalibrationError("keypoints need K, the (3,3) intrinsics in pixels of the images that they belong to")
        points, camera = self._tensor(keypoints), self._tensor(K).clone()
        trust = None if confidence is None else self._tensor(confidence)
        if points.shape != (21, 2) or camera.shape != (3, 3) or (trust is not None and trust.shape != (21,)):
            raise CalibrationError(
                f"keypoints {tuple(points.shape)}, K {tuple(camera.shape)}: (21,2) px and (3,3) px are meant, and "
                "confidence (21,)"
            )
        if trust is not None and not bool(((trust >= 0) & (trust <= 1)).all()):
            raise CalibrationError(f"confidence spans [{trust.min():g}, {trust.max():g}]; [0,1] is meant")
        if not bool((camera.diagonal()[:2] > 0).all() and (camera[2, :2].abs() <= 1).all()):  # turned views have K R
            raise CalibrationError(f"K is {camera.tolist()}: a camera that mirrors, or is it transposed?")
        if is_left:  # mirrored about x = 0
            points = points * points.new_tensor([-1.0, 1.0])
            turn = camera.new_tensor([-1.0, 1.0, 1.0])
            camera = turn[:, None] * camera * turn
        return camera[None], points[None], None if trust is None else trust[None]

    def _tensor(self, value: Any) -> torch.Tensor:
        given = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value, dtype=np.float64))
        return given.to(self.model.device, self.model.dtype)
