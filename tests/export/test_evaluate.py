"""Evaluation against figures worked out by hand; a stopped run gives what an undisturbed one gives."""

import dataclasses
import json
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Segment, Semantic
from proscale_deploy.export.datasets import Dataset, Picture, Truth, match_classes
from proscale_deploy.export.datasets.dataset import Category
from proscale_deploy.export.evaluate import Evaluation, Prediction, Tally, common_tasks, evaluate
from proscale_deploy.export.journal import Journal

CLASSES = (ClassInfo("car", True, (1, 1, 1)), ClassInfo("road", False, (2, 2, 2)), ClassInfo("sky", False, (3, 3, 3)))
TASKS = ("panoptic", "instance", "semantic")
KEY = {"model": "m", "data set": "d", "sizes": (1, 2)}
Segments = Mapping[int, int]


def panoptic(ids: NDArray[np.int32], classes: Segments) -> Panoptic:
    areas = {i: int((ids == i).sum()) for i in classes}
    return Panoptic(ids, tuple(Segment(i, c, CLASSES[c].is_thing, areas[i], 1.0) for i, c in classes.items()))


class Rows(Dataset):
    """Three pictures, each a row of 64 x 64 tiles; ids, and the classes of the ids."""

    def __init__(self, folder: Path) -> None:
        self.maps = {
            "a": panoptic(tiles([[1, 1, 1, 1, 2, 2]]), {1: 0, 2: 1}),
            "b": panoptic(tiles([[3, 4, 4, 0, 0, 0]]), {3: 0, 4: 2}),
            "c": panoptic(tiles([[5, 5, 5, 5, 6, 6]]), {5: 1, 6: 0}),
        }
        pictures = [Picture(name, folder / f"{name}.png") for name in self.maps]
        for picture in pictures:
            picture.image.touch()
        super().__init__([Category(10 + n, c.name, c.is_thing) for n, c in enumerate(CLASSES)], pictures, TASKS, [])

    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        assert class_of == {10: 0, 11: 1, 12: 2}
        return Truth(self.maps[picture.name], frozenset({6}))


def tiles(rows: list[list[int]]) -> NDArray[np.int32]:
    return np.kron(np.array(rows, np.int32), np.ones((64, 64), np.int32))


def predict(path: Path) -> Prediction:
    found = {
        # Car: 3 of 4, a match of IoU 3/4. The rest of it is road: IoU 2/3.
        "a": panoptic(tiles([[1, 1, 1, 2, 2, 2]]), {1: 0, 2: 1}),
        # The car is missed, sky takes its tile: IoU 2/3. A car lies in void: neither right nor wrong.
        "b": panoptic(tiles([[1, 1, 1, 2, 2, 2]]), {1: 2, 2: 0}),
        # Half of the road: IoU 1/2, no match. A car in the crowd of cars.
        "c": panoptic(tiles([[1, 1, 0, 0, 2, 2]]), {1: 1, 2: 0}),
    }[path.stem]
    cars = [segment for segment in found.segments if segment.is_thing]
    boxes = [_box(found.map == segment.id) for segment in cars]
    instances = Instances(
        found.map.shape,  # type: ignore[arg-type]
        np.full(len(cars), 0.9, np.float32),
        np.zeros(len(cars), np.int64),
        np.array(boxes, np.int32).reshape(-1, 4),
        tuple(np.ones((b - t, r - left), np.bool_) for left, t, r, b in boxes),
    )
    classes = np.full(found.map.shape, 2, np.int32)  # where there is no segment, sky
    for segment in found.segments:
        classes[found.map == segment.id] = segment.class_id
    semantic = Semantic(classes, np.ones(found.map.shape, np.float32))
    seconds = {"inference": {"a": 0.01, "b": 0.02, "c": 0.03}[path.stem]}
    return Prediction({"panoptic": found, "instance": instances, "semantic": semantic}, seconds)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def run(folder: Path, predict: Callable[[Path], Prediction] = predict, key: Mapping[str, object] = KEY) -> Evaluation:
    with Journal(folder / "run.partial", dict(key)) as journal:
        dataset = Rows(folder)
        return evaluate(dataset, match_classes(CLASSES, dataset.categories), Tally(CLASSES, TASKS), predict, journal)


