"""Labels on the source grid are those of interpolating every class and taking the highest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ai.inference.labels import Painter, Way
from ai.model.recipe import Output

GRID, SOURCE = (20, 40, 37), (33, 61, 90)


class Whole:
    """Sums that are all there."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def read(self, planes: slice, rows: slice, columns: slice) -> Tensor:
        return self.scores[:, planes, rows, columns].float()


def ways(grid: tuple[int, ...] = GRID, source: tuple[int, ...] = SOURCE, nearest: bool = False) -> list[Way]:
    made = []
    for there, here in zip(grid, source, strict=True):
        places = np.clip((np.arange(here) + 0.5) * there / here - 0.5, 0, there - 1)
        made.append(Way(0, np.floor(places + 0.5) if nearest else places, 0, there))
    return made


def painted(scores: Tensor, output: Output, pieces: int = 1, **kind: bool) -> tuple[Tensor, Painter]:
    """The label map, with planes becoming ready in so many pieces."""
    target = torch.full(SOURCE, 255, dtype=torch.uint8)
    painter = Painter(output, ways(**kind), target)
    for piece in range(1, pieces + 1):
        painter.paint(Whole(scores), scores.shape[1] * piece // pieces)
    return target, painter


def upsampled(scores: Tensor) -> Tensor:
    return F.interpolate(scores[None], size=SOURCE, mode="trilinear", align_corners=False)[0]


def blobs(classes: int, coarse: int, seed: int = 0) -> Tensor:
    """Regions of several classes, with noise; coarser ones are larger."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(1, classes, *(n // coarse + 2 for n in GRID), generator=generator) * 4
    noise = torch.randn(classes, *GRID, generator=generator) * 0.3
    return F.interpolate(smooth, size=GRID, mode="trilinear")[0] + noise


@pytest.mark.parametrize("classes", [2, 7, 40])
@pytest.mark.parametrize("coarse", [3, 16])
@pytest.mark.parametrize("pieces", [1, 5, 20])
def test_the_highest_of_all_classes(classes: int, coarse: int, pieces: int) -> None:
    scores = blobs(classes, coarse)
    labels, _ = painted(scores, Output(), pieces)
    top = upsampled(scores).topk(2, dim=0)
    clear = top.values[0] - top.values[1] > 1e-4  # a tie is decided by rounding
    assert bool(clear.float().mean() > 0.99)
    assert torch.equal(labels[clear], top.indices[0].to(torch.uint8)[clear])


def test_channels_have_the_numbers_of_the_recipe() -> None:
    scores = blobs(4, 8)
    plain, _ = painted(scores, Output())
    named, _ = painted(scores, Output(channels=(0, 3, 0, 9)))
    assert torch.equal(named, torch.tensor([0, 3, 0, 9], dtype=torch.uint8)[plain.long()])


def test_probabilities_are_interpolated_where_the_bundle_does() -> None:
    scores = blobs(5, 4) * 3
    labels, _ = painted(scores, Output(interpolated="probabilities"))
    top = upsampled(scores.softmax(0)).topk(2, dim=0)
    clear = top.values[0] - top.values[1] > 1e-4
    assert torch.equal(labels[clear], top.indices[0].to(torch.uint8)[clear])
    assert not torch.equal(labels, painted(scores, Output())[0])


@pytest.mark.parametrize("threshold", [0.5, 0.8])
@pytest.mark.parametrize("interpolated", ["logits", "probabilities"])
def test_regions_are_painted_one_over_the_other(threshold: float, interpolated: str) -> None:
    scores = blobs(3, 6)
    output = Output.model_validate(
        {"kind": "regions", "channels": (2, 1, 3), "threshold": threshold, "interpolated": interpolated}
    )
    labels, _ = painted(scores, output, pieces=4)
    shares = upsampled(scores).sigmoid() if interpolated == "logits" else upsampled(scores.sigmoid())
    expected = torch.zeros(SOURCE, dtype=torch.uint8)
    for share, number in zip(shares, (2, 1, 3), strict=True):
        expected[share > threshold] = number
    assert float((labels == expected).float().mean()) > 0.9999


def test_regions_without_names_count_from_1() -> None:
    labels, _ = painted(torch.full((2, *GRID), 3.0), Output(kind="regions"))
    assert bool((labels == 2).all())


def test_labels_of_the_network_come_back_by_nearest_neighbour() -> None:
    answer = torch.randint(0, 5, (1, *GRID), generator=torch.Generator().manual_seed(1)).float()
    labels, _ = painted(answer, Output(kind="labels"), pieces=3, nearest=True)
    expected = F.interpolate(answer[None], size=SOURCE, mode="nearest-exact")[0, 0]
    assert torch.equal(labels, expected.to(torch.uint8))


def test_labels_of_the_network_are_no_scores() -> None:
    """Nothing makes probabilities of them, whatever the recipe says of scores."""
    scores = torch.randint(0, 5, (1, *GRID)).float()
    asked = Output(kind="labels", interpolated="probabilities")
    assert torch.equal(
        painted(scores, asked, nearest=True)[0], painted(scores, Output(kind="labels"), nearest=True)[0]
    )


def test_deciding_on_the_grid_of_the_network() -> None:
    scores = blobs(6, 4)
    labels, _ = painted(scores, Output(upsample="labels"), pieces=3, nearest=True)
    expected = F.interpolate(scores.argmax(0)[None, None].float(), size=SOURCE, mode="nearest-exact")[0, 0]
    assert torch.equal(labels, expected.to(torch.uint8))


@pytest.mark.parametrize("activation", ["usual", "none"])
def test_confidence_is_the_mean_margin_of_each_structure(activation: str) -> None:
    scores = blobs(6, 5)
    shares = scores.softmax(0)
    given = shares if activation == "none" else scores
    _, painter = painted(given, Output.model_validate({"activation": activation}), pieces=4)
    top = shares.topk(2, dim=0).values
    winner = shares.argmax(0)
    expected = {n: float((top[0] - top[1])[winner == n].mean()) for n in range(1, 6) if (winner == n).any()}
    assert painter.confidence() == pytest.approx(expected, abs=2e-3)


def test_confidence_of_regions() -> None:
    scores = blobs(2, 5)
    _, painter = painted(scores, Output(kind="regions"), pieces=2)
    share = scores.sigmoid()
    second = share[1] > 0.5
    first = (share[0] > 0.5) & ~second
    expected = {1: float((2 * share[0] - 1)[first].mean()), 2: float((2 * share[1] - 1)[second].mean())}
    assert painter.confidence() == pytest.approx(expected, abs=2e-3)


def test_whole_planes_are_painted_as_blocks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes whole planes at once."""
    scores = blobs(40, 6)
    blocks, _ = painted(scores, Output(), 3)
    monkeypatch.setattr("ai.inference.labels._BLOCK", 1 << 30)
    monkeypatch.setattr("ai.inference.labels._SMALL", 1 << 30)
    planes, _ = painted(scores, Output(), 3)
    assert float((planes == blocks).float().mean()) > 0.9999
