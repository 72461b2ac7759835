"""A run's folder: who owns it, what a resume may change, and that its records and its log tell the truth."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_training
import torch

from options.recipes import apply_recipe
from src.engine import run_folder
from src.engine.checkpoint import CheckpointError
from src.engine.run_folder import RunFolder, RunFolderError, versions
from src.engine.ship import history, ship
from src.engine.train import NonFiniteLossError, Trainer, train
from tests.interrupting import interrupt
from utils import file_lock
from utils.file_lock import LockedError

CODE = Path(__file__).parents[1]


def options(root: Path, out: Path, *extra: str) -> object:
    return test_training.options(root, out, "--exp_name", "run", "--epochs", "1", "--max_images", "24", *extra)


def test_fewer_images_than_a_batch_are_an_error_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    for extra in ((), ("--resident", "yes"), ("--resume",)):
        with pytest.raises(ValueError, match="24 samples give no batch of 32, so nothing would be trained"):
            train(options(root, tmp_path, "--batch_size", "32", *extra))
    with pytest.raises(SystemExit):
        options(root, tmp_path, "--epochs", "0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (("--batch_size", "4"), "--batch_size was 8, is 4"),
        (("--lr", "0.5"), r"--lr was 0.001, is 0.5"),
        (("--crop_scale", "1.5"), r"--crop_scale was 2.0, is 1.5"),
        (("--input_size", "96"), "--input_size was 64, is 96"),
        (("--side", "both"), "--side was right, is both"),
        (("--augment", "none"), "--augment was fair, is none"),
        (("--rotation_deg", "9"), "--rotation_deg was None, is 9"),
        (("--max_images", "16"), "--max_images was 24, is 16; training samples was 24, is 16"),
    ],
)
def test_resume_names_a_setting_that_differs(
    root: Path, begun: Path, tmp_path: Path, extra: tuple[str, ...], named: str
) -> None:
    shutil.copytree(begun, tmp_path / "out")
    folder = tmp_path / "out/dex_ycb/run"
    before = (folder / "args.json").read_text()
    with pytest.raises(CheckpointError, match=f"not the same run: {named}.*--override"):
        train(options(root, tmp_path / "out", "--resume", *extra))
    assert (folder / "args.json").read_text() == before and not (folder / "args.1.json").exists()


@pytest.fixture(scope="module")
def begun(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three batches, stopped after two."""
    out = tmp_path_factory.mktemp("begun")
    interrupt(Trainer(apply_recipe(options(root, out))), 2)
    return out


def test_override_is_recorded_beside_the_old_record_and_shipped(root: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "out")
    folder = tmp_path / "out/dex_ycb/run"
    before = (folder / "args.json").read_text()
    trainer = Trainer(apply_recipe(options(root, tmp_path / "out", "--resume", "--override", "--batch_size", "4")))
    taken, take = [], trainer._step
    trainer._step = lambda raw: taken.append(raw["image_id"].tolist()) or take(raw)
    trainer.run()
    assert [len(batch) for batch in taken] == [4] * 6 and len(set(sum(taken, []))) == 24  # nothing is left out
    rate = trainer.state.scheduler.get_last_lr()[0]
    assert rate < 1.1e-5  # of the new schedule: at its end
    assert (folder / "args.json").read_text() == before
    record = json.loads((folder / "args.1.json").read_text())
    assert record["changed"] == {"batch_size": [8, 4]} and record["resumed"]["batch"] == 0
    notes = history(folder)
    assert notes["resumed"][0]["changed"] == {"batch_size": [8, 4]} and "--override" not in notes["command"]
    state = torch.load(folder / "checkpoints/last.pt", weights_only=True)
    assert state["settings"]["batch_size"] == 4  # the next resume is compared with what is so now


def test_a_state_within_an_epoch_does_not_ship(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun / "dex_ycb/run", tmp_path / "run")
    (tmp_path / "run/log.csv").write_text("epoch,val_mpjpe_mm\n1,9\n")
    with pytest.raises(ValueError, match="within epoch 1"):
        ship(tmp_path / "run", "x", tmp_path / "weights")


def test_the_log_row_of_a_resumed_epoch_is_that_of_the_whole_epoch(root: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "out")
    train(options(root, tmp_path / "out", "--resume"))
    train(options(root, tmp_path / "whole"))
    rows = []
    for out in ("out", "whole"):
        with open(tmp_path / out / "dex_ycb/run/log.csv", newline="") as handle:
            rows.append({name: float(value) for name, value in next(csv.DictReader(handle)).items()})
    assert {name for name in rows[0] if name.startswith("train_")} >= {"train_loss", "train_mesh"}
    for name in rows[0].keys() - {"seconds"}:
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-6), name
    assert not (tmp_path / "out/dex_ycb/run/args.1.json").exists()  # nothing differed


def test_a_folder_with_a_run_is_not_begun_anew(root: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "out")
    folder = tmp_path / "out/dex_ycb/run"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match="holds a run already.*last.pt.*--resume.*--overwrite"):
        train(options(root, tmp_path / "out"))
    other = begun / "dex_ycb/run/checkpoints/last.pt"  # somebody else's state does not excuse it
    with pytest.raises(RunFolderError, match="holds a run already"):
        train(options(root, tmp_path / "out", "--resume", str(other)))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    train(options(root, tmp_path / "out", "--overwrite", "--lr", "1e-4"))
    assert json.loads((folder / "args.json").read_text())["args"]["lr"] == 1e-4
    aside = folder / "overwritten"  # whatever stops the new run, the old one is there
    kept = {aside / path.relative_to(folder): data for path, data in files.items() if path.suffix in (".pt", ".json")}
    assert kept and all(path.read_bytes() == data for path, data in kept.items())
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


