"""Results that are kept over the messages of one worker."""

from flowertune.base.cache import cached


def test_two_lambdas_of_one_function_are_two_results():
    first = cached(lambda cfg: "first", {}, ())
    assert [first, cached(lambda cfg: "second", {}, ())] == ["first", "second"]
