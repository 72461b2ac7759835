"""Train the hand detector and the keypoint network on pictures mixed of a bank of renders, within a budget of minutes.

``python -m src.engine.world.train --task keypoints --bank out/world/bank --validation out/world/val --out out/world``

The bank may grow while this runs. Training goes by the clock: learning rate and stop follow the share of ``--minutes``
that is used up, all calls counted together; a call that is stopped goes on from its last checkpoint. At the end the
weights' running average is calibrated on the validation bank and written as ``.safetensors``.
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.synthetic.world.bank import ResidentBank
from datasets.synthetic.world.mixing import CROP_SCALE, Crops, mix_crops, mix_pictures
from options.command_line import CommandParser, run_command, values_of
from src.engine.checkpoint import ModelCard, initialise_from, read_checkpoint, save_checkpoint
from src.engine.ship import export_weights
from src.engine.world.calibration import calibrate_detector, calibrate_keypoints
from src.models.hand_detector import INPUT_SIZE, detector_loss
from src.models.heatmaps import heatmap_loss
from src.models.keypoint_rating import keypoint_is_right
from template import HandModel, load_hand_assets
from template.assets import STAND_IN_PATH
from utils.device import choose_device
from utils.files import write_json

logger = logging.getLogger(__name__)

_REFRESH_STEPS, _SAVE_SECONDS, _LOG_STEPS = 50, 45.0, 50
_WARM_UP = 0.03  # share of the budget
_BANK_AT_LEAST = 600
#: Options that may change from one call to the next, which is said.
_SETTINGS = ("minutes", "max_steps", "batch_size", "lr", "weight_decay", "left", "only_fresh", "max_cutouts", "seed")


def keypoint_step(
    model: nn.Module, bank: ResidentBank, batch: int, size: int, left: float
) -> tuple[torch.Tensor, dict]:
    """Loss of a fresh batch of crops, and its parts."""
    crops = mix_crops(bank, batch, size, left=left)
    known = torch.rand(batch, 1, device=bank.device) < 0.5  # of half of the crops the person
    betas = torch.where(known, crops.betas, torch.nan)
    with torch.autocast(bank.device.type, torch.bfloat16, enabled=bank.device.type == "cuda"):
        output = model(crops.image.contiguous(memory_format=torch.channels_last), betas=betas)
    hand = crops.is_hand
    found, truth = output["keypoints_2d"], crops.keypoints
    inside = ((truth > -0.5) & (truth < size - 0.5)).all(-1) & hand[:, None]
    elsewhere = torch.where(hand[:, None, None], truth, torch.full_like(truth, -1e4))
    maps = heatmap_loss(output["heatmap_logits"], elsewhere, size)
    distance = (found - truth).abs().sum(-1) / crops.box_side[:, None]
    coordinates = (distance * inside).sum() / inside.sum().clamp_min(1)
    right = keypoint_is_right(found.detach(), truth, crops.box_side) & hand[:, None]
    entropy = nn.functional.binary_cross_entropy_with_logits
    event = entropy(output["event_logits"], right.float())
    hand_loss = entropy(output["hand_logits"][:, 0], hand.float())
    side = entropy(output["hand_logits"][:, 1], crops.is_left.float(), weight=hand.float())
    off = (output["depth"] - crops.depth).abs().mean(1) + (output["extent"] / crops.extent).log().abs() / 100
    depth = (off * hand).sum() / hand.sum().clamp_min(1)
    pose = pose_loss(output, crops)
    loss = maps + 2 * coordinates + 0.3 * event + 0.5 * hand_loss + side + 30 * depth + pose
    shares = right.sum() / (21 * hand.sum()).clamp_min(1)
    parts = {"maps": maps, "coordinates": coordinates, "event": event, "hand": hand_loss}
    return loss, parts | {"side": side, "depth": depth, "pose": pose, "right": shares}


def pose_loss(output: dict[str, torch.Tensor], crops: Crops) -> torch.Tensor:
    """Of right hands: joints relative to the wrist, in parts of 10 cm, the rotations' entries and the betas."""
    hand = _hand_model(crops.pose.device)
    joints, true_joints = (
        hand.joints(pose, betas, None) for pose, betas in ((output["pose"], output["betas"]), (crops.pose, crops.betas))
    )
    off = ((joints - joints[:, :1]) - (true_joints - true_joints[:, :1])).norm(dim=-1).mean(1) / 0.1
    rotations = (output["pose"] - crops.pose).abs().mean((1, 2, 3))
    shape = (output["betas"] - crops.betas).abs().mean(1)
    counts = crops.is_hand & ~crops.is_left
    return ((3 * off + 3 * rotations + 0.05 * shape) * counts).sum() / counts.sum().clamp_min(1)


