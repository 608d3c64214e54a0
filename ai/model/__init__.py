"""Model cards, the files that they pin, and the protocol that every loaded model follows."""

from ai.model.card import Accepts, Licence, ModelSpec, Stage
from ai.model.cards import find_card, find_model, list_cards, load_card, shipped_card_folder
from ai.model.check import check_input, check_licence, check_output
from ai.model.files import PinnedFiles, pin
from ai.model.paths import below_folder
from ai.model.protocol import Model, Prediction, Predictor, Progress, RunContext, Step, Steps, run_to_end
from ai.model.recipe import Recipe
from ai.model.rule import Rule
from ai.model.structure import Structure

__all__ = [
    "Accepts",
    "Licence",
    "Model",
    "ModelSpec",
    "PinnedFiles",
    "Prediction",
    "Predictor",
    "Progress",
    "Recipe",
    "Rule",
    "RunContext",
    "Stage",
    "Step",
    "Steps",
    "Structure",
    "below_folder",
    "check_input",
    "check_licence",
    "check_output",
    "find_card",
    "find_model",
    "list_cards",
    "load_card",
    "pin",
    "run_to_end",
    "shipped_card_folder",
]
