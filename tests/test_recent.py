"""A bounded memory of what was asked for last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinloop.stores.recent import Recent

LIMIT = 100
KEYS = st.integers(0, 5)
STEP = st.tuples(st.just("put"), KEYS, st.integers(0, 130)) | st.tuples(
    st.sampled_from(["get", "drop"]), KEYS, st.just(0)
)


@given(st.lists(STEP, max_size=60))
def test_it_holds_those_used_last_that_fit_and_never_more(steps: list[tuple[str, int, int]]) -> None:
    recent = Recent[int, bytes](LIMIT, len)
    model: dict[int, bytes] = {}  # in the order of use
    for what, key, weight in steps:
        if what == "put" and key not in model and weight <= LIMIT:
            model[key] = bytes(weight)
            while sum(map(len, model.values())) > LIMIT:
                del model[next(iter(model))]
        if what == "put":
            recent.put(key, bytes(weight))
        elif what == "drop":
            recent.drop(key.__eq__)
            model.pop(key, None)
        else:
            assert recent.get(key) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