@functools.lru_cache(maxsize=2)
def _hand_model(device: torch.device) -> HandModel:
    return HandModel(load_hand_assets(STAND_IN_PATH)).to(device)


def detector_step(model: nn.Module, bank: ResidentBank, batch: int, size: int, _: float) -> tuple[torch.Tensor, dict]:
    """Loss of a fresh batch of pictures, and its parts."""
    pictures = mix_pictures(bank, batch, size)
    with torch.autocast(bank.device.type, torch.bfloat16, enabled=bank.device.type == "cuda"):
        output = model(pictures.image.contiguous(memory_format=torch.channels_last))
    return detector_loss(output, pictures.boxes, pictures.weight, size)


STEPS = {"keypoints": keypoint_step, "detector": detector_step}


def make_card(task: str, backbone: str, size: int) -> ModelCard:
    """What the network is, for its checkpoint."""
    sizes = {"input_size": size, "crop_size": size}
    if task == "detector":
        return ModelCard("hand_detector", options={"backbone": backbone}, **sizes, crop_scale=1.0)
    options = {"backbone": backbone, "rated": True, "lifts": True, "poses": True}
    assets = load_hand_assets(STAND_IN_PATH)  # see `default_betas`
    hand = {"hand_name": assets.name, "hand_hash": assets.hash}
    return ModelCard("pose_2d", options=options, **sizes, crop_scale=CROP_SCALE, **hand)


class Clock:
    """Seconds of training used so far, calls before this one included."""

    def __init__(
        self, minutes: float, used: float, steps: int, max_steps: int | None, stop_after: float | None
    ) -> None:
        self.budget, self._before, self.steps, self._began = 60 * minutes, used, steps, time.monotonic()
        self._max_steps, self._stop_after = max_steps, 60 * stop_after if stop_after else math.inf

    @property
    def used(self) -> float:
        """Seconds."""
        return self._before + time.monotonic() - self._began

    @property
    def share(self) -> float:
        """0 to 1 of the budget (or of the steps, if these are limited)."""
        if self._max_steps:
            return min(self.steps / self._max_steps, 1.0)
        return min(self.used / self.budget, 1.0)

    @property
    def stops(self) -> bool:
        """Whether this call ends here, for good or not."""
        return self.share >= 1 or time.monotonic() - self._began > self._stop_after


def learning_rate(share: float, highest: float) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    if share < _WARM_UP:
        return highest * (0.02 + 0.98 * share / _WARM_UP)
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP))))


def update_average(average: nn.Module, model: nn.Module, steps: int) -> None:
    """Exponential running average of weights; statistics of normalisation are taken over."""
    decay = min(0.999, (1 + steps) / (20 + steps))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        for mean, value in zip(average.buffers(), model.buffers(), strict=True):
            mean.copy_(value)


def keep_all_but(model: nn.Module, fresh: list[str]) -> None:
    """Train the tensors named ``fresh`` alone; statistics of normalisation stay as they are, too."""
    if not fresh:
        raise ValueError("--only_fresh: the weights of --init_from are all there is, so nothing would be trained")
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in fresh)


