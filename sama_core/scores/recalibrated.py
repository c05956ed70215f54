"""The trusted model, recalibrated on the trusted examples."""

import torch

from sama_core.decisions import Decisions
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.recalibration import fit_recalibration
from sama_core.scores.trainings import TrainingsState
from sama_core.scores.trusted_model import TrustedModel
from sama_core.scores.trusted_rows import NUM_FOLDS, TrustedRows
from sama_core.types import JSON


class RecalibratedTrustedModel(TrustedModel):
    """score = p(true label = given | trusted model, given label), noise_score = 1 - score; a meta set is needed.

    The trusted model's probabilities are brought to a temperature and multiplied by how often each class bears the
    given label, both fitted on the cross-fitted probabilities of the trusted examples. A training row that is itself
    trusted is recalibrated by a fit without its fold, so that neither step saw its trusted label. Where no given label
    of a trusted example is known, the temperature is all there is.

    Source: temperature scaling, Guo et al., On Calibration of Modern Neural Networks, ICML 2017; the confusion as in
    Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates, 1979.
    """

    name = "recalibrated"

    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of the recalibrated probabilities."""
        trusted, labels_N, model_NC = self._read(state), state.train.labels, state.memory["train"]
        cross_MC, truth_M = state.memory["trusted"], trusted.examples.labels
        fitted = fit_recalibration(cross_MC, trusted.given, truth_M)
        probabilities_NC = fitted.apply(model_NC, labels_N)
        folds_M = self._assign(trusted)
        fold_of_row_N = trusted.find_fold_of_rows(folds_M)
        for fold in sorted(set(fold_of_row_N.tolist()) - {-1}):
            rows, others = torch.nonzero(fold_of_row_N == fold).flatten(), folds_M != fold
            without = fit_recalibration(cross_MC[others], trusted.given[others], truth_M[others])
            probabilities_NC[rows] = without.apply(model_NC[rows], labels_N[rows])
        facts: dict[str, JSON] = {
            "sharpness": fitted.sharpness,
            "confusion_trust": fitted.trust,
            "num_trusted_with_given_label": int((trusted.given >= 0).sum()),
        }
        return decide_by_probabilities(self.name, probabilities_NC.float(), labels_N, "recalibrated_p_given", facts)

    def _count_folds(self, trusted: TrustedRows) -> int:
        return trusted.count_folds(NUM_FOLDS)
