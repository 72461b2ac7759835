"""Commands: options without effect, errors in one line or with a traceback, scripts from anywhere, a broken .venv."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import options.calibrate
import options.fit
import options.run_options
from options.command_line import describe_error, run_command
from options.run_options import USED_OPTIONS, get_args_parser

ROOT = Path(__file__).parents[1]
PARSERS = {
    "run.py": options.run_options.get_args_parser,
    "calibrate_from_shape_params.py": options.calibrate.get_args_parser,
    "optimization_dex_ycb.py": options.fit.get_args_parser,
}


# --- options without effect ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "refused"),
    [
        ("run.py", "--phase eval --checkpoint c --epochs 3", "--phase eval does not use --epochs"),
        ("run.py", "--phase train --checkpoint c", "--phase train does not use --checkpoint"),
        ("run.py", "--phase train --submit ho3d --seed 0 --shape gt", "does not use --shape, --submit"),
        ("run.py", "--phase demo --identity i.json", "--phase demo does not use --identity"),
        ("run.py", "--phase demo --images d --pictures 3", "--phase demo --images does not use --pictures"),
        ("run.py", "--phase demo --images d --glb animated", "--phase demo --images does not use --glb"),
        ("run.py", "--phase demo --images d --bvh", "--phase demo --images does not use --bvh"),
        ("run.py", "--phase eval --glb animated --bvh", "--phase eval does not use --bvh, --glb"),
        ("run.py", "--phase demo --glb animated", "--phase demo does not use --glb"),
        ("run.py", "--phase demo --video v --joint_names webxr", "--joint_names has no effect without --glb or --bvh"),
        ("run.py", "--phase demo --video v --camera_name cam0", "--camera_name has no effect without --camera"),
        ("run.py", "--phase eval --camera c.yaml", "--phase eval does not use --camera"),
        ("run.py", "--phase predict --checkpoint c --amp auto", "does not use --amp"),  # even if it is the default
        ("run.py", "--phase export --batch_size 3", "--phase export does not use --batch_size"),
        ("run.py", "--phase export --device cuda", "--phase export does not use --device"),
        ("run.py", "--phase export --hierarchy h", "--model mano_baseline does not use --hierarchy"),
        ("run.py", "--phase export --dataset freihand", "export of mano_baseline does not use --dataset"),
        ("run.py", "--phase export --resume r.pt --exp_name e", "without a bare --resume does not use --exp_name"),
        ("run.py", "--phase export --checkpoint c --out_dir o", "without a bare --resume does not use --out_dir"),
        ("run.py", "--phase demo --images d --checkpoint c --resume r", "--checkpoint and --resume both name"),
        ("calibrate_from_shape_params.py", "--images d --output o --data_root r", "--images does not use --data_root"),
        ("calibrate_from_shape_params.py", "--predictions p --output o --fov 60", "--predictions does not use --fov"),
        ("calibrate_from_shape_params.py", "--predictions p --output o --top_k 5", "multi_frame does not use --top_k"),
        ("optimization_dex_ycb.py", "--predictions p --output o --use_confidence", "--solver lm does not use"),
        ("optimization_dex_ycb.py", "--predictions p --output o --solver adam --video", "--solver adam does not use"),
        ("optimization_dex_ycb.py", "--predictions p --output o --solver adam --prior q", "adam does not use --prior"),
        (
            "optimization_dex_ycb.py",
            "--predictions p --output o --video --max_steps 9 --chunk 8",
            "--video does not use --chunk, --max_steps",
        ),
        (
            "optimization_dex_ycb.py",
            "--predictions p --output o --solver adam --min_confidence 0.5",
            "adam without --use_confidence does not use --min_confidence",
        ),
        ("run.py", "--phase eval --submit shape_track", "shape_track in --phase eval does not use --submit"),
        ("run.py", "--phase train --hierarchy h", "--model mano_baseline does not use --hierarchy"),
        ("run.py", "--phase train --override", "a command without --resume does not use --override"),
        ("run.py", "--phase train --crop image", "--dataset dex_ycb does not use --crop"),
        ("run.py", "--phase train --confidence pairs", "--model mano_baseline does not use --confidence"),
        ("run.py", "--phase train --epoch 3", "unrecognized arguments: --epoch"),  # no guessing
    ],
)
def test_an_option_without_effect_is_an_error(
    capsys: pytest.CaptureFixture, command: str, words: str, refused: str
) -> None:
    with pytest.raises(SystemExit) as end:
        PARSERS[command]().parse_args(words.split())
    said = capsys.readouterr().err
    assert end.value.code == 2 and refused in said and said.count("\n") == 1


def test_the_table_names_options_that_there_are() -> None:
    known = set(vars(get_args_parser().parse_args(["--phase", "train"])))
    assert {name for use in USED_OPTIONS.values() for name in use.split()} <= known


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run.py", "--phase export --model metro --dataset freihand --checkpoint c"),
        ("run.py", "--phase export --dataset freihand --resume --exp_name e --out_dir o"),
        ("run.py", "--phase train --split all --setup s2"),  # validation is of the setup
        ("run.py", "--phase eval --predictions p --submit dexycb --exp_name e --out_dir o"),
        ("calibrate_from_shape_params.py", "--estimates e --format hamer --method mean --accept_conflict"),
    ],
)
def test_an_option_with_an_effect_is_taken(command: str, words: str) -> None:
    PARSERS[command]().parse_args(words.split())


def test_lists_and_defaults_are_as_without_the_check() -> None:
    parse = options.calibrate.get_args_parser().parse_args
    words = ["--predictions", "p", "--output", "o"]
    assert parse(words).known_bone == [] and parse(words).num_images is None
    twice = ["--known_bone", "index=72", "--known_bone", "thumb=60"]
    assert parse([*words, *twice]).known_bone == ["index=72", "thumb=60"]
    assert parse(words).known_bone == []


# --- errors --------------------------------------------------------------------------------------


def fail(args: object) -> None:
    import torch

    torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--phase", "demo"])
    assert run_command(get_args_parser(), fail) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: RuntimeError: mat1 and mat2") and "--debug shows the traceback" in said
    monkeypatch.setattr(sys, "argv", ["run.py", "--phase", "demo", "--debug"])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_command(get_args_parser(), fail)


@pytest.mark.parametrize(
    "command",
    [
        "run.py --phase predict --checkpoint nothing.pt --predictions p.npz",
        "calibrate_from_shape_params.py --predictions nothing.npz --output o",
        "optimization_dex_ycb.py --predictions nothing.npz --output o",
    ],
)
def test_known_errors_are_one_line_and_debug_shows_where(command: str, tmp_path: Path) -> None:
    name, *words = command.split()
    lines = [[sys.executable, str(ROOT / name), *words, *extra] for extra in ((), ("--debug",))]
    plain, debug = (subprocess.run(line, capture_output=True, text=True, cwd=tmp_path) for line in lines)
    assert plain.returncode == 2 and plain.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in plain.stderr and "--debug" not in plain.stderr
    assert "Traceback" in debug.stderr and "FileNotFoundError" in debug.stderr


def test_a_notebook_s_matplotlib_backend_stops_nothing(tmp_path: Path) -> None:
    """Colab sets one that a fresh environment does not have; matplotlib refuses to be imported then."""
    command = [sys.executable, str(ROOT / "run.py"), "--phase", "demo", "--images", "nothing_here"]
    environment = os.environ | {"MPLBACKEND": "no_such_backend"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2 and "nothing_here" in done.stderr and "backend" not in done.stderr


def test_raised_on_purpose_or_not() -> None:
    for work, expected in (
        (lambda: PARSERS["none"], "KeyError: 'none' (perhaps"),
        (lambda: int("x"), "ValueError: invalid literal"),
        (lambda: open("/nothing/here"), "[Errno 2] No such file"),
    ):
        with pytest.raises(Exception) as raised:
            work()
        assert describe_error(raised.value).startswith(expected)


# --- scripts -------------------------------------------------------------------------------------

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.sh") if path.name != "make_env.sh")
ARGUMENTS = {"calibrate_photos.sh": ["photos"]}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The scripts, and a Python that only notes where and how it was called."""
    house = tmp_path / "a house"
    shutil.copytree(ROOT / "scripts", house / "scripts")
    shutil.copy(ROOT / "requirements.txt", house)
    python = house / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    # One line is one write: scripts run two of their steps side by side.
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$PWD" "$@" "end of call" >> "$LOG"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "requirements.txt", house / ".venv/.requirements")
    return house