def train(args: argparse.Namespace) -> Path | None:
    """Train one network; its weights' file if it is finished, None if it is to go on.

    Raises:
        FileNotFoundError: the bank has no shard in time. ValueError: another network was trained in ``--out``.
    """
    device = choose_device(args.device, args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True  # not the matrix products: affines of pixels go through them
    out = Path(args.out)
    checkpoint = out / f"{args.task}.pt"
    torch.manual_seed(args.seed)
    card = make_card(args.task, args.backbone, args.size)
    model = card.build().to(device, memory_format=torch.channels_last).train()
    if args.init_from and (args.only_fresh or not checkpoint.exists()):
        fresh = initialise_from(model, args.init_from, card=card)
        if args.only_fresh:
            keep_all_but(model, fresh)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=device.type == "cuda")
    average, used, steps = copy.deepcopy(model).eval(), 0.0, 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint)
        saved, own = vars(ModelCard.read(state["card"], checkpoint)), vars(card)
        if other := sorted(name for name in own if saved[name] != own[name]):
            listed = ", ".join(f"{name} was {saved[name]}, is {own[name]}" for name in other)
            raise ValueError(
                f"{checkpoint}: not the same network: {listed}; go on with its own, or choose another --out"
            )
        if args.init_from != state.get("init_from", args.init_from):
            raise ValueError(
                f"{checkpoint}: began from {state['init_from']}, not from {args.init_from}; give that, or another --out"
            )
        for name, before in state.get("settings", {}).items():
            if before != getattr(args, name):
                logger.warning("%s: --%s was %s, goes on with %s", checkpoint, name, before, getattr(args, name))
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        optimizer.param_groups[0]["weight_decay"] = args.weight_decay
        used, steps = state["used"], state["steps"]
        torch.manual_seed(args.seed + steps)
        logger.info("%s: goes on after %d steps, %.0f s", checkpoint, steps, used)
    try:
        bank = ResidentBank(args.bank, device, args.max_cutouts)
    except RuntimeError as error:
        raise ValueError(f"--max_cutouts {args.max_cutouts} do not fit into memory ({error}); give fewer") from error
    deadline = time.monotonic() + 60 * args.wait_minutes
    bank.refresh()
    while bank.cutouts < _BANK_AT_LEAST:  # until the first shards are there
        if time.monotonic() > deadline:
            raise FileNotFoundError(f"{bank.root}: no whole shard; render with python -m datasets.synthetic.world.bank")
        time.sleep(1)
        bank.refresh()
    clock = Clock(args.minutes, used, steps, args.max_steps, args.stop_after)
    saved, seen, step = time.monotonic(), 0, STEPS[args.task]

    def save() -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in trained):
            raise RuntimeError(
                f"the weights are not finite after {clock.steps} steps; {checkpoint} is as it was saved last: go on "
                "from there with a smaller --lr"
            )
        states = {"average": average.state_dict(), "optimizer": optimizer.state_dict(), "init_from": args.init_from}
        settings = {name: getattr(args, name) for name in _SETTINGS}
        save_checkpoint(checkpoint, card, model, **states, used=clock.used, steps=clock.steps, settings=settings)

    def notes() -> dict[str, Any]:
        place = {"steps": clock.steps, "seconds": round(clock.used), "share": round(clock.share, 3)}
        return place | {"cutouts": bank.cutouts}

    while not clock.stops:
        if clock.steps % _REFRESH_STEPS == 0:
            bank.refresh(8)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(clock.share, args.lr)
        loss, parts = step(model, bank, args.batch_size, args.size, args.left)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        clock.steps += 1
        seen += args.batch_size
        update_average(average, model, clock.steps)
        if clock.steps % _LOG_STEPS == 0:
            words = "  ".join(f"{name} {float(value):.4f}" for name, value in {"loss": loss, **parts}.items())
            logger.info("%s %d  %.0f s  %d cut-outs  %s", args.task, clock.steps, clock.used, bank.cutouts, words)
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            if args.interim:
                finish(args, card, average, device, notes())
            saved = time.monotonic()
    save()
    logger.info("%s: %d pictures in this call, %d steps in all", args.task, seen, clock.steps)
    done = clock.share >= 1
    if not done and not args.interim:
        return None
    weights = finish(args, card, average, device, notes())
    return weights if done else None


