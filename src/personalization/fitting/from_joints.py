"""A posed hand from 21 points in space: Leap, motion capture, triangulation, an estimator's own 3D joints.

Nothing to start from is needed: the palm is laid on the points, each bone is turned to its own, and Levenberg-Marquardt
does the rest for all hands together, with usual poses and people's shapes as priors.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import torch

from src.personalization.fitting.joints_start import pose_on_points
from src.personalization.landmarks.model import LandmarkModel
from src.personalization.solver.levenberg_marquardt import LMOptions, State, minimise
from src.personalization.solver.normal_equations import factorise
from src.personalization.solver.status import Status, usable
from src.personalization.terms.frame_problem import FrameProblem, ShapePrior
from src.personalization.terms.frame_terms import POSE, SHAPE, WRIST, Observations
from src.personalization.terms.point_terms import point_rows
from src.personalization.terms.pose_prior import PosePrior, habit_prior, right_jacobian
from template import HandAssets
from template.kinematics import JointsModel, joints_model, posed_points, row_jacobian, shape_jacobian
from template.large_products import full_precision
from utils.joints import STANDARD_TO_MANO

#: Hands solved together, so that memory is bounded.
CHUNK = 256
#: m, of a coordinate, where learning how far the points are off begins.
STD = 0.005
LM = LMOptions(max_steps=20, initial_damping=1e-3)
#: m, between which points' own spread about the fitted hands is believed.
STD_RANGE = (1e-4, 0.03)
#: m, larger side of the points' box: what is smaller or larger is no hand, perhaps one in other units.
SPREAD_RANGE = (0.001, 1.0)
#: Fewer points than this leave a hand's orientation open.
LEAST = 4
#: A hand is taken for the other side's if its mirror image fits this much better (ratio of root mean square distances).
#: Of 1,600 simulated hands none came below 0.87, HaMeR-like mirrored ones to 0.4. After one step the two are further
#: apart than after all: a mirrored hand is not there yet.
ONE_MIRRORED, MIRROR_STEPS = 0.8, LMOptions(max_steps=1, initial_damping=1e-3)
#: The same of the median of a side's hands, and how many it takes: then their frame is wrong, and not single hands.
MIRRORED, LEAST_HANDS = 0.93, 4
#: Median of the hands' distances to their 3D joints, mm, from which the joints are not those of hands, or in another
#: order. mediapipe's of 231 real hands: 8, the furthest 17; joints in other orders: 18 (little finger first) to 47.
MAX_MISFIT_MM = 16.0
#: Of betas, for the derivative of the poses' room.
VOLUME_STEP = 0.05
#: Hands that tell how far their points are off: more say the same.
LEARN_FROM = 64
#: Times the median distance of hands to their points: hands further off say nothing about how far the others' are.
MOST_OFF = 3.0


@dataclass(frozen=True)
class JointFitOptions:
    """What `fit_joints` believes beforehand, and how long it tries.

    Attributes:
        std: m, of a coordinate of every point; None: learnt from the misfit of all hands together.
        scale_std: of the points' scale; zero: they are metric.
        shape_prior: on the betas; None: unit normal.
        landmarks: of the points' source; None: the hand's own joints and tips.
        lm: ``max_steps=0`` gives the start alone, in closed form, at the given or mean betas: several times faster, and
            as near as the points where they are good; one step mends most of what is left.
        dtype: of the solver; single precision is as good and faster, covariances are double.
    """

    std: float | None = None
    scale_std: float = 0.0
    shape_prior: ShapePrior | None = None
    landmarks: LandmarkModel | None = None
    lm: LMOptions = LM
    dtype: torch.dtype = torch.float32


@dataclass
class JointFit:
    """N fitted hands, right-hand convention; every number is finite, whatever the status.

    Attributes:
        pose: (N,16,3,3); betas: (N,10); transl: (N,3) m, MANO's free translation.
        status: (N,) int64 of `Status`. residual: (N,) m, root mean square distance to the points that count, at the
            best scale that their prior allows.
        std: m, of a coordinate, as given or learnt.
    """

    pose: torch.Tensor
    betas: torch.Tensor
    transl: torch.Tensor
    status: torch.Tensor
    residual: torch.Tensor
    std: float
    _task: _Task = field(repr=False)

    @functools.cached_property
    def covariance(self) -> torch.Tensor:
        """(N,61,61) of 48 local rotation increments (rad, joint after joint), the wrist's place (m) and the betas
        (zero where they were given), by Laplace's method; computed when it is asked for."""
        return self._task.covariance({"pose": self.pose, "betas": self.betas}, self.std)

    def volume_gradient(self) -> torch.Tensor:
        """(N,10) of half the logarithm of the determinant of the pose's Hessian, by the betas: what integrating poses
        out adds to the cost (`calibration.problem.log_volume_gradient`; how poses follow the betas is left out)."""
        task, sides = self._task, []
        for amount in torch.eye(10).to(self.betas) * VOLUME_STEP:
            for sign in (1.0, -1.0):
                state = {"pose": self.pose, "wrist": 0 * self.transl, "betas": self.betas + sign * amount}
                *_, hessian, precision = task.linearised(state, self.std)
                factor = factorise((hessian + precision)[:, POSE, POSE])
                sides.append(factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1))
        volumes = torch.stack(sides, dim=1).unflatten(1, (10, 2))
        return (volumes[..., 0] - volumes[..., 1]) / (2 * VOLUME_STEP)


