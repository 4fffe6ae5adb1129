"""Arrays that are parts of one buffer."""

import numpy as np

from flowertune.base.buffers import empty_like


def test_arrays_have_the_shapes_and_types_asked_for_and_do_not_overlap():
    given = {
        "a": np.ones((3, 5), np.float32),
        "b": np.asfortranarray(np.ones((7, 2), np.float16)),
        "c": np.ones((), np.float64),
        "d": np.ones((0, 4), np.float32),
        "e": np.ones(9, np.int8),
    }
    made = empty_like(given)
    for number, (name, array) in enumerate(made.items()):
        assert (array.shape, array.dtype) == (given[name].shape, given[name].dtype)
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        array.fill(number)
    for number, array in enumerate(made.values()):
        assert (array == number).all()
    assert empty_like({}) == {}
