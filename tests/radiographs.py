"""Radiographs for tests: DX images made of pictures, chest X-rays with masks, a network trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydicom.dataset import Dataset
from torch import Tensor, nn
from torch.nn import functional

from tests import builders, odd_series

FIXTURES = Path(__file__).parents[2] / "shared" / "data" / "fixture"
LUNGS = ("left_lung", "right_lung")
_WIDTH_MM = 400.0  # of the pictures, which do not say it: a detector is about as wide as this

Picture = npt.NDArray[np.uint8]


def dx(picture: Picture, photometric: str = "MONOCHROME2", *, seed: int = 1, **attributes: object) -> Dataset:
    """A DX image of 12 bits that a viewer shows as the picture, bone bright, whichever way it is stored."""
    rows, columns = picture.shape
    image = odd_series.dx_image((rows, columns), (_WIDTH_MM / columns, _WIDTH_MM / columns), seed=seed)
    stored = picture.astype(np.uint16) * 16
    image.PixelData = (stored if photometric == "MONOCHROME2" else 4095 - stored).astype("<u2").tobytes()
    image.PhotometricInterpretation = photometric
    image.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
    image.WindowCenter, image.WindowWidth = "2048", "4096"
    image.PatientOrientation = ["L", "F"]
    (changed,) = builders.with_attributes([image], **attributes)
    return changed


def chest_x_rays() -> dict[str, tuple[Picture, Picture]]:
    """Name → picture, and its labels (1 left lung, 2 right lung); empty where the data is not there."""
    folder = FIXTURES / "cxr_png_with_lung_masks"
    cases = {}
    for path in sorted(folder.glob("images/*.png")):
        picture = np.asarray(Image.open(path).convert("L"))
        labels = np.zeros(picture.shape, np.uint8)
        for number, side in enumerate(("Left", "Right"), start=1):
            mask = np.asarray(Image.open(folder / "masks" / f"{path.stem}__{side}_Lung.png").convert("L"))
            labels[mask > 127] = number
        cases[path.stem] = (picture, labels)
    return cases


class SmallUNet(nn.Module):
    """A U-Net of two stages down, for pictures of 96 × 96: background, left and right lung."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = _block(1, width)
        self.second = _block(width, 2 * width)
        self.third = _block(2 * width, 4 * width)
        self.fourth = _block(4 * width, 4 * width)
        self.up_third = _block(8 * width, 2 * width)
        self.up_second = _block(4 * width, width)
        self.up_first = _block(2 * width, width)
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, 1, rows, columns)`` to scores ``(batch, 3, rows, columns)``."""
        first = self.first(image)
        second = self.second(functional.max_pool2d(first, 2))
        third = self.third(functional.max_pool2d(second, 2))
        found = self.fourth(functional.max_pool2d(third, 2))
        for skip, block in ((third, self.up_third), (second, self.up_second), (first, self.up_first)):
            found = block(torch.cat([functional.interpolate(found, scale_factor=2.0), skip], 1))
        scores: Tensor = self.last(found)
        return scores


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.LeakyReLU(0.1),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.LeakyReLU(0.1),
    )


RECIPE = {
    "dimensions": 2,
    "grid": {"resize": [None, 96, 96], "interpolation": "area"},
    "intensity": [{"op": "standardise"}],
    "tiles": {"size": None, "multiple_of": 8},
    "precision": "float32",
    "after": [{"op": "largest"}, {"op": "fill_holes"}],
}
"""How it is fed: as it was trained below."""


def trained(cases: Iterable[tuple[Picture, Picture]], steps: int = 240) -> SmallUNet:
    """A network trained on a few pictures with their labels, turned, stretched and dimmed at random."""
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums everywhere; so small a network gains nothing by more
    try:
        return _trained(cases, steps)
    finally:
        torch.set_num_threads(threads)


def _trained(cases: Iterable[tuple[Picture, Picture]], steps: int) -> SmallUNet:
    images, labels = (torch.cat(tensors) for tensors in zip(*map(_as_seen, cases), strict=True))
    network = SmallUNet()
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (4,))
        seen, truth = _changed(images[chosen], labels[chosen])
        scores = network(seen)
        loss = functional.cross_entropy(scores, truth) + _dice_loss(scores.softmax(1), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(requires_grad=False)


def _as_seen(case: tuple[Picture, Picture]) -> tuple[Tensor, Tensor]:
    """Brightness ``(1, 1, 96, 96)`` and labels of the same shape."""
    picture, labels = (torch.from_numpy(array.astype(np.float32))[None, None] for array in case)
    return functional.interpolate(picture / 255.0, (96, 96), mode="area"), functional.interpolate(
        labels, (96, 96), mode="nearest-exact"
    )


def _changed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    count = len(images)
    angle = (torch.rand(count) - 0.5) * 0.3
    scale = 1.0 + (torch.rand(2, count) - 0.5) * 0.4
    turn = torch.zeros(count, 2, 3)
    turn[:, 0, 0], turn[:, 0, 1] = scale[0] * angle.cos(), -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), scale[1] * angle.cos()
    turn[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.3
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    seen = functional.grid_sample(images, grid, align_corners=False)
    truth = functional.grid_sample(labels, grid, mode="nearest", align_corners=False)
    seen = seen.clamp(0.0, 1.0) ** (0.6 + torch.rand(count, 1, 1, 1))
    seen = seen + 0.03 * torch.randn_like(seen)
    mean, sd = seen.mean((1, 2, 3), keepdim=True), seen.std((1, 2, 3), keepdim=True)
    return (seen - mean) / (sd + 1e-6), truth[:, 0].round().long()


def _dice_loss(shares: Tensor, truth: Tensor) -> Tensor:
    wanted = functional.one_hot(truth, 3).movedim(3, 1).float()
    both = (shares * wanted).sum((0, 2, 3))
    return 1.0 - (2.0 * both / (shares.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1e-6)).mean()
