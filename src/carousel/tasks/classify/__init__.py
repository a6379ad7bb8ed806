"""Classification: labels or numbers for a text or a series (many to one)."""

from carousel.tasks.classify.inputs import ClassifierInputs
from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.records import LabelledData
from carousel.tasks.classify.task import Classifier

__all__ = ["Classifier", "ClassifierInputs", "ClassifierOptions", "LabelledData"]