def test_worked_example(tmp_path: Path) -> None:
    found = run(tmp_path)
    scores = found.scores
    # Car: TP 1 of IoU 3/4, FN 1 (in b) -> PQ (3/4) / (1 + 1/2). Road: TP 1 of 2/3, FP 1, FN 1. Sky: TP 1 of 2/3.
    classes = scores["classes"]
    assert [classes[n]["pq"] for n in ("car", "road", "sky")] == [50.0, 33.33, 66.67]
    assert [[classes[n][k] for k in ("tp", "fp", "fn")] for n in ("car", "road", "sky")] == [
        [1, 0, 1],
        [1, 1, 1],
        [1, 0, 0],
    ]
    assert scores["panoptic"]["all"] == {"pq": 50.0, "sq": 69.44, "rq": 72.22}
    assert scores["panoptic"]["things"] == {"pq": 50.0, "sq": 75.0, "rq": 66.67}
    assert scores["panoptic"]["stuff"] == {"pq": 50.0, "sq": 66.67, "rq": 75.0}
    # Pixels, in tiles: car hit 3 + 0 + 2 of union 4 + 1 + 2; road 2 + 2 of 3 + 4; sky 2 of 3 + 2.
    assert [classes[n]["iou"] for n in ("car", "road", "sky")] == [71.43, 57.14, 40.0]
    assert scores["semantic"] == {"miou": 56.19, "pixel_accuracy": 73.33}
    # Two true cars. Of the three found, with equal scores, the first is right up to IoU 0.75, the second (void) wrong,
    # the third lies in the crowd and does not count: half of the recall at 6 of 10 thresholds, precision 1 (51 of 101).
    assert scores["instance"]["AP"] == classes["car"]["ap"] == pytest.approx(6 / 10 * 51 / 101 * 100, abs=0.01)
    assert classes["road"]["ap"] is None
    assert found.latency == {"inference": {"p50": 20.0, "p90": 28.0}}
    assert found.pictures == 3


def test_stopped_run_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole, asked = run(tmp_path / "whole"), []

    def stopping(path: Path) -> Prediction:
        asked.append(path.stem)
        if path.stem == "c" and asked.count("c") == 1:
            raise KeyboardInterrupt
        return predict(path)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopping)
    with (tmp_path / "run.partial").open("a") as file:
        file.write('{"picture": "c", "added": {"pano')  # killed while it wrote
    assert run(tmp_path, stopping) == whole
    assert asked == ["a", "b", "c", "c"]
    assert run(tmp_path, stopping) == whole
    assert asked == ["a", "b", "c", "c"]


def test_a_run_of_another_key_starts_anew(tmp_path: Path) -> None:
    run(tmp_path)
    with Journal(tmp_path / "run.partial", {**KEY, "model": "other", "new": 1}) as journal:
        assert (journal.changed, journal.entries) == (("model", "new"), [])
    with Journal(tmp_path / "run.partial", {**KEY, "model": "other", "new": 1}) as journal:
        assert (journal.changed, journal.entries) == ((), [])
        journal.discard()
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize("content", ["notes of mine\n", '["a list"]\n', '{"model":"m"}\n{{{\n'])
def test_a_file_that_is_no_journal_is_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.partial"
    path.write_text(content)
    with pytest.raises(InputError, match="not a file of a stopped run"):
        Journal(path, {"model": "m"})
    assert path.read_text() == content


def test_a_run_that_finishes_nothing_leaves_nothing(tmp_path: Path) -> None:
    def failing(path: Path) -> Prediction:
        raise InputError("damaged")

    for _ in range(2):
        with pytest.raises(InputError, match="damaged"):
            run(tmp_path, failing)
        assert not (tmp_path / "run.partial").exists()


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Journal(path, KEY) as journal:
            journal.append({"picture": "a"})
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
            with pytest.raises(
                InputError, match=r"run\.partial: cannot be written \(.+\); make room, and the same command"
            ):
                journal.append({"picture": "b" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    with Journal(path, KEY) as journal:
        assert journal.entries == [{"picture": "a"}]
        journal.append({"picture": "b"})
    with Journal(path, KEY) as journal:
        assert journal.entries == [{"picture": "a"}, {"picture": "b"}]


def test_journal_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "missing/run.partial", KEY)


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    def smaller(path: Path) -> Prediction:
        found = predict(path)
        result = found.results["panoptic"]
        assert isinstance(result, Panoptic)
        cut = dataclasses.replace(result, map=result.map[:, :-1])
        return dataclasses.replace(found, results={**found.results, "panoptic": cut})

    with pytest.raises(InputError, match=r"a\.png and its annotation: expected maps of one size"):
        run(tmp_path, smaller)


def test_tasks_are_those_of_both(tmp_path: Path) -> None:
    dataset = Rows(tmp_path)
    assert common_tasks(("semantic", "panoptic"), dataset) == ("semantic", "panoptic")
    dataset.tasks = frozenset({"instance"})
    assert common_tasks(("panoptic", "instance"), dataset) == ("instance",)
    with pytest.raises(InputError, match="trained for semantic, the data set holds the truth for instance only"):
        common_tasks(("semantic",), dataset)


def test_scores_are_json(tmp_path: Path) -> None:
    json.dumps(run(tmp_path).scores, allow_nan=False)
