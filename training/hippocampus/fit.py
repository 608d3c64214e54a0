"""The network and its training loop."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.dynunet import DynUNet

from training.hippocampus.augment import Augmenter
from training.hippocampus.cases import CLASSES, Case, padded

NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": CLASSES,
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [16, 32, 64, 128],
    "res_block": True,
}
_BATCH = 4
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-2
_LONGEST_GRADIENT = 12.0
_AVERAGE_OVER = 0.995


def make_network() -> DynUNet:
    """The network without weights, as ``network_def`` of the bundle makes it."""
    return DynUNet(**NETWORK)


def fit(
    cases: list[Case], epochs: int, seed: int, device: str, report: Callable[[int, float], None]
) -> DynUNet:
    """Train on the cases; the averaged network, ready to predict.

    ``report`` is called with (epoch from 1, mean loss) after each epoch.
    """
    torch.manual_seed(seed)
    augmenter = Augmenter(seed)
    cases = [padded(case) for case in cases]
    network = make_network().to(device)
    average = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    batches = len(cases) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=epochs * batches, pct_start=0.1
    )
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(cases), generator=augmenter.generator).tolist()
        total = 0.0
        for batch in range(batches):
            drawn = [augmenter.patch(cases[i]) for i in order[batch * _BATCH : (batch + 1) * _BATCH]]
            images = torch.stack([image for image, _ in drawn])[:, None].to(device)
            labels = torch.stack([label for _, label in drawn]).to(device)
            with torch.autocast(device.partition(":")[0], torch.bfloat16):
                scores = network(images)
            loss = _loss(scores.float(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LONGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            _follow(average, network, epoch * batches + batch + 1)
            total += loss.item()
        report(epoch + 1, total / batches)
    return average.eval()


def _loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus one minus the mean Dice of the structures over the batch."""
    probable = scores.softmax(1)
    truth = F.one_hot(labels, CLASSES).permute(0, 4, 1, 2, 3).float()
    shared = (probable * truth).sum((0, 2, 3, 4))[1:]
    both = (probable + truth).sum((0, 2, 3, 4))[1:]
    return F.cross_entropy(scores, labels) + 1 - ((2 * shared + 1e-5) / (both + 1e-5)).mean()


@torch.no_grad()
def _follow(average: DynUNet, network: DynUNet, step: int) -> None:
    """Move the average towards the network; at the start it follows more closely."""
    keep = min(_AVERAGE_OVER, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.mul_(keep).add_(value, alpha=1 - keep)