def calls(house: Path, script: str, cwd: Path, *words: str) -> list[list[str]]:
    """What a script called from ``cwd`` through a symbolic link had Python do: folder and words of each call."""
    link = cwd / "linked.sh"
    link.symlink_to(house / "scripts" / script)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DATA_ROOT", "PYTHONPATH", "PYTHON")
    }
    log = cwd / "log"
    done = subprocess.run(
        [str(link), *words], cwd=cwd, env=environment | {"LOG": str(log)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [call.split("\0") for call in log.read_text().split("\0end of call\0") if call]


def lines_of(log: list[list[str]]) -> list[tuple[str, list[str]]]:
    return [(Path(word).name, words[number + 1 :]) for words in log for number, word in enumerate(words)
            if Path(word).name in PARSERS]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_work_from_anywhere_and_their_commands_parse(script: str, house: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    log = calls(house, script, cwd, *ARGUMENTS.get(script, []))
    assert log and {Path(words[0]) for words in log} == {house if script == "test.sh" else cwd}
    for name, words in lines_of(log):
        PARSERS[name]().parse_args(words)
    for words in log:
        for word in words[1:]:
            if re.match(r"(out|data|weights|docs|scripts)(/|$)", word):
                pytest.fail(f"{script} names {word}, which is in whatever folder it is called from")


def test_a_user_s_relative_paths_are_of_the_user_s_folder(house: Path, tmp_path: Path) -> None:
    more = ("--batch_size", "8", "--max_images", "9", "--checkpoint", "mine.pt", "--submit", "dexycb", "--side", "both")
    log = calls(house, "eval_calibrated.sh", tmp_path, "--identity", "mine.json", *more)
    (args,) = (PARSERS[name]().parse_args(words) for name, words in lines_of(log))
    assert args.identity == "mine.json" and args.checkpoint == "mine.pt" and Path(log[0][0]) == tmp_path
    assert args.predictions == str(house / "out/dex_ycb/predictions/calibrated.npz")


@pytest.mark.parametrize("words", [(), ("--solver", "lm"), ("--solver", "adam"), ("--solver=adam",)], ids=str)
def test_the_fit_scripts_take_either_solver(house: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (name, given), *_ = lines_of(calls(house, "fit_baseline.sh", tmp_path, *words))
    args = PARSERS[name]().parse_args(given)
    assert args.prior == (None if args.solver == "adam" else str(house / "weights/prior.npz"))


@pytest.mark.parametrize("words", [("--output", "some where"), ("--output=some where",)], ids=str)
def test_every_step_of_the_estimator_demo_works_in_the_output_given(
    house: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    log = calls(house, "demo_estimators.sh", tmp_path, *words)
    assert len(log) == 6 and all("--output" in call for call in log)
    for call in log:
        assert call[call.index("--output") + 1].startswith("some where")
        assert not any("out/demo_estimators" in word for word in call)


def test_a_script_of_hours_does_not_begin_when_it_is_asked_for_help(house: Path) -> None:
    words = [str(house / "scripts/train_shipped_weights.sh"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=house, env=os.environ | {"CALLS": "none"})
    assert done.returncode == 2 and "takes no options" in done.stderr and not (house / "data").exists()


def test_a_half_made_environment_is_made_again(tmp_path: Path) -> None:
    """``python -m venv`` that failed leaves a Python without pip."""
    house = tmp_path / "house"
    shutil.copytree(ROOT / "scripts", house / "scripts")
    (house / "requirements.txt").write_text("")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(house / ".venv")], check=True)
    command = f'source "{house}/scripts/make_env.sh"; "$PYTHON" -m pip --version'
    environment = os.environ | {"PYTHON3": sys.executable}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and str(house) in done.stdout, done.stderr
    again = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "Making .venv" in done.stderr and "Making .venv" not in again.stderr


# --- documented commands -------------------------------------------------------------------------


def documented() -> list[tuple[str, str]]:
    found = []
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
    for path in (*pages, *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name in PARSERS:
            for match in re.finditer(rf"{re.escape(name)}((?: +[^\s`#|]+)* ?)(?=[`#\n])", text):
                found.append((name, match[1]))
    return [(name, words) for name, words in found if "--" in words and "..." not in words]


def test_a_calibration_s_methods_have_one_name_everywhere() -> None:
    for name, words in (("run.py", ["--phase", "demo"]), ("calibrate_from_shape_params.py", [])):
        parse = PARSERS[name]().parse_args
        assert {parse([*words, "--method", said]).method for said in ("joint", "multi_frame")} == {"multi_frame"}


def test_documented_commands_are_accepted() -> None:
    commands = documented()
    assert len(commands) >= 8
    for name, words in commands:
        given = shlex.split(words)
        required = {"run.py": ["--phase"], "optimization_dex_ycb.py": ["--predictions", "--output"]}.get(name, [])
        if given[-1] == "--submit":  # a sentence about the option
            continue
        for option in required:
            if option not in given:
                given += [option, "eval" if option == "--phase" else "x"]
        PARSERS[name]().parse_args(given)  # exits if an option is unknown or has no effect


def test_a_runs_name_is_no_path(capsys):
    for name in ("../../evil", "a/b", "", "..", "/tmp/x"):
        with pytest.raises(SystemExit):
            get_args_parser().parse_args(["--phase", "train", "--exp_name", name])
        assert "--exp_name is" in capsys.readouterr().err
    assert get_args_parser().parse_args(["--phase", "train", "--exp_name", "run_1"]).exp_name == "run_1"


@pytest.mark.parametrize(
    "words",
    [
        "save_minutes nan", "rotation_deg inf", "lr nan", "lr -1", "max_images -1", "batch_size 0", "num_workers -1",
        "weight_decay -1", "seed -1", "seed 99999999999999999999", "crop_scale 0", "crop_scale 3", "crop_size 1",
        "input_size 100000", "save_minutes -1", "rotation_deg -400", "threads 9999",
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused_before_a_run_is_deleted(words, tmp_path, capsys):
    saved = tmp_path / "dex_ycb" / "run" / "checkpoints" / "best.pt"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"an earlier run")
    name, value = words.split()
    command = ["--phase", "train", "--out_dir", str(tmp_path), "--exp_name", "run", "--overwrite", f"--{name}={value}"]
    with pytest.raises(SystemExit) as stopped:
        get_args_parser().parse_args(command)
    assert stopped.value.code == 2 and f"--{name} is" in capsys.readouterr().err
    assert saved.read_bytes() == b"an earlier run"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("calibrate_from_shape_params", "min_confidence 2"), ("calibrate_from_shape_params", "cameras 0"),
        ("calibrate_from_shape_params", "depth_mean 850"), ("calibrate_from_shape_params", "num_images 0"),
        ("calibrate_from_shape_params", "seed -1"), ("calibrate_from_shape_params", "hand_length_mm nan"),
        ("optimization_dex_ycb", "max_steps -1"), ("optimization_dex_ycb", "threads 0"),
        ("optimization_dex_ycb", "chunk 0"), ("optimization_dex_ycb", "min_confidence nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused_by_the_other_commands(command, words, capsys):
    name, value = words.split()
    with pytest.raises(SystemExit) as stopped:
        PARSERS[f"{command}.py"]().parse_args([f"--{name}={value}"])
    assert stopped.value.code == 2 and f"--{name} is {float(value):g}" in capsys.readouterr().err.replace(".0;", ";")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("datasets.write_shards", "--shard_size=-1"), ("datasets.write_shards", "--crop_size=-5"),
        ("datasets.write_shards", "--quality=500"), ("datasets.write_shards", "--workers=0"),
        ("datasets.write_shards", "--rows=5"), ("datasets.write_shards", "--rows=x:2"),
        ("datasets.synthetic.__main__", "--root=r --subjects=x"), ("datasets.synthetic.samples", "--num_frames=0"),
        ("datasets.synthetic.world.writer", "--root=r --num_images=0"), ("datasets.synthetic.samples", "--count=-1"),
        ("datasets.synthetic.world.bank", "--root=r --people=0"), ("src.engine.world.train", "--lr=nan"),
        ("datasets.synthetic.world.bank", "--root=r --first=-5"), ("src.engine.world.train", "--minutes=0"),
        ("src.personalization.landmarks.learn", "--hand_length_mm=-5"),
        ("src.personalization.landmarks.learn", "--flat=foo"),
    ],
)  # fmt: skip
def test_commands_with_modules_of_their_own_refuse_the_same(command, words, capsys):
    parser = importlib.import_module(command).get_args_parser()
    for action in parser._actions:
        action.required = False
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words.split())
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and words.split()[-1].split("=")[0] in said and said.count("\n") == 1


def test_every_command_of_the_package_tells_errors_in_one_line() -> None:
    for folder in ("src", "datasets", "conv"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "argparse.ArgumentParser(" not in text, path
            assert "__main__" not in text or "run_command(" in text or path.stem == "step_log", path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("optimization_dex_ycb", "--split s1_test"), ("optimization_dex_ycb", "--depth_std 0.1"),
        ("optimization_dex_ycb", "--cache c"), ("optimization_dex_ycb", "--identity i.json"),
        ("optimization_dex_ycb", "--include_calibration_images"),
        ("calibrate_from_shape_params", "--depth_std 0.1"), ("calibrate_from_shape_params", "--hand_length_std_mm 2"),
        ("calibrate_from_shape_params", "--wrist_depth_std_mm 5"), ("calibrate_from_shape_params", "--data_root d"),
        ("run", "--checkpoint c.pt --phase eval --predictions p.json"),
        ("run", "--max_images 5 --phase eval --predictions p.npz"),
        ("run", "--weights w --phase export --checkpoint c.pt"),
        ("run", "--crop_geometry yes --phase train --recipe paper"),
    ],
)  # fmt: skip
def test_an_option_without_what_it_belongs_to_is_an_error(command, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        PARSERS[f"{command}.py"]().parse_args(words.split())
    said = capsys.readouterr().err
    assert (
        stopped.value.code == 2
        and words.split()[0] in said
        and ("has no effect without" in said or "does not use" in said)
    )


@pytest.mark.parametrize(
    "words",
    [
        "run.py --phase predict --checkpoint nothing.pt --predictions",
        "src.personalization.calibration.measure_population --data_root nothing --output",
        "src.personalization.landmarks.learn --detections nothing --output",
        "src.engine.estimates.learn_landmarks --estimates nothing --format hamer --output",
        "src.engine.estimates.measure_trust --estimates nothing --format hamer --labels nothing --output",
        "conv.hierarchy --build --template nothing --out",
        "run.py --phase eval --predictions nothing.npz --results",
        "optimization_dex_ycb.py --predictions nothing.npz --output",
        "optimization_dex_ycb.py --predictions nothing.npz --output o.npz --results",
    ],
)
def test_an_output_that_cannot_be_written_is_an_error_before_the_work(words, tmp_path, monkeypatch, capsys):
    """Not after hours of it: a folder, or a place below a file. The input is not looked at yet."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    command, *given = words.split()
    for output, said in ((tmp_path, "is a folder"), (tmp_path / "file/x.npz", "cannot be written")):
        monkeypatch.setattr("sys.argv", [command, *given, str(output)])
        with pytest.raises(SystemExit, match="2"):
            if command.endswith(".py"):
                sys.exit(importlib.import_module(command.removesuffix(".py")).main())
            sys.modules.pop(command, None)
            runpy.run_module(command, run_name="__main__")
        error = capsys.readouterr().err
        assert said in error and given[-1] in error and "nothing" not in error
    assert (tmp_path / "file").read_text() == "mine"


def test_threads_that_wait_sleep_and_torch_comes_after_that_is_said() -> None:
    script = (
        "import sys, os, run, calibrate_from_shape_params, optimization_dex_ycb\n"
        "from options.command_line import CommandParser, run_command\n"
        "sys.argv = ['x']\n"
        "run_command(CommandParser('x'), lambda args: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "False PASSIVE\n"