def mirror_ratio(
    assets: HandAssets,
    joints: torch.Tensor,
    confidence: torch.Tensor | None,
    options: JointFitOptions,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """(N,) by how much the mirror images of joints (N,21,3) m fit a right hand better (below 1) or worse, root mean
    square distances; NaN where either does not fit at all."""
    options = replace(options, scale_std=0.15, lm=MIRROR_STEPS)
    mirror = joints.new_tensor([-1.0, 1.0, 1.0])
    one, other = (
        fit_joints(assets, points, confidence, options=options, device=device) for points in (joints, mirror * joints)
    )
    known = usable(one.status) & usable(other.status)
    return torch.where(known, other.residual / one.residual.clamp_min(1e-9), torch.nan)


def fit_joints(
    assets: HandAssets,
    joints: torch.Tensor,
    confidence: torch.Tensor | None = None,
    betas: torch.Tensor | None = None,
    options: JointFitOptions = JointFitOptions(),
    device: torch.device | str = "cpu",
) -> JointFit:
    """Fit every hand on its own.

    Args:
        joints: (N,21,3) m, standard order, any frame; right hands (mirror left ones: x -> -x).
        confidence: (N,21) in [0,1], variances grow as its inverse; zero where a joint is missing. None: all one.
        betas: (10,) or (N,10) a known identity; None: betas are fitted too.

    Returns:
        `JointFit`, float64 on ``device``; hands without enough finite points, or with points of no hand's size, have
        the mean pose and shape; those that no hand comes near are `Status.OUT_OF_RANGE`.
    """
    points = joints.to(device, torch.float64)
    trust = torch.ones_like(points[..., 0]) if confidence is None else confidence.to(points)
    trust = torch.where(torch.isfinite(trust), trust.clamp(0, 1), 0.0)
    broken = ~torch.isfinite(points).all(dim=-1) & (trust > 0)
    few = (trust > 0).sum(dim=1) < LEAST
    low, high = (torch.where((trust > 0)[..., None], points, end * torch.inf) for end in (1, -1))
    spread = (high.amax(dim=1) - low.amin(dim=1)).amax(dim=-1)
    small, large = spread < SPREAD_RANGE[0], spread > SPREAD_RANGE[1]
    bad = broken.any(dim=1) | few | small | large
    trust = torch.where(bad[:, None], 0.0, trust)
    points = torch.where((trust > 0)[..., None], points, 0.0)
    prior = (options.shape_prior or ShapePrior(points.new_zeros(10), torch.eye(10).to(points))).to(points.device)
    shape = (prior.mean if betas is None else betas.to(points)).expand(len(points), 10)
    order = list(STANDARD_TO_MANO)
    exact = _Task(joints_model(assets, options.landmarks, device), assets, points[:, order], trust[:, order], shape,
                  None if betas is not None else prior, options)  # fmt: skip
    task = exact.to(options.dtype)
    std = STD if options.std is None else options.std
    if options.std is None and bool((trust > 0).any()):
        part = exact.rows((trust > 0).any(dim=1).nonzero()[:LEARN_FROM, 0])
        rough, status = part.solve(STD, LM)
        of_one = part.trust.sum(dim=1) / (part.trust > 0).sum(dim=1)
        off = part.judge(rough, status, STD).residual * of_one.sqrt()
        alike = off <= MOST_OFF * off.median()
        std = part.rows(alike).learnt_std({key: value[alike] for key, value in rough.items()}, STD)
    with full_precision(points.device):
        state, status = task.solve(std, options.lm)
    state = {key: value.double() for key, value in state.items()}
    for where, why in (
        (large, Status.OUT_OF_RANGE),
        (small, Status.KEYPOINTS_COINCIDE),
        (few, Status.NO_KEYPOINTS),
        (broken.any(dim=1), Status.KEYPOINTS_NOT_FINITE),
    ):
        status = torch.where(where, int(why), status)
    found = exact.judge(state, status, std)
    most = 3**0.5 * max(STD_RANGE[1], 3 * (options.std or 0.0))
    found.status = torch.where(usable(status) & ~(found.residual <= most), int(Status.OUT_OF_RANGE), status)
    return found


@dataclass
class _Task:
    """The hands to be fitted; points (N,21,3) and trust (N,21) in MANO's order, tips last."""

    model: JointsModel
    assets: HandAssets
    points: torch.Tensor
    trust: torch.Tensor
    betas: torch.Tensor
    prior: ShapePrior | None
    options: JointFitOptions

    def rows(self, rows: slice | torch.Tensor) -> _Task:
        return replace(self, points=self.points[rows], trust=self.trust[rows], betas=self.betas[rows])

    def to(self, dtype: torch.dtype) -> _Task:
        """The same in another precision, about the points' middle, where single precision is best."""
        share = self.trust / self.trust.sum(dim=1, keepdim=True).clamp_min(1e-30)
        points = (self.points - (share[..., None] * self.points).sum(dim=1, keepdim=True)).to(dtype)
        model = joints_model(self.assets, self.options.landmarks, self.points.device, dtype)
        prior = self.prior and ShapePrior(self.prior.mean.to(dtype), self.prior.precision.to(dtype))
        return _Task(model, self.assets, points, self.trust.to(dtype), self.betas.to(dtype), prior, self.options)

    def chunks(self) -> list[slice]:
        """Slices of the hands; one of none where there is none."""
        return [slice(i, i + CHUNK) for i in range(0, max(len(self.points), 1), CHUNK)]

    @property
    def habit(self) -> PosePrior:
        """Usual poses, their spread in rad."""
        return habit_prior(self.assets, self.points.dtype, self.points.device)

    def problem(self, std: float) -> FrameProblem:
        """The points (m) as they are seen by no camera, and the priors."""
        seen = Observations(
            projections=self.points.new_zeros(len(self.points), 0, 3, 4),
            keypoints=self.points.new_zeros(len(self.points), 0, 21, 2),
            weights=self.points.new_zeros(len(self.points), 0, 21),
            pose_priors=[self.habit],
            points_3d=self.points,
            points_3d_weight=(self.trust / std**2)[..., None].expand_as(self.points),
            scale_std=self.options.scale_std,
        )
        return FrameProblem(self.model, seen, self.prior)

    def solve(self, std: float, lm: LMOptions) -> tuple[State, torch.Tensor]:
        """The fitted states (rad, m), and the status (N,) of each."""
        parts = []
        for rows in self.chunks():
            part = self.rows(rows)
            mean = torch.as_tensor(self.assets.hands_mean)
            pose = pose_on_points(self.model, mean, part.points, part.trust, part.betas)
            state = {"pose": pose, "wrist": part.points.new_zeros(len(pose), 3), "betas": part.betas.clone()}
            status = torch.full_like(part.points[:, 0, 0], int(Status.ITERATION_LIMIT)).long()
            if lm.max_steps > 0:
                found = minimise(part.problem(std), state, lm)
                state, status = found.state, found.status
            parts.append({**state, "status": status})
        state = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return state, state.pop("status")

    def linearised(self, state: State, std: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the points alone, divided by ``std``: sum of squares (N,), gradient (N,U), Hessian (N,U,U); the priors'
        precision (U,U). U: 48 of the pose (rad) and, where they are free, 10 betas."""
        terms = self.problem(std).linearise(state)
        habit = self.habit
        cost, pull = habit.pull(habit.logarithms(state["pose"].permute(2, 3, 1, 0)))
        free = [*range(48), *range(51, terms["gradient"].shape[1])]
        precision = terms["hessian"].new_zeros(terms["hessian"].shape[1:])
        precision[POSE, POSE] = habit.precision[0]
        gradient = terms["gradient"].clone()
        gradient[:, POSE] -= pull
        if self.prior is not None:
            off = state["betas"] - self.prior.mean
            precision[SHAPE, SHAPE] = self.prior.precision
            gradient[:, SHAPE] -= off @ self.prior.precision
            cost = cost + ((off @ self.prior.precision) * off).sum(dim=1) / 2
        precision = precision[free][:, free]
        hessian = terms["hessian"][:, free][:, :, free] - precision
        return 2 * (terms["cost"] - cost), gradient[:, free], hessian, precision

    def learnt_std(self, state: State, std: float) -> float:
        """m, of a coordinate: the evidence's maximum (MacKay 1992, "Bayesian interpolation", section 4.4).

        That is the root of the residuals' squares over their number less the unknowns that the points decide. How
        residuals and that number change with the answer is taken from the model linearised at ``state``.
        """
        square, gradient, hessian, precision = self.linearised(state, std)
        count = 3 * (self.trust > 0).sum(dim=1) - 3
        used = count > 0
        square, gradient, hessian = square[used], gradient[used], hessian[used]
        factor = 1.0  # of the variance
        for _ in range(20):
            covariance = torch.cholesky_inverse(factorise(hessian / factor + precision))
            step = -(1 / factor - 1) * (covariance @ gradient[..., None])[..., 0]
            left = square + 2 * (step * gradient).sum(dim=1) + (step[:, None] @ hessian @ step[..., None])[:, 0, 0]
            decided = gradient.shape[1] - (covariance * precision).sum(dim=(1, 2))
            freedom = (count[used] - decided).sum().clamp_min(1.0)
            factor = float(
                (left.clamp_min(0).sum() / freedom).clamp((STD_RANGE[0] / std) ** 2, (STD_RANGE[1] / std) ** 2)
            )
        return std * factor**0.5

    def judge(self, state: State, status: torch.Tensor, std: float) -> JointFit:
        """Places (N,3) m and misfits (N,) m of the ends."""
        shape = state["betas"]
        rest = self.model.rest_points(shape)
        posed = posed_points(self.model, state["pose"], rest)
        total = self.trust.sum(dim=1).clamp_min(1e-30)
        share = self.trust / total[:, None]
        wrist = (share[..., None] * (self.points - posed.points)).sum(dim=1)
        seen = self.problem(std).seen
        off = point_rows(posed.planar, seen.points_3d, seen.points_3d_weight, seen.scale_std).residuals
        residual = std * (off.square().sum(dim=(0, 1)) / total).sqrt()
        return JointFit(state["pose"], shape, wrist - rest[:, 0], status, residual, std, self)

    def covariance(self, state: State, std: float) -> torch.Tensor:
        """(N,61,61) of pose (rad), wrist (m) and betas."""
        state = {**state, "wrist": torch.zeros_like(state["betas"][:, :3])}
        parts = [self.rows(rows)._covariance({k: v[rows] for k, v in state.items()}, std) for rows in self.chunks()]
        return torch.cat(parts)

    def _covariance(self, state: State, std: float) -> torch.Tensor:
        """The same of some hands: the wrist follows the points' centre."""
        n, free = len(self.points), self.prior is not None
        *_, hessian, precision = self.linearised(state, std)
        own = torch.cholesky_inverse(factorise(hessian + precision))
        posed = posed_points(self.model, state["pose"], self.model.rest_points(state["betas"]))
        chart = right_jacobian(self.habit.logarithms(state["pose"].permute(2, 3, 1, 0)))
        total = self.trust.sum(dim=1).clamp_min(1e-30)
        share = (self.trust / total[:, None]).T
        axes = torch.eye(3).to(self.points)[:, :, None, None] * share
        lever = row_jacobian(self.model, posed, axes.contiguous()).sum(dim=1).view(3, 48, n).permute(2, 0, 1)
        # From the chart's unknowns to local increments.
        turns = torch.zeros(n, 16, 3, 16, 3).to(self.points)
        turns.diagonal(dim1=1, dim2=3).copy_(chart.permute(3, 0, 1, 2))
        full = self.points.new_zeros(n, 61, own.shape[-1])
        full[:, POSE, :48] = turns.view(n, 48, 48)
        if free:
            full[:, SHAPE, 48:] = torch.eye(10).to(self.points)
            moved = (share[:, None] * shape_jacobian(self.model, posed)).sum(dim=1).permute(2, 0, 1)
            full[:, WRIST, 48:] = -moved
        full[:, WRIST, :48] = -lever @ full[:, POSE, :48]
        covariance = full @ own @ full.mT
        covariance[:, WRIST, WRIST] += (std**2 / total)[:, None, None] * torch.eye(3).to(self.points)
        return covariance
