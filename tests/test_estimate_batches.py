"""Many files of estimates: in batches, shared by processes, without keeping them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes.estimator_simulation import SIZE, estimate, write_results
from src.engine.distributed import DistributedContext
from src.engine.estimates.batches import batches, personalised_batches
from src.engine.estimates.outputs import RowsFile
from src.engine.estimates.survey import Survey, survey
from src.estimators import Reader, read_estimates, write_estimates
from src.estimators.files import load
from src.personalization.estimates.personalise import Personalised
from src.personalization.terms.hand_size import lengths_mm
from template import load_hand_assets
from template.assets import STAND_IN_PATH
from utils.artifacts import Identity, Predictions, load_predictions, save_identity, save_predictions

ROOT = Path(__file__).parents[1]
K = np.array([[450.0, 0, 319.5], [0, 450, 239.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of a MediaPipe-like estimator, one hand each."""
    result = estimate(load_hand_assets(STAND_IN_PATH), "mediapipe", 1, 12, seed=5)
    return write_results(tmp_path_factory.mktemp("many") / "results", "mediapipe", result, 0)


@pytest.fixture
def reader(folder: Path) -> Reader:
    return Reader(folder, "mediapipe", K=K, image_size=SIZE)


def shifted(rows: Predictions) -> Personalised:
    """Instead of a fit: every hand a pixel to the right."""
    changed = Predictions(**{**vars(rows), "keypoints_2d": rows.keypoints_2d + np.float32([1, 0])})
    return Personalised({}, rows, np.zeros((len(rows), 21, 3)), rows.image_id.astype(float), changed)


@dataclass(frozen=True)
class OneOf(DistributedContext):
    """A process whose exchanges the test carries out."""

    parts: dict = field(default_factory=dict)

    def gather(self, value: object) -> list | None:
        self.parts.setdefault(self.rank, []).append(value)
        if not self.is_main:
            return None
        turn = len(self.parts[0]) - 1
        return [self.parts[rank][turn] for rank in range(self.world_size)]


@pytest.mark.parametrize(("processes", "most"), [(1, 5), (2, 5), (3, 2), (2, 100)], ids=str)
def test_batches_are_the_whole(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, most: int
) -> None:
    """In whatever batches, by however many processes (the last case: one batch, whose hands are shared)."""
    monkeypatch.setattr("src.engine.estimates.batches.batches", lambda counts, _: batches(counts, most))
    seen, parts = survey(reader, 200, DistributedContext()), {}
    found: list[tuple[Personalised, list[str]]] = []
    for rank in reversed(range(processes)):  # the leading one last: by then the others' parts are there
        found = list(personalised_batches(reader, seen, shifted, tmp_path / "out", OneOf(rank, processes, parts=parts)))
    read = read_estimates(reader.source, "mediapipe", K=K, image_size=SIZE)
    ids = np.concatenate([one.rows.image_id for one, _ in found])
    assert ids.tolist() == list(range(12))
    np.testing.assert_array_equal(np.concatenate([one.rows.keypoints_2d for one, _ in found]), read.keypoints_2d)
    np.testing.assert_array_equal(np.concatenate([one.reprojection_px for one, _ in found]), ids)
    whole = Predictions(**{**vars(read), "keypoints_2d": read.keypoints_2d + np.float32([1, 0])})
    lines = write_estimates(tmp_path / "at_once", whole, reader.source, "mediapipe", K=K, image_size=SIZE)
    assert [line for _, some in found for line in some] == lines
    for file in reader.files:
        assert (tmp_path / "out" / file.name).read_bytes() == (tmp_path / "at_once" / file.name).read_bytes()


def test_a_file_is_never_parted() -> None:
    assert batches([1, 1, 1, 9, 0, 2, 2], 3) == [range(0, 3), range(3, 4), range(4, 6), range(6, 7)]
    assert [file for part in batches([4, 0, 3, 3], 4) for file in part] == [0, 1, 2, 3]


