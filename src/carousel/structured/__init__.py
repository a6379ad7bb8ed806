"""Models with discrete states: chains over semirings, and what is built on them.

A :class:`LinearChain` answers what can be asked of all paths of a batch of sequences: the sum, the best, the k best, samples,
marginals, entropy, expectations. A :class:`CRF` puts it behind a network; :func:`perceptron_loss` and :func:`margin_loss` are
other ways to train the same scores. An :class:`HMM` learns without tags. :class:`FeatureCRF`, :class:`StructuredPerceptron` and
:class:`StructuredSVM` tag by indicator features.
"""

from carousel.structured.chain import LinearChain
from carousel.structured.constraints import (
    SCHEMES,
    Constraints,
    bio_constraints,
    bioes_constraints,
    bmes_constraints,
    iob1_constraints,
)
from carousel.structured.crf import CRF
from carousel.structured.features import FeatureIndex, TokenFeatures, word_shape
from carousel.structured.hmm import HMM, Categorical, Gaussian, GaussianMixture, Multinomial
from carousel.structured.losses import margin_loss, perceptron_loss
from carousel.structured.perceptron import StructuredPerceptron, StructuredSVM
from carousel.structured.semi_markov import SemiMarkovCRF
from carousel.structured.taggers import FeatureCRF

__all__ = [
    "CRF",
    "HMM",
    "SCHEMES",
    "Categorical",
    "Constraints",
    "FeatureCRF",
    "FeatureIndex",
    "Gaussian",
    "GaussianMixture",
    "LinearChain",
    "Multinomial",
    "SemiMarkovCRF",
    "StructuredPerceptron",
    "StructuredSVM",
    "TokenFeatures",
    "bio_constraints",
    "bioes_constraints",
    "bmes_constraints",
    "iob1_constraints",
    "margin_loss",
    "perceptron_loss",
    "word_shape",
]
