"""The results table: who is evaluated, intervals over subjects, and targets, on made-up scores."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.reproduce import __main__ as command
from benchmarks.reproduce import scoring
from benchmarks.reproduce.merge import merge, replace_section
from benchmarks.reproduce.networks import NETWORKS
from benchmarks.reproduce.report import flat_rows, interval, markdown, per_subject, table, verdicts
from benchmarks.reproduce.scoring import METRICS, Scores, halves
from benchmarks.reproduce.sizes import FULL, ON_SHIPPED_BODY, QUICK, ROWS, SHIPPED, WHOLE
from benchmarks.reproduce.training import checkpoint_of, is_trained, note_run, training_options, trainings
from options.run_options import get_args_parser


def made_up_rows(seeds: tuple[int, ...] = (0, 1), people: int = 6) -> list[dict]:
    """Every row's errors are those of its place in the table, a little worse for later people and seeds."""
    rows = []
    for seed in seeds:
        for number, row in enumerate(ROWS):
            values = {name: [10.0 + number + 0.1 * person + seed for person in range(people)] for name in METRICS}
            scores = {"mean": {k: float(np.mean(v)) for k, v in values.items()}, "per_subject": values, "n_images": 60}
            names = {"group": row.group, "recipe": row.recipe, "model": row.model, "shape": row.shape, "seed": seed}
            rows.append({**names, "network": scores} | ({"fitted": scores} if row.fits else {}))
    return rows


def test_no_image_serves_both_calibration_and_evaluation() -> None:
    subjects = np.repeat([3, 5], 40)
    columns = {
        "subject_id": subjects,
        "sequence_id": np.tile(np.repeat(np.arange(4), 10), 2) + 4 * (subjects == 5),
        "valid": np.arange(80) % 7 != 0,
    }
    first, last = halves(columns, evaluated=6)
    assert columns["valid"][first].all() and columns["valid"][last].all()
    for subject in (3, 5):
        own = [rows[subjects[rows] == subject] for rows in (first, last)]
        assert len(own[1]) == 6
        assert not set(columns["sequence_id"][own[0]]) & set(columns["sequence_id"][own[1]])


def test_interval_covers_the_mean_of_drawn_people() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = interval(generator.normal(9.0, 2.0, (1, 22)))
        hits += low <= 9.0 <= high
    assert 0.86 <= hits / 200 <= 0.98


def test_change_of_paired_people_is_sharper_than_either() -> None:
    people = np.random.default_rng(0).normal(10, 3, (1, 20))
    low, high = interval(0.9 * people, people)
    assert low == pytest.approx(-10) and high == pytest.approx(-10)


def test_rows_are_flat_and_complete() -> None:
    flat = flat_rows(made_up_rows())
    assert len(flat) == 2 * (len(ROWS) + sum(row.fits for row in ROWS))
    assert {"recipe", "model", "shape", "fitted", "seed", "mpjpe_mm", "auc"} <= set(flat[0])
    assert per_subject(made_up_rows(), ROWS[0], "mpjpe_mm").shape == (2, 6)


def test_the_page_holds_every_row_and_judges_the_targets() -> None:
    rows = made_up_rows()
    facts = {"command": "c", "machine": "m", "n_images": 60, "people": "people", "training_hours": 1.0}
    facts["trained_on"] = {"CPU": ["fair_identity"]}
    page = markdown(QUICK, rows, facts)
    for row in ROWS:
        assert (f"| {row.model} | {row.shape} |" in page) or row.group not in QUICK.groups
    found = {what: reached for what, _, _, reached in verdicts(rows)}
    assert found["another person's shape"] and not found["true shape against baseline"]  # later rows are worse here


