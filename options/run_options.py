"""Options of ``run.py``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from datasets import has_shards
from options.command_line import ROOT, CommandParser
from options.estimate_options import CUE_OPTIONS, ESTIMATE_OPTIONS, add_cue_arguments, add_estimate_arguments
from options.image_options import add_image_arguments
from options.recipes import RECIPES

#: Server of official results -> data set whose result file it takes.
SERVERS = {"freihand": "freihand", "ho3d": "ho3d", "dexycb": "dex_ycb"}
#: Endings of official result files, which ``--predictions`` takes as well.
RESULT_FILES = (".json", ".zip", ".txt")
PHASES = ("train", "eval", "predict", "demo", "export", "personalise")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--mano_dir`` and ``--threads``, shared by every command."""
    add = parser.add_argument_group("machine and hand model").add_argument
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: a GPU if there is one")
    add("--threads", type=int, help="CPU threads for torch (default: torch's own choice)")
    add("--mano_dir", help="folder with MANO_RIGHT.pkl and MANO_LEFT.pkl (default: $MANO_DIR, template/, the stand-in)")


_EVERYWHERE = "device mano_dir threads"
_DATA = "dataset data_root setup split side paper_filter crop_size crop cache skip_bad allow_missing_subjects"
_NETWORK = "model backbone hierarchy checkpoint resume exp_name out_dir"
_SAMPLES = "batch_size num_workers max_images"
_OWN_IMAGES = (
    "model backbone hierarchy checkpoint resume shape identity weights output K fov hand bbox keypoints landmarker "
    "one_person camera camera_name world_from_camera world_axes engine"
)
#: What each use of run.py reads, beside ``--phase``, ``--debug`` and `_EVERYWHERE`. Any other option is an error.
USED_OPTIONS = {
    "train": f"{_DATA} {_SAMPLES} input_size crop_scale resident model recipe backbone backbone_weights "
    "crop_geometry confidence blind_decoder hierarchy exp_name out_dir epochs lr body_lr weight_decay optimizer "
    "schedule augment rotation_deg seed amp channels_last cuda_graph compile init_parts init_from resume override "
    "overwrite save_minutes val_images",
    "predict": f"{_DATA} {_NETWORK} {_SAMPLES} shape identity predictions",
    "eval": f"{_DATA} {_NETWORK} {_SAMPLES} shape identity predictions results submit",
    "demo": "output weights method solver calibration_images demo_sequences demo_frames pictures seed",
    "demo --images": f"{_OWN_IMAGES} images",
    "demo --video": f"{_OWN_IMAGES} video glb bvh joint_names port lag each_frame_alone two_shapes "
    f"calibrate_online calibrate_until_mm known_bone {CUE_OPTIONS}",
    "export": "model dataset checkpoint resume exp_name out_dir hierarchy output weights without_layer",
    "personalise": f"{ESTIMATE_OPTIONS} {CUE_OPTIONS} identity output submit fps",
}


#: What --phase eval needs to predict, and does not use where predictions are given.
_OF_PREDICTING = tuple(
    f"--{name}"
    for name in "checkpoint resume backbone hierarchy shape crop_size batch_size num_workers max_images".split()
)
#: What it does not use of a server's file, which says neither who is in an image nor which network it was.
_OF_OUR_PREDICTIONS = ("--identity", "--submit", "--model", "--crop", "--side")
#: What names the run's folder.
_OF_RUN = ("--exp_name", "--out_dir")
_NO_NAMES = ("", ".", "..")


def add_noise_arguments(add: Callable[..., argparse.Action]) -> None:
    """How keypoints err, and a prior on the depth: shared by calibration and fitting."""
    add("--keypoint_std", type=float, help="px (default: a fraction of each hand's box)")
    add("--loss", default="geman_mcclure", choices=("none", "huber", "geman_mcclure"))
    add("--min_confidence", type=float, default=0.05, help="keypoints at or below it do not count")
    add("--depth_mean", type=float, help="m, weak prior on the wrist's depth, e.g. 0.85")
    add("--depth_std", type=float, default=0.07, help="m, of that prior")