def test_small_files_are_read_once(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there is no room to keep them, as often as they are looked at, with the same end."""
    read: list[str] = []
    monkeypatch.setattr("src.estimators.reader.load", lambda path: read.append(path.name) or load(path))
    for room, times in ((2**24, 1), (0, 3)):
        reader._room, alone = room, DistributedContext()
        out = tmp_path / str(room)
        for _ in personalised_batches(reader, survey(reader, 200, alone), shifted, out, alone):
            pass
        assert sorted(read) == sorted(times * [file.name for file in reader.files])
        assert not reader._kept and reader._room == room
        read.clear()
    for file in reader.files:
        assert (tmp_path / str(2**24) / file.name).read_bytes() == (tmp_path / "0" / file.name).read_bytes()


def test_a_batch_without_a_hand_is_copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = tmp_path / "some"
    some.mkdir()
    first, last = sorted(folder.iterdir())[:2]
    for name, source in (("a", first), ("c", last)):
        (some / f"{name}.json").write_bytes(source.read_bytes())
    (some / "b.json").write_text('{"hand_landmarks": [], "handedness": []}', encoding="utf-8")
    monkeypatch.setattr("src.engine.estimates.batches.batches", lambda *_: [range(n, n + 1) for n in range(3)])
    reader, alone = Reader(some, "mediapipe", K=K, image_size=SIZE), DistributedContext()
    found = list(personalised_batches(reader, survey(reader, 200, alone), shifted, tmp_path / "out", alone))
    assert [len(one.rows) for one, _ in found] == [1, 1]
    assert (tmp_path / "out" / "b.json").read_bytes() == (some / "b.json").read_bytes()


def test_a_sample_is_the_same_however_it_is_shared(reader: Reader) -> None:
    """And every image is as likely as any other."""
    rows = [reader.rows(reader.open(number)[1]) for number in range(12)]

    def part(numbers: Iterator[int] | range) -> Survey:
        found = Survey(most=4)
        for number in numbers:
            found.add(number, rows[number])
        return found

    alone = part(range(12)).sample(reader)
    shared = part(range(0, 12, 2)).plus(part(range(1, 12, 2))).sample(reader)
    assert alone.image_id.tolist() == shared.image_id.tolist() and len(alone) == 4
    read = read_estimates(reader.source, "mediapipe", K=K, image_size=SIZE)
    np.testing.assert_array_equal(alone.keypoints_2d, read.keypoints_2d[alone.image_id])
    many, row = Survey(most=500), rows[0][0]
    for number in range(2000):
        many.add(number, [row])
    thirds = np.histogram([file for _, file, _, _ in many._drawn[0]], bins=3, range=(0, 2000))[0]
    one = Survey(most=500)  # a file whose pictures all have one name
    one.add(0, [row] * 2000)
    assert np.mean([place for _, _, place, _ in one._drawn[0]]) == pytest.approx(1000, abs=100)
    assert len(many._drawn[0]) == 500 and (abs(thirds - 500 / 3) < 4 * (500 / 3) ** 0.5).all()


def test_rows_in_parts_are_the_same_file(reader: Reader, tmp_path: Path) -> None:
    read = read_estimates(reader.source, "mediapipe", K=K, image_size=SIZE)
    save_predictions(tmp_path / "whole.npz", read)
    with RowsFile(tmp_path / "parts.npz", 12, 9) as file:
        for part in (slice(0, 5), slice(5, 12)):
            file.add(read.select(np.arange(12)[part]))
    whole, parts = load_predictions(tmp_path / "whole.npz"), load_predictions(tmp_path / "parts.npz")
    for name, value in vars(whole).items():
        if name != "source":
            assert np.array_equal(value, getattr(parts, name)), name
    with pytest.raises(ZeroDivisionError), RowsFile(tmp_path / "no.npz", 12, 9) as file:
        file.add(read)
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.npz", "whole.npz"]


#: Runs the command in its arguments and prints the most memory that it held, kB.
MEASURED = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Peak of the command: contents of files that were kept (0.8 MB each) would be 48 MB more for 60 more files.

    ``python -m tests.test_estimate_batches 200 2000`` prints it for other numbers.
    """
    few, many = (measured(tmp_path, count, padding_mb=0.8) for count in (4, 64))
    assert many - few < 24, f"{few:.0f} MB for 4 files, {many:.0f} MB for 64"


def measured(place: Path, count: int, padding_mb: float) -> float:
    """Most memory, MB, that personalising so many files held, each with a mesh or picture that nobody asked for."""
    assets, identity, folder = load_hand_assets(STAND_IN_PATH), place / "me.json", place / f"{count}"
    length = lengths_mm(assets, np.zeros(10), None)["hand"][0]
    save_identity(identity, Identity(np.zeros(10), assets.name, assets.hash, length))
    folder.mkdir(parents=True)
    result = estimate(assets, "mediapipe", 1, 1, seed=5)
    padding = np.zeros(int(padding_mb * 2**17))
    for number in range(count):
        np.savez(folder / f"{number:05d}.npz", keypoints_2d=result.keypoints[0], is_left=[False], K=K, padding=padding,
                 joints_3d=result.joints[0], image=[f"{number:05d}.jpg"], image_size=SIZE)  # fmt: skip
    given = ["run.py", "--phase", "personalise", "--estimates", str(folder), "--format", "joints", "--device", "cpu",
             "--identity", str(identity), "--threads", "1", "--output", str(folder.with_suffix(".out"))]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", MEASURED, *given], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for number in map(int, sys.argv[1:]):
            print(f"{number} files of 0.25 MB: {measured(Path(place), number, 0.25):.0f} MB")
