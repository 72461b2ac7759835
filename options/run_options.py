"""Options of ``run.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from options.command_line import ROOT, CommandParser
from options.estimate_options import CUE_OPTIONS, ESTIMATE_OPTIONS, add_estimate_arguments
from options.image_options import add_image_arguments
from options.recipes import RECIPES

#: Server of official results -> data set whose result file it takes.
SERVERS = {"freihand": "freihand", "ho3d": "ho3d", "dexycb": "dex_ycb"}
PHASES = ("train", "eval", "predict", "demo", "export", "personalise")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--mano_dir`` and ``--threads``, shared by every command."""
    group = parser.add_argument_group("machine and hand model")
    group.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="auto: a GPU if there is one")
    group.add_argument("--threads", type=int, help="CPU threads for torch (default: torch's own choice)")
    group.add_argument(
        "--mano_dir", help="folder with MANO_RIGHT.pkl and MANO_LEFT.pkl (default: $MANO_DIR, template/, the stand-in)"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the images come from and how they are cropped."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="dex_ycb", help="name of the data set, or shards (default: dex_ycb)")
    group.add_argument("--data_root", help="the data set's folder (default: data/synthetic_<dataset>)")
    group.add_argument("--setup", help="split family, e.g. DexYCB's s0 to s3 (default: s1, or s0 where there is no s1)")
    group.add_argument("--split", help="full split name, e.g. s1_test (default: what the phase needs)")
    group.add_argument("--side", default="right", choices=("right", "left", "both"), help="left hands are mirrored")
    group.add_argument("--paper_filter", action="store_true", help="the paper's choice (docs/facts.md 1.8)")
    group.add_argument("--crop_size", type=int, help="px of the stored crop (twice the hand's box)")
    group.add_argument("--input_size", type=int, help="px of the network's input")
    group.add_argument("--crop_scale", type=float, help="side of the network's view over the hand's box, at most 2")
    group.add_argument("--crop", choices=("joints", "image"), help="FreiHAND: crop by the joints, or the whole image")
    group.add_argument("--cache", help="folder for a memory-mapped crop cache (built on first use)")
    group.add_argument(
        "--resident", default="auto", choices=("auto", "yes", "no"),
        help="keep a split's crops in the GPU's memory while training (auto: if they fit and --cache is given)",
    )  # fmt: skip
    group.add_argument("--num_workers", type=int, default=0, help="loader processes (0: none)")
    group.add_argument("--skip_bad", action="store_true", help="skip and count unreadable files instead of stopping")
    group.add_argument("--allow_missing_subjects", action="store_true", help="take a root with only some subjects")
    group.add_argument("--max_images", type=int, help="use so many images, spread evenly over the split (0: all)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network."""
    group = parser.add_argument_group("network")
    group.add_argument("--model", default="mano_baseline", help="its name in src/models (an unknown one lists all)")
    group.add_argument("--recipe", default="fair", choices=tuple(RECIPES), help="see options/recipes.py")
    group.add_argument("--backbone", help="torchvision name, e.g. resnet18, resnet50, regnet_x_400mf; any capitals")
    group.add_argument("--backbone_weights", help="file with ImageNet weights of that backbone (nothing is downloaded)")
    group.add_argument("--crop_geometry", choices=("yes", "no"), help="feed the crop's place in the camera's view")
    group.add_argument(
        "--confidence",
        default="within_person",
        choices=("within_person", "pairs"),
        help="mano_baseline_conf, fair recipe: rank images of one person, or as the paper any pair (linear branch)",
    )
    group.add_argument("--blind_decoder", action="store_true", help="ablation: betas reach the hand layer only")
    group.add_argument("--hierarchy", help="mesh levels: transform.pkl of a CMR checkout, if checkpoints depend on it")
    group.add_argument("--keypoint_views", type=int, help="pose_2d: average over so many moved views, 1 to 5")
    group.add_argument("--checkpoint", help="trained network for eval, predict (a .pt or .safetensors)")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """How to train."""
    group = parser.add_argument_group("training")
    group.add_argument("--exp_name", help="name of the run's folder (default: the model's name)")
    group.add_argument("--out_dir", default="out", help="runs go to OUT_DIR/<dataset>/<exp_name>/")
    group.add_argument("--epochs", type=int)
    group.add_argument("--batch_size", type=int)
    group.add_argument("--lr", type=float)
    group.add_argument("--body_lr", type=float, help="of what is trained already: backbone, heat maps, feature (--lr)")
    group.add_argument("--weight_decay", type=float)
    group.add_argument("--optimizer", choices=("adam", "adamw"))
    group.add_argument("--schedule", choices=("cosine", "multistep", "constant"))
    group.add_argument("--augment", choices=("fair", "paper", "none"))
    group.add_argument("--rotation_deg", type=float, help="largest in-plane rotation of the augmentation")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--amp", default="auto", choices=("auto", "bf16", "fp16", "no"), help="auto: bf16")
    group.add_argument("--channels_last", default="yes", choices=("yes", "no"))
    group.add_argument(
        "--cuda_graph", default="auto", choices=("auto", "no"), help="record a GPU's step once, replay it (one process)"
    )
    group.add_argument("--compile", action="store_true", help="torch.compile the network (a minute; pays on long runs)")
    group.add_argument("--init_parts", nargs="+", metavar="MODULE", help="of --init_from, take only these modules")
    group.add_argument("--init_from", help="start from another network's weights (those that it shares)")
    group.add_argument(
        "--resume", nargs="?", const="auto", help="go on from last.pt of the run, or from a file; eval: as --checkpoint"
    )
    group.add_argument(
        "--override", action="store_true", help="of --resume: take this command's settings where the saved run's differ"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew; what a run of that name left moves to overwritten/ in its folder",
    )
    group.add_argument("--save_minutes", type=float, default=5.0, help="also save within an epoch, this often")
    group.add_argument("--val_images", type=int, default=2000, help="images for validation after each epoch")


def add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shape an identity-aware network is told."""
    group = parser.add_argument_group("shape")
    group.add_argument("--shape", choices=("predicted", "gt", "mean", "calibrated"), help="default: gt for identity")
    group.add_argument(
        "--identity", "--identities", help="identity file, or a folder with identity_subject-NN.json (calibrated)"
    )
    group.add_argument("--predictions", help="npz to write (predict) or to evaluate instead of a network (eval)")
    group.add_argument("--results", help="JSON file for the metrics (eval)")
    group.add_argument(
        "--submit",
        choices=(*SERVERS, "shape_track"),
        help="eval: also write the result file of that server; personalise: shape_track, identities for "
        "hand_tracking_toolkit",
    )


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """What the demo does."""
    group = parser.add_argument_group("demo")
    group.add_argument("--output", default="out/demo", help="folder for everything the demo leaves; export: FILE.onnx")
    group.add_argument("--weights", default=str(ROOT / "weights"), help="folder with the shipped .safetensors")
    group.add_argument("--method", default="joint", choices=("mean", "top_k", "confidence", "joint"))
    group.add_argument("--solver", default="lm", choices=("lm", "adam"), help="of the test-time fitting")
    group.add_argument("--calibration_images", type=int, default=20, help="unlabelled images a subject")
    group.add_argument("--demo_sequences", type=int, default=11, help="synthetic sequences a subject")
    group.add_argument("--demo_frames", type=int, default=3, help="frames a sequence, each from eight cameras")
    group.add_argument("--pictures", type=int, default=6, help="images to draw")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``--phase export`` writes to ``--output``; weights from --checkpoint or --resume, else from --weights."""
    group = parser.add_argument_group("export")
    group.add_argument("--without_layer", action="store_true", help="the network alone, without the hand layer")


_EVERYWHERE = "device mano_dir threads"
_DATA = "dataset data_root setup split side paper_filter crop_size crop cache skip_bad allow_missing_subjects"
_NETWORK = "model backbone hierarchy keypoint_views checkpoint resume exp_name out_dir"
_SAMPLES = "batch_size num_workers max_images"
_OWN_IMAGES = (
    "model backbone hierarchy checkpoint resume shape identity weights output K fov hand bbox keypoints landmarker "
    "one_person camera camera_name world_from_camera world_axes"
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
    "personalise": f"{ESTIMATE_OPTIONS} {CUE_OPTIONS} identity output submit",
}


#: What --phase eval needs to predict, and does not use where predictions are given.
_OF_PREDICTING = tuple(
    f"--{name}"
    for name in "checkpoint resume backbone hierarchy keypoint_views shape batch_size num_workers max_images".split()
)
_NO_NAMES = ("", ".", "..")


class _Parser(CommandParser):
    """Fills in what depends on the data set, and refuses options that the phase does not use."""

    def check(self, args: argparse.Namespace) -> None:
        use = args.phase
        if use == "demo":
            use += " --images" if args.images else " --video" if args.video else ""
        used = {f"--{name}" for name in f"phase debug {_EVERYWHERE} {USED_OPTIONS[use]}".split()}
        self.refuse_unused(args, used, f"--phase {use}")
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
            args.dataset = self._dataset_of_shards(args.data_root)
        is_fair, predicts = args.recipe == "fair", args.phase != "eval" or args.predictions is None
        for option, is_used, otherwise in (
            ("--override", args.resume, "a command without --resume"),
            ("--init_parts", args.init_from, "a command without --init_from"),
            ("--crop", args.dataset == "freihand", f"--dataset {args.dataset}"),
            ("--confidence", args.model == "mano_baseline_conf", f"--model {args.model}"),
            ("--blind_decoder", args.model.startswith("mano"), f"--model {args.model}"),
            ("--confidence", is_fair, f"--recipe {args.recipe}"),
            ("--blind_decoder", is_fair, f"--recipe {args.recipe}"),
            ("--crop_geometry", is_fair, f"--recipe {args.recipe}"),
            ("--crop_geometry", args.model.startswith(("mano", "cmr", "metro")), f"--model {args.model}"),
            ("--weights", args.phase != "export" or not (args.checkpoint or args.resume), "export of a --checkpoint"),
            *((option, predicts, "--phase eval of --predictions") for option in _OF_PREDICTING),
        ):
            if not is_used:
                self.refuse_unused(args, args.given_options - {option}, otherwise)
        args.setup = args.setup or ("s1" if args.dataset == "dex_ycb" else "s0")
        args.data_root = args.data_root or f"data/synthetic_{args.dataset}"

    def _dataset_of_shards(self, root: str | None) -> str:
        from datasets.shards.dataset import dataset_of

        if root is None:
            self.error("--dataset shards needs --data_root, the folder that python -m datasets.write_shards wrote")
        try:
            return dataset_of(root)
        except (OSError, ValueError) as error:
            self.error(str(error))


def get_args_parser() -> argparse.ArgumentParser:
    """Parser of ``run.py``."""
    parser = _Parser("Train, evaluate, predict and demonstrate hand networks.")
    parser.add_argument("--phase", required=True, choices=PHASES)
    add_device_arguments(parser)
    add_data_arguments(parser)
    add_model_arguments(parser)
    add_train_arguments(parser)
    add_shape_arguments(parser)
    add_demo_arguments(parser)
    add_image_arguments(parser)
    add_export_arguments(parser)
    add_estimate_arguments(parser)
    cues = parser.add_argument_group("personalise, and videos, without --identity")
    cues.add_argument("--hand_length_mm", type=float, help="ruler: wrist to middle fingertip of the stretched hand")
    cues.add_argument("--hand_length_std_mm", type=float, default=3.0)
    cues.add_argument("--accept_conflict", action="store_true", help="go on where images or lengths contradict")
    return parser