def test_the_camera_column_is_of_the_fit_and_a_dash_where_there_is_none() -> None:
    rows = made_up_rows()
    for row in rows:
        if row["model"] != "cmr_identity":
            del row["network"]["per_subject"]["abs_mpjpe_mm"]  # a network alone knows no depth
        if "fitted" in row:
            values = {**row["network"]["per_subject"], "abs_mpjpe_mm": [44.0 + row["seed"]] * 6}
            row["fitted"] = {**row["network"], "per_subject": values}
    for group in ("fair", "mesh", "ablation"):
        head, _, *body = table(rows, group).splitlines()
        assert head.endswith("| camera MPJPE |")
        for line in body:
            found = line.split("|")[-2].strip()
            expected = "44.5 ± 0.7" if group == "fair" else "-" if "cmr_identity" not in line else found
            assert found == expected and (group != "mesh" or ("cmr_identity" in line) == (found != "-"))


def test_the_shipped_rows_are_the_networks_of_weights() -> None:
    assert checkpoint_of(SHIPPED, "fair_identity", 0) == Path("weights/mano_identity.safetensors")
    for path in SHIPPED.weights.values():
        assert is_trained(Path(__file__).parents[1] / path)
    assert not is_trained(checkpoint_of(SHIPPED, "boukhayma", 0))


@pytest.mark.parametrize("size", [FULL, WHOLE, QUICK, ON_SHIPPED_BODY], ids=lambda size: size.name)
def test_every_training_is_a_valid_command(size: object) -> None:
    for name, network in size.networks.items():
        args = get_args_parser().parse_args(training_options(size, name, network, size.seeds[0]))
        assert args.model == network.model and args.seed == size.seeds[0]
        assert (args.max_images, args.epochs, args.batch_size) == size.budgets[network.budget]
    assert {row.network for row in ROWS} <= set(NETWORKS)
    assert len({(row.group, row.model, row.shape) for row in ROWS}) == len(ROWS)


def test_seeds_are_whole_trainings_on_a_gpu_and_continuations_elsewhere() -> None:
    assert checkpoint_of(FULL, "body", 0) == checkpoint_of(FULL, "body", 1) == FULL.body
    assert checkpoint_of(WHOLE, "body", 0) != checkpoint_of(WHOLE, "body", 1)
    assert ("body", 1) in trainings(WHOLE) and ("body", 1) not in trainings(FULL)
    order = trainings(WHOLE)
    for number, (name, seed) in enumerate(order):
        start = WHOLE.networks[name].start
        assert start is None or (start, seed) in order[:number]  # whatever it starts from is trained before
    assert sum(name == "pose_2d" for name, _ in order) == 1
    assert "--init_from" not in training_options(WHOLE, "body", NETWORKS["body"], 0)


def test_metro_s_table_goes_on_from_the_shipped_body() -> None:
    size = replace(ON_SHIPPED_BODY, seeds=(1,))
    names = [name for name, _ in trainings(size)]
    assert names == ["metro", "metro_longer", "metro_identity", "quick_cmr_pg", "quick_cmr_identity"]
    first = checkpoint_of(size, "metro", 1)
    for name, start in zip(names, (size.body, first, first, size.body, size.body), strict=True):
        words = training_options(size, name, size.networks[name], 1)
        assert words[words.index("--init_from") + 1] == str(start)
    images = {name: size.budgets[size.networks[name].budget].images for name in names}
    # the anonymous network, the one that is told the person, and CMR have all seen as many images
    assert images["metro"] + images["metro_longer"] == images["metro"] + images["metro_identity"]
    assert images["quick_cmr_pg"] == images["quick_cmr_identity"] == images["metro"] + images["metro_longer"]
    assert (Path(__file__).parents[1] / size.body).is_file()
    assert not {name for name in size.networks if name.startswith("fair")}


