"""Shards: the samples that were written, readable by others, in shares, resumable; damage is named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import build_dataset, open_labels, write_shards
from datasets.bad_files import BadFileError
from datasets.loading import BatchLoader
from datasets.sample import check_sample
from datasets.shards.dataset import Shards, ShardSettingsError, read_index, read_table, sample_key
from datasets.synthetic.freihand_writer import write_freihand
from options.recipes import apply_recipe
from options.run_options import get_args_parser
from src.engine.evaluate import evaluate
from src.engine.train import Trainer, train
from tests.dex_ycb_layout import write_dex_ycb
from tests.interrupting import interrupt
from utils.artifacts import Predictions, save_predictions

STAND_IN = str(Path(__file__).parent.parent / "template" / "stand_in.npz")
SPLIT, SIZE, COUNT = "s1_train", 7, 32  # two people, both hands, eight cameras: five shards, the last of four samples


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dex_ycb(tmp_path_factory.mktemp("dex_ycb"), subjects=(1, 2), draw_dots=True)


def write(root: Path, output: Path, *words: str) -> int:
    """Call the command as a user does; its exit status."""
    common = ["--data_root", str(root), "--output", str(output), "--mano_dir", STAND_IN, "--workers", "1"]
    if "--dataset" not in words:
        common += ["--split", SPLIT, "--allow_missing_subjects", "--side", "both", "--crop_size", "64"]
    sys_argv, sys.argv = sys.argv, ["write_shards", *common, "--shard_size", str(SIZE), *words]
    try:
        return write_shards.main()
    finally:
        sys.argv = sys_argv


@pytest.fixture(scope="module")
def written(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert write(root, folder) == 0
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A copy, free to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def with_other_betas(*args: object, **options: object) -> torch.utils.data.Dataset:
    data = build_dataset(*args, **options)
    data.columns["betas"] = data.columns["betas"] + 1
    return data


def source(root: Path, **options: object) -> torch.utils.data.Dataset:
    options = {"side": "both", "crop_size": 64, "allow_missing_subjects": True, "mano_dir": STAND_IN, **options}
    return build_dataset("dex_ycb", root, SPLIT, **options)


def opened(folder: Path | str, **options: object) -> Shards:
    return build_dataset("shards", folder, SPLIT, **{"side": "both", "mano_dir": STAND_IN, **options})


def assert_same(mine: dict, theirs: dict, but: tuple[str, ...] = ()) -> None:
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert np.asarray(mine[key]).dtype == np.asarray(theirs[key]).dtype
        if key not in but:
            assert np.array_equal(mine[key], theirs[key]), key


# --- the samples ---------------------------------------------------------------------------------


def test_samples_are_those_of_the_data_set(root: Path, written: Path) -> None:
    data, shards = source(root, with_vertices=True), opened(written, with_vertices=True)
    row = {int(image): index for index, image in enumerate(data.columns["image_id"])}
    assert len(shards) == len(data) == COUNT and shards.columns["is_left"].sum() == COUNT // 2
    for index in range(COUNT):
        sample = shards[index]
        check_sample(sample)
        assert_same(sample, data[row[int(sample["image_id"])]])
    assert shards.columns["image_id"].tolist() != data.columns["image_id"].tolist()  # training splits are shuffled
    order = [row[int(image)] for image in shards.columns["image_id"]]
    for key in ("valid", "betas", "joints", "K_image"):  # the first is in the table, the others are read
        assert np.array_equal(shards.columns[key], data.columns[key][order])
    assert {k: v.tolist() for k, v in shards.subject_betas.items()} == {
        k: v.tolist() for k, v in data.subject_betas.items()
    }


def test_the_data_set_s_own_name_opens_its_shards(written: Path) -> None:
    data = build_dataset("dex_ycb", written, SPLIT, side="left", crop_size=64, mano_dir=STAND_IN, cache=None)
    assert isinstance(data, Shards) and data.columns["is_left"].all() and len(data) == COUNT // 2
    with pytest.raises(ShardSettingsError, match="of dex_ycb, not of humbi"):
        build_dataset("humbi", written, SPLIT)
    with pytest.raises(FileNotFoundError, match="no finished shards of split s0_train there .of others: s1_train"):
        build_dataset("dex_ycb", written, "s0_train")
    args = get_args_parser().parse_args(["--phase", "train", "--dataset", "shards", "--data_root", str(written)])
    assert (args.dataset, args.setup) == ("dex_ycb", "s1")


def test_jpegs_are_smaller_and_close(root: Path, written: Path, tmp_path: Path) -> None:
    assert write(root, tmp_path, "--image", "jpg", "--quality", "90") == 0
    exact, near = opened(written), opened(tmp_path)
    for index in range(COUNT):
        assert_same(near[index], exact[index], but=("image",))
        assert np.abs(near[index]["image"].astype(int) - exact[index]["image"]).mean() < 2
    with tarfile.open(tmp_path / SPLIT / "000000.tar") as tar:
        assert {Path(name).suffix for name in tar.getnames()} == {".jpg", ".npy"}


def test_masks_and_official_joints_of_freihand(tmp_path: Path) -> None:
    write_freihand(tmp_path / "data", 3, 1, seed=3, mano_dir=STAND_IN)
    words = ["--dataset", "freihand", "--with_mask", "--crop", "image", "--order", "official"]
    assert (
        write(tmp_path / "data", tmp_path / "out", *words, "--split", "training", "evaluation") == 2
    )  # no masks there
    assert write(tmp_path / "data", tmp_path / "out", *words[:2], *words[3:], "--split", "evaluation") == 0
    options = {"crop": "image", "with_mask": True, "mano_dir": STAND_IN}
    data = build_dataset("freihand", tmp_path / "data", "training", **options)
    shards = build_dataset("freihand", tmp_path / "out", "training", **options)
    assert isinstance(shards, Shards) and len(shards) == len(data) == 12 and shards.label_hand == data.label_hand
    for index in range(len(data)):
        assert_same(shards[index], data[index])
    assert 0 < shards[0]["mask"].mean() < 255
    with pytest.raises(ShardSettingsError, match="--crop image, not joints"):
        build_dataset("freihand", tmp_path / "out", "training", crop="joints", mano_dir=STAND_IN)
    with pytest.raises(ShardSettingsError, match="--with_mask False, not True"):
        build_dataset("freihand", tmp_path / "out", "evaluation", with_mask=True, mano_dir=STAND_IN)


# --- the files -----------------------------------------------------------------------------------


def test_tars_are_plain_and_the_index_tells_the_truth(written: Path) -> None:
    shards, index = opened(written), read_index(written / SPLIT)
    assert [shard["count"] for shard in index["shards"]] == [7, 7, 7, 7, 4]
    assert index["count"] == COUNT and index["left_out"] == 0
    seen = 0
    for shard in index["shards"]:
        data = (written / SPLIT / shard["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names = tar.getnames()
            for number in range(shard["count"]):
                sample = shards[seen]
                key = sample_key(SPLIT, sample["image_id"])
                assert names[2 * number : 2 * number + 2] == [f"{key}.png", f"{key}.npy"]
                labels = np.load(io.BytesIO(tar.extractfile(f"{key}.npy").read()), allow_pickle=False)
                assert all(np.array_equal(labels[name], sample[name]) for name in labels.dtype.names)
                seen += 1


def test_webdataset_reads_them(written: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset (extra: shards) is not installed")
    shards = opened(written)
    urls = sorted(str(path) for path in (written / SPLIT).glob("*.tar"))
    stream = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
    for index, theirs in enumerate(stream):
        mine = shards[index]
        assert theirs["__key__"] == sample_key(SPLIT, mine["image_id"])
        assert np.array_equal(theirs["png"], mine["image"])
        assert np.array_equal(theirs["npy"]["joints"], mine["joints"])
    assert index == COUNT - 1


def test_interrupted_writing_goes_on(root: Path, written: Path, tmp_path: Path, monkeypatch: object) -> None:
    class Killed(BaseException):
        pass

    from datasets.dex_ycb.dataset import DexYCB

    gather, calls = DexYCB.gather, []

    def die_in_third(self: DexYCB, rows: np.ndarray) -> dict:
        calls.append(len(rows))
        if len(calls) == 3:
            raise Killed
        return gather(self, rows)

    monkeypatch.setattr(DexYCB, "gather", die_in_third)
    with pytest.raises(Killed):
        write(root, tmp_path)
    assert len(list((tmp_path / SPLIT).glob("*.tar"))) == 2
    with pytest.raises(FileNotFoundError, match="no finished shards of split s1_train"):
        opened(tmp_path)
    (tmp_path / SPLIT / ".000002.123.tmp.tar").write_bytes(b"left by a kill")
    assert write(root, tmp_path, "--image", "jpg") == 2  # not what was begun
    other = write_dex_ycb(tmp_path / "other", subjects=(1, 3))
    assert write(other, tmp_path) == 2  # nor are these its labels
    shutil.rmtree(other)
    with monkeypatch.context() as patch:  # other labels of the same joints
        patch.setattr(write_shards, "build_dataset", with_other_betas)
        assert write(root, tmp_path) == 2
    calls.clear()
    monkeypatch.setattr(DexYCB, "gather", lambda self, rows: calls.append(len(rows)) or gather(self, rows))
    assert write(root, tmp_path) == 0
    assert sum(calls) == COUNT - 2 * SIZE  # the finished shards are kept
    for path in (written / SPLIT).iterdir():
        if path.name != "index.json":  # which holds the time of nothing, but the command
            assert path.read_bytes() == (tmp_path / SPLIT / path.name).read_bytes()
    assert {path.name for path in (tmp_path / SPLIT).iterdir()} == {path.name for path in (written / SPLIT).iterdir()}
    assert write(root, tmp_path) == 2  # finished


def test_parts_on_two_disks_are_one_data_set(
    root: Path, written: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert write(root, tmp_path / "a", "--rows", "0:20") == 0
    assert write(root, tmp_path / "b", "--rows", f"20:{COUNT}") == 0
    whole, parts = opened(written), opened(f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert parts.columns["image_id"].tolist() == whole.columns["image_id"].tolist()
    assert_same(parts[25], whole[25])
    assert not [text for text in caplog.messages if "none of these parts" in text]
    with pytest.raises(ShardSettingsError, match=r"20 samples are there more than once.*each part once"):
        opened(f"{tmp_path / 'a'}:{tmp_path / 'a'}")
    with pytest.raises(ShardSettingsError, match="20 samples are there more than once"):
        opened(f"{written}:{tmp_path / 'a'}")
    opened(tmp_path / "b")
    assert any("rows 0 to 20 of the split are in none of these parts" in text for text in caplog.messages)
    opened(tmp_path / "a")
    assert any(f"rows 20 to {COUNT} of the split are in none of these parts" in text for text in caplog.messages)
    assert write(root, tmp_path / "c", "--image", "jpg") == 0
    with pytest.raises(ShardSettingsError, match="settings differ"):
        opened(f"{tmp_path / 'a'}:{tmp_path / 'c'}")
    other = write_dex_ycb(tmp_path / "other", subjects=(1, 3))  # as many samples
    assert write(other, tmp_path / "d", "--rows", f"20:{COUNT}") == 0
    with pytest.raises(ShardSettingsError, match="labels differ.*parts of one data set"):
        opened(f"{tmp_path / 'a'}:{tmp_path / 'd'}")
    for name in ("a", "b"):  # as written before labels were noted
        path = tmp_path / name / SPLIT / "index.json"
        index = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in index.items() if key not in ("labels", "of")}))
        assert len(opened(f"{tmp_path / 'a'}:{tmp_path / 'b'}")) == COUNT


def test_predictions_are_evaluated_on_shards_of_any_size(root: Path, written: Path, tmp_path: Path) -> None:
    data = source(root)
    rows = {key: data.columns[key] for key in ("image_id", "subject_id", "sequence_id", "is_left", "pose", "betas")}
    hand = {"hand_name": data.assets["right"].name, "hand_hash": data.assets["right"].hash}
    save_predictions(
        tmp_path / "p.npz", Predictions(**rows, **hand, K=data.columns["K_image"], dataset="dex_ycb", split=SPLIT)
    )
    words = ["--phase", "eval", "--data_root", str(written), "--predictions", str(tmp_path / "p.npz")]
    words += ["--side", "both", "--device", "cpu", "--mano_dir", STAND_IN]
    assert evaluate(get_args_parser().parse_args(words))["mpjpe_mm"] < 1e-2


def test_unreadable_pictures_are_left_out_and_counted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Path(shutil.copytree(root, tmp_path / "data"))
    data = source(broken)
    data.image_path(5).write_bytes(b"\xff\xd8 cut")
    assert write(broken, tmp_path / "strict") == 2
    assert write(broken, tmp_path / "out", "--skip_bad") == 0
    index, shards = read_index(tmp_path / "out" / SPLIT), opened(tmp_path / "out")
    assert (index["count"], index["left_out"], len(shards)) == (COUNT - 1, 1, COUNT - 1)
    assert any("1 samples, whose pictures could not be read, are not in these" in text for text in caplog.messages)
    assert data.columns["image_id"][5] not in shards.columns["image_id"]


# --- order, shares, resuming ---------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_ranks_and_workers_share_without_loss_or_doubles(written: Path, ranks: int, workers: int) -> None:
    def ids(rank: int, start: int = 0, epoch: int = 1) -> list[list[int]]:
        loader = BatchLoader(
            opened(written, window=10), 4, shuffle=True, seed=5, num_workers=workers, rank=rank, world_size=ranks
        )
        loader.set_epoch(epoch, start)
        return [batch["image_id"].tolist() for batch in loader]

    shares = [ids(rank) for rank in range(ranks)]
    assert sorted(sum((sum(share, []) for share in shares), [])) == sorted(opened(written).columns["image_id"].tolist())
    assert ids(0, start=3) == shares[0][3:]
    assert ids(0, epoch=2) != shares[0]


def test_shuffled_order_reads_few_shards_at_a_time(written: Path) -> None:
    shards = opened(written, window=7)
    order = shards.shuffled(np.arange(COUNT), np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(COUNT)) and order.tolist() != list(range(COUNT))
    at_once = [len(set(shards._shard[order[start : start + 4]])) for start in range(0, COUNT, 4)]
    assert max(at_once) <= 3 and len(set(shards._shard)) == 5
    again = shards.shuffled(np.arange(COUNT), np.random.default_rng(1))
    assert np.array_equal(order, again)
    assert not np.array_equal(order, shards.shuffled(np.arange(COUNT), np.random.default_rng(2)))
    assert sorted(shards.shuffled(np.array([3, 30, 8]), np.random.default_rng(0)).tolist()) == [3, 8, 30]


def test_training_on_shards_is_killed_and_resumed_to_the_bit(root: Path, written: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(written, data)
    shutil.copytree(data / SPLIT, data / "s1_val")

    def options(out: str, *extra: str) -> object:
        words = ["--phase", "train", "--dataset", "shards", "--data_root", str(data), "--out_dir", str(tmp_path / out)]
        words += ["--backbone", "mobilenet_v3_small", "--input_size", "64", "--crop_size", "64", "--crop_scale", "2"]
        words += ["--batch_size", "8", "--epochs", "1", "--val_images", "4", "--side", "both", "--device", "cpu"]
        return get_args_parser().parse_args([*words, "--mano_dir", STAND_IN, *extra])

    def weights(out: str) -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / out / "dex_ycb/mano_baseline/checkpoints/last.pt", weights_only=True)["model"]

    train(options("whole"))
    interrupt(Trainer(apply_recipe(options("killed"))), 2)
    train(options("killed", "--resume"))
    expected, found = weights("whole"), weights("killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


# --- damage --------------------------------------------------------------------------------------


def cut(folder: Path, shard: int, sample: int) -> tuple[Path, int]:
    """Cut a shard off in the middle of its sample; the shard, and the sample's image id."""
    path = folder / SPLIT / f"{shard:06d}.tar"
    row = read_table(path)[sample]
    os.truncate(path, int(row["offset"] + row["size"] // 2))
    return path, int(row["image_id"])


def test_a_shard_cut_short_is_named_with_the_sample(copy: Path) -> None:
    path, image = cut(copy, 2, 3)
    with pytest.raises(BadFileError, match=rf"000002\.tar: cut short.*{sample_key(SPLIT, image)} \(image {image}\)"):
        opened(copy)
    shards = opened(copy, skip_bad=True)
    assert (~shards.columns["valid"]).sum() == 4 == len(shards.bad_images) and image in shards.bad_images
    batches = list(BatchLoader(shards, 8, shuffle=True))
    assert sum(len(batch["image_id"]) for batch in batches) == COUNT - 4
    lost = shards[int(np.flatnonzero(shards.columns["image_id"] == image)[0])]
    check_sample(lost)
    assert not lost["valid"] and not lost["image"].any()
    assert np.isfinite(shards.columns["joints"]).all()


def test_a_shard_cut_short_while_it_is_read(copy: Path) -> None:
    shards, careless = opened(copy), opened(copy, skip_bad=True)
    path, image = cut(copy, 1, 0)
    row = int(np.flatnonzero(shards.columns["image_id"] == image)[0])
    with pytest.raises(BadFileError, match=rf"000001\.tar: cut short.*image {image}\)"):
        list(BatchLoader(shards, 8))
    assert sum(len(batch["image_id"]) for batch in BatchLoader(careless, 8)) == COUNT - SIZE
    assert len(careless.bad_images) == SIZE and not careless[row]["valid"]


def test_altered_bytes_are_found(copy: Path, root: Path) -> None:
    path = copy / SPLIT / "000003.tar"
    row = read_table(path)[2]
    data = bytearray(path.read_bytes())
    data[int(row["offset"]) + 100] ^= 1
    path.write_bytes(data)
    shards = opened(copy)
    with pytest.raises(BadFileError, match=rf"000003\.tar: sample .*image {row['image_id']}\) is not what was written"):
        shards[int(np.flatnonzero(shards.columns["image_id"] == row["image_id"])[0])]
    assert write(root, copy, "--check") == 2
    data[int(row["offset"]) + 100] ^= 1
    path.write_bytes(data)
    assert write(root, copy, "--check") == 0


def test_what_is_missing_is_named(copy: Path) -> None:
    folder = copy / SPLIT
    table = folder / "000001.npy"
    content = table.read_bytes()
    table.write_bytes(content[:200])
    with pytest.raises(BadFileError, match=r"000001\.npy"):
        opened(copy)
    table.write_bytes(content)
    (folder / "000004.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"000004\.tar is missing"):
        opened(copy)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "schema": 9}))
    with pytest.raises(BadFileError, match="schema 9"):
        opened(copy)
    (folder / "index.json").unlink()
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--phase", "train", "--dataset", "shards", "--data_root", str(copy)])