def test_what_was_overwritten_outlives_a_run_that_saved_nothing(root: Path, begun: Path, tmp_path: Path) -> None:
    """The new run stops in its first batch, is begun anew, and again: the run that was overwritten is still there."""
    shutil.copytree(begun, tmp_path / "out")
    folder = tmp_path / "out/dex_ycb/run"
    last = (folder / "checkpoints/last.pt").read_bytes()
    for _ in range(2):
        trainer = Trainer(apply_recipe(options(root, tmp_path / "out", "--overwrite")))
        trainer._compute_gradients = trainer._gradients = lambda batch: {"loss": torch.tensor(float("nan"))}
        trainer.state.scaler.unscale_ = trainer.state.scaler.step = lambda *given: None
        with pytest.raises(NonFiniteLossError, match="no state was saved yet.*--overwrite"):
            trainer.run()
        assert (folder / "overwritten/checkpoints/last.pt").read_bytes() == last
    assert not list((folder / "checkpoints").iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"PK\3\4" + bytes(500)])
def test_a_damaged_last_state_is_named_beside_the_best_one(
    root: Path, begun: Path, tmp_path: Path, content: bytes
) -> None:
    shutil.copytree(begun, tmp_path / "out")
    checkpoints = tmp_path / "out/dex_ycb/run/checkpoints"
    shutil.copyfile(checkpoints / "last.pt", checkpoints / "best.pt")
    (checkpoints / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read.*--resume .*best\.pt goes on"):
        train(options(root, tmp_path / "out", "--resume"))
    assert (checkpoints / "last.pt").read_bytes() == content


@pytest.mark.parametrize(("name", "content"), [("log.csv", b"\xff\0"), ("log.csv", b"epoch\nfoo"), ("args.json", b"{")])
def test_a_damaged_record_is_named_before_an_epoch_is_trained(
    root: Path, begun: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    shutil.copytree(begun, tmp_path / "out")
    run = tmp_path / "out/dex_ycb/run"
    (run / name).write_bytes(content)
    last = (run / "checkpoints/last.pt").read_bytes()
    with pytest.raises(ValueError, match=f"{run / name}: not "):
        train(options(root, tmp_path / "out", "--resume"))
    assert (run / "checkpoints/last.pt").read_bytes() == last
    with pytest.raises(ValueError, match=f"{run / name}: not "):
        history(run)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_an_out_dir_that_is_no_folder_is_named(root: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"out.*run's folder cannot be made.*--out_dir"):
        train(options(root, out))


def test_a_resumed_run_does_not_replace_a_better_best(root: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "out")
    checkpoints = tmp_path / "out/dex_ycb/run/checkpoints"
    state = torch.load(checkpoints / "last.pt", weights_only=True)
    state["position"]["best"] = 0.001
    torch.save(state, checkpoints / "best.pt")
    better = (checkpoints / "best.pt").read_bytes()
    train(options(root, tmp_path / "out", "--resume"))
    assert (checkpoints / "best.pt").read_bytes() == better
    (checkpoints / "last.pt").unlink()
    with pytest.raises(RunFolderError, match="best.pt but no last.pt"):
        train(options(root, tmp_path / "out", "--resume"))


def test_a_second_training_in_a_folder_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    program = (
        "import sys, time; from src.engine.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).owned(): print('owns', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True, cwd=CODE)
    try:
        assert first.stdout.readline() == "owns\n"
        with pytest.raises(LockedError, match=f"in use by another process.*{first.pid}"):
            RunFolder(folder).owned().__enter__()
        assert (folder / "owner.lock").is_file()
    finally:
        first.kill()
        first.wait()
    with RunFolder(folder).owned():
        assert str(os.getpid()) in (folder / "owner.lock").read_text()
        with pytest.raises(LockedError, match="this process"), RunFolder(folder).owned():
            pass
    assert not list(folder.iterdir())


def test_without_locks_the_owner_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, host, refused in (
        (ended.pid, file_lock.socket.gethostname(), False),
        (os.getppid(), file_lock.socket.gethostname(), True),
        (ended.pid, "another-host", True),
    ):
        (tmp_path / "owner.lock").write_text(json.dumps({"pid": pid, "host": host}))
        if refused:
            with pytest.raises(LockedError, match="delete .*owner.lock"), RunFolder(tmp_path).owned():
                pass
        else:
            with RunFolder(tmp_path).owned():
                pass


def test_the_revision_is_this_code_s_wherever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = versions()["git"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert versions()["git"] == expected != "unknown"
    monkeypatch.setattr(run_folder, "CODE", tmp_path / "site-packages/handid")  # installed inside another repository
    (tmp_path / "site-packages/handid").mkdir(parents=True)
    monkeypatch.setenv("GIT_REVISION", "1234abc")
    assert versions()["git"] == "1234abc"
    monkeypatch.delenv("GIT_REVISION")
    monkeypatch.setattr(run_folder.importlib.metadata, "version", lambda name: "1.2.3")
    assert versions()["git"] == "handid 1.2.3"


def test_no_git_on_the_machine_stops_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GIT_REVISION", raising=False)
    train(options(root, tmp_path / "out", "--max_images", "8"))
    assert "git" in json.loads((tmp_path / "out/dex_ycb/run/args.json").read_text())["versions"]


def test_a_broken_tensorboard_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.log_epoch({"epoch": epoch, "train_loss": 1.0})
    assert caplog.text.count("no TensorBoard") == 1 and folder.log.read_text().count("\n") == 3