def finish(args: argparse.Namespace, card: ModelCard, model: nn.Module, device: torch.device, notes: dict) -> Path:
    """Calibrate and write the weights; scores beside them."""
    held_back = ResidentBank(args.validation or args.bank, device, args.validation_cutouts)
    held_back.refresh()
    keypoints = functools.partial(calibrate_keypoints, keep=args.only_fresh)
    calibrate = calibrate_detector if args.task == "detector" else keypoints
    with torch.random.fork_rng():  # the training goes on with its own
        torch.manual_seed(20261126)
        scores: dict[str, Any] = calibrate(model.eval(), held_back, args.validation_pictures, args.size)
    scores = {name: None if isinstance(value, float) and value != value else value for name, value in scores.items()}
    out = Path(args.out)
    final = out / f"{args.task}_final.pt"
    save_checkpoint(final, card, model)
    weights = out / f"{args.task}.safetensors"
    small = {} if args.task == "detector" else {"bits": 8, "module": "rating."}  # of its size 1.3 MB, exact enough
    export_weights(final, weights, **small, **notes, validation=scores, command=f"train_world {values_of(args)}")
    final.unlink()
    write_json(out / f"{args.task}.json", scores | notes)
    logger.info("%s: %s", weights, scores)
    return weights


def get_args_parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__.splitlines()[0], "python -m src.engine.world.train")
    add = parser.add_argument
    add("--task", required=True, choices=sorted(STEPS))
    add("--bank", required=True, help="folder of renders (datasets.synthetic.world.bank); may grow")
    add("--validation", help="bank of other people, for calibration and scores (default: the same bank)")
    add("--out", required=True, help="folder of checkpoint, weights and scores")
    add("--minutes", type=float, default=8.0, help="whole budget; the learning rate follows it")
    add("--stop_after", type=float, help="minutes of this call")
    add("--interim", action="store_true", help="calibrate and write weights at every save, and if the call ends early")
    add("--max_steps", type=int, help="steps instead of minutes (for trying out)")
    add("--batch_size", type=int)
    add("--size", type=int, help="side of the network's input (default 128; detector 256)")
    add("--backbone")
    add("--lr", type=float, default=2e-3)
    add("--weight_decay", type=float, default=0.02)
    add("--left", type=float, default=0.2, help="keypoints: share of left hands, as a detector's mistakes bring them")
    add("--init_from", help="start from the weights that it shares with another checkpoint")
    add("--only_fresh", action="store_true", help="and train nothing but what that one lacks; its calibration stays")
    add("--max_cutouts", type=int, default=300_000, help="memory for so many, 0.1 MB each")
    add("--validation_cutouts", type=int, default=6_000)
    add("--validation_pictures", type=int, default=8_192)
    add("--wait_minutes", type=float, default=3.0, help="for the bank's first shard")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--threads", type=int)
    add("--seed", type=int, default=0)
    return parser


def main(args: argparse.Namespace) -> None:
    """Fill in what depends on the task, and train.

    Raises:
        ValueError: --only_fresh without --init_from, or with nothing to train; --left of a detector.
    """
    if args.only_fresh and not args.init_from:
        raise ValueError("--only_fresh trains what --init_from FILE lacks: give that file")
    is_detector = args.task == "detector"
    if is_detector and "--left" in args.given_options:
        raise ValueError("--left is of --task keypoints; pictures for the detector hold both hands")
    args.size = args.size or (INPUT_SIZE if is_detector else 128)
    args.batch_size = args.batch_size or (192 if is_detector else 384)
    args.backbone = args.backbone or ("mobilenet_v3_small" if is_detector else "regnet_x_400mf")
    train(args)


if __name__ == "__main__":
    sys.exit(run_command(get_args_parser(), main))
