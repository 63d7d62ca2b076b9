"""How far two forms of a network agree in what is made of their outputs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Placement, RawOutput

if TYPE_CHECKING:
    from proscale_deploy.export.sensitivity import Agreement, Judge

__all__ = ["judge_of"]


def judge_of(manifest: Manifest) -> "Judge":
    """The judge of a model: panoptic quality and mean IoU of results at the size of the network's input."""
    from proscale_deploy.export.metrics import MeanIoU, PanopticQuality
    from proscale_deploy.export.sensitivity import Agreement
    from proscale_deploy.runtime.postprocess import panoptic, semantic

    size = manifest.input.height, manifest.input.width
    context = Placement(size, size, size), manifest.classes, manifest.thresholds

    def judge(truth: Sequence[RawOutput], judged: Sequence[RawOutput]) -> "Agreement":
        quality, overlap = PanopticQuality(manifest.classes), MeanIoU(len(manifest.classes))
        for a, b in zip(truth, judged, strict=True):
            quality.add(panoptic(b, *context), panoptic(a, *context))
            overlap.add(semantic(b, *context), semantic(a, *context).map)
        return Agreement(quality.result().all.pq, overlap.result().miou)

    return judge