@pytest.mark.parametrize("name", ["index.json", "000001.npy"])
@pytest.mark.parametrize("content", [b"", b"PK", bytes(999), b"<html></html>", b"{}", b"[1]"])
def test_other_content_is_named(copy: Path, name: str, content: bytes) -> None:
    (copy / SPLIT / name).write_bytes(content)
    with pytest.raises(BadFileError, match=name):
        opened(copy)
    with pytest.raises(BadFileError, match=name):
        opened(copy, skip_bad=True)


def test_an_altered_table_is_noticed(copy: Path) -> None:
    path = copy / SPLIT / "000001.npy"
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFileError, match="000001.npy.*sha256"):
        opened(copy)


def test_other_settings_are_refused(root: Path, written: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardSettingsError, match="--crop_size 64, not 128"):
        opened(written, crop_size=128)
    with pytest.raises(ShardSettingsError, match="--paper_filter False, not True"):
        opened(written, paper_filter=True)
    assert write(root, tmp_path / "right", "--side", "right") == 0
    with pytest.raises(ShardSettingsError, match="--side right, not both"):
        opened(tmp_path / "right")
    labels = open_labels("dex_ycb", tmp_path / "right", SPLIT, mano_dir=STAND_IN)  # of whatever is there
    assert len(labels) == COUNT // 2 and len(open_labels("dex_ycb", written, SPLIT, mano_dir=STAND_IN)) == COUNT
    with pytest.raises(ShardSettingsError, match="hold crops"):
        opened(written).full_image(0)
    index = json.loads((copy / SPLIT / "index.json").read_text())
    index["hands"]["left"]["hash"] = "abc"
    (copy / SPLIT / "index.json").write_text(json.dumps(index))
    with pytest.raises(ShardSettingsError, match="left .* hand abc.*--mano_dir"):
        opened(copy)
    assert write(root, tmp_path / "x", "--crop", "image") == 2
    assert write(root, tmp_path / "x", "--quality", "20") == 2  # of a png
    assert write(root, tmp_path / "x", "--rows", "40:50") == 2
    assert write(root, tmp_path / "x", "--rows=-4:-1") == 2