class _Parser(CommandParser):
    """Fills in what depends on the data set, and refuses options that the phase does not use."""

    def check(self, args: argparse.Namespace) -> None:
        use = args.phase
        if use == "demo":
            use += " --images" if args.images else " --video" if args.video else ""
        used = {f"--{name}" for name in f"phase debug {_EVERYWHERE} {USED_OPTIONS[use]}".split()}
        if use == "export":  # on the CPU, wherever its file will run
            used.remove("--device")
        self.refuse_unused(args, used, f"--phase {use}")
        if args.checkpoint and args.resume:
            self.error("--checkpoint and --resume both name the network; give one")
        needs = {"--joint_names": ("--glb", "--bvh"), "--camera_name": ("--camera",)}
        self.refuse_without(args, needs | {"--world_axes": ("--world_from_camera",)})
        self.refuse_without(args, {"--hand_length_std_mm": ("--hand_length_mm",)})
        if not (args.video or "").startswith("camera:"):
            self.refuse_unused(args, args.given_options - {"--port"}, "--video FILE")
        elif args.world_from_camera:
            self.error("--world_from_camera is of recorded videos, whose frames have poses; leave it out")
        name = args.exp_name
        if name is not None and (name != Path(name).name or name in _NO_NAMES):
            self.error(f"--exp_name is {name!r}; it is one folder's name in --out_dir, without a path")
        if use == "personalise" and not (args.estimates and args.format):
            self.error("--phase personalise needs --estimates PATH and --format NAME")
        if args.dataset == "shards":
            from datasets.shards.dataset import dataset_of

            if args.data_root is None:
                self.error("--dataset shards needs --data_root, the folder that python -m datasets.write_shards wrote")
            try:
                args.dataset = dataset_of(args.data_root)
            except (OSError, ValueError) as error:
                self.error(str(error))
        is_official = args.phase == "eval" and Path(args.predictions or "").suffix in RESULT_FILES
        is_fair, exports = args.recipe == "fair", args.phase == "export"
        takes_body = bool(args.init_from) and "backbone" in (args.init_parts or ["backbone"])
        network = bool(args.checkpoint or args.resume) and not is_official
        predicts = args.phase != "eval" or args.predictions is None or network
        levels, meshes = args.model.startswith("cmr"), args.model.startswith(("cmr", "metro"))
        of_last, names_run = args.resume == "auto", predicts or args.submit
        for option, is_used, otherwise in (
            ("--override", args.resume, "a command without --resume"),
            ("--init_parts", args.init_from, "a command without --init_from"),
            ("--crop", args.dataset == "freihand", f"--dataset {args.dataset}"),
            ("--confidence", args.model == "mano_baseline_conf", f"--model {args.model}"),
            ("--blind_decoder", args.model == "mano_identity", f"--model {args.model}"),
            ("--confidence", is_fair, f"--recipe {args.recipe}"),
            ("--blind_decoder", is_fair, f"--recipe {args.recipe}"),
            ("--crop_geometry", is_fair, f"--recipe {args.recipe}"),
            ("--crop_geometry", meshes or args.model.startswith("mano"), f"--model {args.model}"),
            ("--hierarchy", levels or args.phase not in ("train", "export"), f"--model {args.model}"),
            ("--submit", (args.submit == "shape_track") == (use == "personalise"), f"{args.submit} in --phase {use}"),
            ("--weights", not exports or not (args.checkpoint or args.resume), "export of a --checkpoint"),
            *((option, not exports or of_last, "export without a bare --resume") for option in _OF_RUN),
            *((option, names_run, "--phase eval of --predictions without --submit") for option in _OF_RUN),
            ("--dataset", not exports or of_last or (meshes and not args.without_layer), f"export of {args.model}"),
            ("--setup", args.phase == "train" or args.split is None, f"--phase {use} of a --split"),
            ("--allow_missing_subjects", args.dataset == "dex_ycb", f"--dataset {args.dataset}"),
            ("--allow_missing_subjects", not has_shards(args.data_root or ""), "a folder of shards"),
            ("--backbone_weights", not takes_body, "--init_from of a backbone"),
            *((option, predicts, "--phase eval of --predictions") for option in _OF_PREDICTING),
            *((option, not is_official, "--phase eval of an official file") for option in _OF_OUR_PREDICTIONS),
            ("--side", args.submit != "dexycb" or args.side == "both", "--submit dexycb, of both sides,"),
        ):
            if not is_used:
                self.refuse_unused(args, args.given_options - {option}, otherwise)
        args.setup = args.setup or ("s1" if args.dataset == "dex_ycb" else "s0")
        args.data_root = args.data_root or f"data/synthetic_{args.dataset}"


