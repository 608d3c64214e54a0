"""``python -m training.hippocampus --data FOLDER --out FOLDER``: train on all cases, and cross-validate.

Writes ``folds/K.json`` after each fold (a run that was stopped goes on after the last), ``scores.json`` and
``model.pt``, the state dictionary that the bundle carries; then packs the bundle and its card
(:mod:`training.hippocampus.pack`). With other ``--epochs`` nothing is packed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from training.hippocampus.cases import FOLDS, Case, load_cases, split
from training.hippocampus.fit import fit
from training.hippocampus.pack import EPOCHS, MODELS, SEED, pack
from training.hippocampus.score import dice, predict

_THREADS = 2  # the order of sums, and so the last digit, depends on it


def main() -> None:
    """Run the recipe."""
    options = _options()
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True, warn_only=True)
    cases = load_cases(options.data)
    (options.out / "folds").mkdir(parents=True, exist_ok=True)
    if not (options.out / "model.pt").exists():
        network = fit(cases, options.epochs, SEED, options.device, _reporter("all cases"))
        torch.save(network.cpu().state_dict(), options.out / "model.pt")
    scores: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        path = options.out / "folds" / f"{fold}.json"
        if not path.exists():
            path.write_text(json.dumps(_cross_validate(cases, fold, options), indent=1) + "\n")
        scores |= json.loads(path.read_text())
    summary = summarise(scores)
    (options.out / "scores.json").write_text(json.dumps({**summary, "cases": scores}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    if options.epochs == EPOCHS:
        print(pack(options.data, options.out, options.models))


def summarise(scores: dict[str, list[float]]) -> dict[str, object]:
    """Mean per structure, mean over both, and the worst case of all folds together."""
    means = {name: statistics.mean(values) for name, values in scores.items()}
    worst = min(means, key=lambda name: means[name])
    anterior, posterior = (statistics.mean(column) for column in zip(*scores.values(), strict=True))
    return {
        "number_of_cases": len(scores),
        "folds": FOLDS,
        "mean_dice": round(statistics.mean(means.values()), 4),
        "anterior_dice": round(anterior, 4),
        "posterior_dice": round(posterior, 4),
        "worst_dice": round(means[worst], 4),
        "worst_case": worst,
    }


def _cross_validate(cases: list[Case], fold: int, options: argparse.Namespace) -> dict[str, list[float]]:
    train, held_out = split(cases, fold)
    network = fit(train, options.epochs, SEED + 1 + fold, options.device, _reporter(f"fold {fold}"))
    return {
        case.name: [round(value, 4) for value in dice(case, predict(network, case, options.device))]
        for case in held_out
    }


def _reporter(what: str) -> Callable[[int, float], None]:
    started_s = time.monotonic()

    def report(epoch: int, loss: float) -> None:
        print(
            f"{what} epoch {epoch} loss {loss:.4f} {time.monotonic() - started_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    return report


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="training.hippocampus", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of cards to pack into")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
