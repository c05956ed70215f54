"""Several processes with a part of each batch come to what one with the whole comes to, whatever the method."""

import numpy as np
import pytest

from tests.conformance import softmax
from tests.conformance.methods import METHODS, Method
from tests.conformance.scene import relative_error
from tests.conformance.threads import run_together

# PyTorch has one dual level for all threads of a process: forward mode cannot be run so.
SHARED = [method for method in METHODS if "forward-mode" not in method.name]
ROW = softmax.build_row("softmax classifier, shared batch", softmax.WEIGHTS, 0.5, is_adam=True)


@pytest.mark.parametrize("size", [2])
@pytest.mark.parametrize("method", SHARED, ids=lambda method: method.name)
def test_parts_of_a_batch_add_up_to_the_whole(method: Method, size: int) -> None:
    measured = run_together(size, lambda exchange: ROW.build(exchange=exchange).measure(method.build(ROW)))
    assert relative_error(measured[0], ROW.answers[method.family]) < method.tolerance
    assert all(np.array_equal(one, measured[0]) for one in measured)