def test_the_added_table_takes_no_other_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in (["--quick"], ["--shipped"], ["--body", "b.pt"]):
        monkeypatch.setattr("sys.argv", ["reproduce", "--on_shipped_body", *other])
        with pytest.raises(SystemExit):
            command.main()
        assert "--on_shipped_body is a size, body and data of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["--quick --whole", "--quick --shipped", "--shipped --body b.pt", "--whole --body b.pt", "--shipped --train_only",
     "--no_training --train_only", "--train_only --output o"],
)  # fmt: skip
def test_no_option_wins_in_silence(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce", *words.split()])
    with pytest.raises(SystemExit):
        command.main()
    said = capsys.readouterr().err
    assert "do not go together" in said and all(word in said for word in words.split() if word.startswith("--"))


def test_a_folder_of_another_run_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pt").write_bytes(b"a"), Path("b.pt").write_bytes(b"b")
    size = replace(QUICK, name="dex_ycb", train_root=Path("A"), body=Path("a.pt"))
    for same in (size, replace(size, seeds=(7,))):
        note_run(same)
    for other, said in (
        ({"train_root": Path("B")}, "train_root was A, is B"),
        ({"body": Path("b.pt")}, "body was ca978112ca1b, is 3e23e8160039"),
        ({"budgets": FULL.budgets}, "budgets was"),
        ({"weights": SHIPPED.weights}, "weights was {}"),
    ):
        with pytest.raises(ValueError, match=rf"out/results/dex_ycb/run\.json.*{said}.*out/dex_ycb/dex_ycb_\* away"):
            note_run(replace(size, **other))


def test_scores_of_other_weights_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = object.__new__(Scores)
    scores.folder, scores.seed, scores.device = tmp_path, 0, "cpu"
    scores.parts, made = {"evaluation": None}, []
    monkeypatch.setattr(scoring, "predict_dataset", lambda *_, model_hash: made.append(model_hash) or model_hash)
    monkeypatch.setattr(scoring, "save_predictions", lambda path, _: path.parent.mkdir(exist_ok=True) or path.touch())
    monkeypatch.setattr(scoring, "load_predictions", lambda _: SimpleNamespace(model_hash=made[-1]))
    scores._summary = lambda _: {"n_images": len(made)}
    for digest, expected in (("one", 1), ("one", 1), ("two", 2), ("two", 2)):
        scores._network = lambda _, digest=digest: (None, None, digest)
        assert scores._row(11, ROWS[12])["network"] == {"n_images": expected}
        scores._predictions(ROWS[12].network, "none", "evaluation")
        assert len(made) == expected


def test_a_table_is_added_and_the_others_stay(tmp_path: Path) -> None:
    rows = [row for row in made_up_rows() if row["group"] in WHOLE.groups]
    facts = {"command": "c", "machine": "m", "n_images": 60, "people": "people", "training_hours": 1.0}
    page = markdown(QUICK, rows, facts | {"trained_on": {}})
    (tmp_path / "results.md").write_text(page)
    before = {"command": "first", "rows": flat_rows(rows)}
    (tmp_path / "results.json").write_text(json.dumps(before))
    added = [row for row in made_up_rows() if row["group"] == "shipped body"]
    worse = copy.deepcopy(added)
    for row in worse:
        row["network"]["per_subject"]["mpjpe_mm"] = [2 * v for v in row["network"]["per_subject"]["mpjpe_mm"]]
    for group in (worse, added, added):  # again: replaced, not doubled
        merge(tmp_path, ON_SHIPPED_BODY, group, facts)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["command"] == "first" and found["rows"] == before["rows"] + flat_rows(added)
    assert {row["model"] for row in found["rows"]} >= {"metro", "metro_identity"}
    text = (tmp_path / "results.md").read_text()
    heading = "## METRO, and CMR as it, on the shipped body"
    assert text.count(heading) == 1
    start, end = text.index(heading), text.index("## Targets")
    assert text[:start] + text[end:] == page  # every other character is as it was
    assert "weights/mano_baseline_conf.safetensors" in text[start:end] and "not reached" in text[start:end]
    assert replace_section("no targets", "## A\n\nx").endswith("## A\n\nx\n\n")


def test_only_some_networks_and_what_they_start_from() -> None:
    some = replace(WHOLE, only=("fair_confidence",), seeds=(0,))
    assert trainings(some) == [("body", 0), ("fair_baseline", 0), ("fair_confidence", 0)]
    assert trainings(replace(FULL, only=("fair_identity",), seeds=(1,))) == [("fair_identity", 1)]
