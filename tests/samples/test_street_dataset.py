"""Streets written as a data set are read back as the world made them."""

from pathlib import Path

import numpy as np

from proscale_deploy.export.datasets import match_classes, open_dataset
from proscale_deploy.runtime import read_image
from samples.street.dataset import HELD_OUT_SEEDS, frame_time, write_dataset
from samples.street.world import CLASSES, Scene


def test_written_streets_are_read_back(tmp_path: Path) -> None:
    seeds, size = HELD_OUT_SEEDS[:2], (96, 160)
    write_dataset(tmp_path / "streets", seeds, size)
    dataset = open_dataset("folder", tmp_path / "streets/images", tmp_path / "streets")
    class_of = match_classes(CLASSES, dataset.categories)
    assert len(dataset.pictures) == 2
    for picture, seed in zip(dataset.pictures, seeds, strict=True):
        image, ids, segments = Scene(seed).frame(frame_time(seed), size)
        truth = dataset.truth(picture, class_of)
        np.testing.assert_array_equal(read_image(picture.image), image)
        assert truth.panoptic is not None
        np.testing.assert_array_equal(truth.panoptic.map, ids)
        assert truth.panoptic.segments == segments
        assert not truth.crowds