def get_args_parser() -> argparse.ArgumentParser:
    parser = _Parser("Train, evaluate, predict and demonstrate hand networks.")
    parser.add_argument("--phase", required=True, choices=PHASES)
    add_device_arguments(parser)
    add = parser.add_argument_group("data").add_argument
    add("--dataset", default="dex_ycb", help="name of the data set, or shards (default: dex_ycb)")
    add("--data_root", help="the data set's folder (default: data/synthetic_<dataset>)")
    add("--setup", help="split family, e.g. DexYCB's s0 to s3 (default: s1, or s0 where there is no s1)")
    add("--split", help="full split name, e.g. s1_test (default: what the phase needs)")
    add("--side", default="right", choices=("right", "left", "both"), help="left hands are mirrored")
    add("--paper_filter", action="store_true", help="the paper's choice (docs/facts.md 1.8)")
    add("--crop_size", type=int, help="px of the stored crop (twice the hand's box)")
    add("--input_size", type=int, help="px of the network's input")
    add("--crop_scale", type=float, help="side of the network's view over the hand's box, at most 2")
    add("--crop", choices=("joints", "image"), help="FreiHAND: crop by the joints, or the whole image")
    add("--cache", help="folder for a memory-mapped crop cache (built on first use)")
    add(
        "--resident", default="auto", choices=("auto", "yes", "no"),
        help="keep a split's crops in the GPU's memory while training (auto: if they fit and --cache is given)",
    )  # fmt: skip
    add("--num_workers", type=int, default=0, help="loader processes (0: none)")
    add("--skip_bad", action="store_true", help="skip and count unreadable files instead of stopping")
    add("--allow_missing_subjects", action="store_true", help="take a root with only some subjects")
    add("--max_images", type=int, help="use so many images, spread evenly over the split (0: all)")
    add = parser.add_argument_group("network").add_argument
    add("--model", default="mano_baseline", help="its name in src/models (an unknown one lists all)")
    add("--recipe", default="fair", choices=tuple(RECIPES), help="see options/recipes.py")
    add("--backbone", help="torchvision name, e.g. resnet18, resnet50, regnet_x_400mf; any capitals")
    add("--backbone_weights", help="file with ImageNet weights of that backbone (nothing is downloaded)")
    add("--crop_geometry", choices=("yes", "no"), help="feed the crop's place in the camera's view")
    add(
        "--confidence",
        default="within_person",
        choices=("within_person", "pairs"),
        help="mano_baseline_conf, fair recipe: rank images of one person, or as the paper any pair (linear branch)",
    )
    add("--blind_decoder", action="store_true", help="ablation: betas reach the hand layer only")
    add("--hierarchy", help="mesh levels: transform.pkl of a CMR checkout, if checkpoints depend on it")
    add("--checkpoint", help="trained network for eval, predict (a .pt or .safetensors)")
    add = parser.add_argument_group("training").add_argument
    add("--exp_name", help="name of the run's folder (default: the model's name)")
    add("--out_dir", default="out", help="runs go to OUT_DIR/<dataset>/<exp_name>/")
    add("--epochs", type=int)
    add("--batch_size", type=int)
    add("--lr", type=float)
    add("--body_lr", type=float, help="of what is trained already: backbone, heat maps, feature (--lr)")
    add("--weight_decay", type=float)
    add("--optimizer", choices=("adam", "adamw"))
    add("--schedule", choices=("cosine", "multistep", "constant"))
    add("--augment", choices=("fair", "paper", "none"))
    add("--rotation_deg", type=float, help="largest in-plane rotation of the augmentation")
    add("--seed", type=int, default=0)
    add("--amp", default="auto", choices=("auto", "bf16", "fp16", "no"), help="auto: bf16, but on CPUs without AVX-512")
    add("--channels_last", default="yes", choices=("yes", "no"))
    add(
        "--cuda_graph", default="auto", choices=("auto", "no"), help="record a GPU's step once, replay it (one process)"
    )
    add("--compile", action="store_true", help="torch.compile the network (a minute; pays on long runs)")
    add("--init_parts", nargs="+", metavar="MODULE", help="of --init_from, take only these modules")
    add("--init_from", help="start from another network's weights (those that it shares)")
    add(
        "--resume", nargs="?", const="auto", help="go on from last.pt of the run, or from a file; eval: as --checkpoint"
    )
    add(
        "--override", action="store_true", help="of --resume: take this command's settings where the saved run's differ"
    )
    add(
        "--overwrite",
        action="store_true",
        help="start anew; what a run of that name left moves to overwritten/ in its folder",
    )
    add("--save_minutes", type=float, default=5.0, help="also save within an epoch, this often")
    add("--val_images", type=int, default=2000, help="images for validation after each epoch")
    add = parser.add_argument_group("shape").add_argument
    add("--shape", choices=("predicted", "gt", "mean", "calibrated"), help="default: gt for identity")
    add("--identity", "--identities", help="identity file, or a folder with identity_subject-NN.json (calibrated)")
    add("--predictions", help="npz to write (predict; eval of a network), or to evaluate instead of a network (eval)")
    add("--results", help="JSON file for the metrics (eval)")
    add(
        "--submit",
        choices=(*SERVERS, "shape_track"),
        help="eval: also write the result file of that server; personalise: shape_track, identities for "
        "hand_tracking_toolkit",
    )
    add = parser.add_argument_group("demo").add_argument
    add("--output", default="out/demo", help="folder for everything the demo leaves; export: FILE.onnx")
    add("--weights", default=str(ROOT / "weights"), help="folder with the shipped .safetensors")
    add(
        "--method",
        default="multi_frame",
        choices=("mean", "top_k", "confidence", "multi_frame"),
        type=lambda text: "multi_frame" if text == "joint" else text,  # which it was called before
        help="calibration: averages of predicted shapes, or one shape solved for all images (also called joint)",
    )
    add("--solver", default="lm", choices=("lm", "adam"), help="of the test-time fitting")
    add("--calibration_images", type=int, default=20, help="unlabelled images a subject")
    add("--demo_sequences", type=int, default=11, help="synthetic sequences a subject")
    add("--demo_frames", type=int, default=3, help="frames a sequence, each from eight cameras")
    add("--pictures", type=int, default=6, help="images to draw")
    add_image_arguments(parser)
    add = parser.add_argument_group("export").add_argument
    add("--without_layer", action="store_true", help="the network alone, without the hand layer")
    add_estimate_arguments(parser)
    add = parser.add_argument_group("personalise, and videos, without --identity").add_argument
    add_cue_arguments(add, "wrist to middle fingertip of the stretched hand")
    add(
        "--fps",
        type=float,
        help="personalise: the pictures are frames of a video, at so many a second, numbered at the end of their "
        "names: each hand is followed, and its frames are fitted together, smoothly",
    )
    return parser
