"""The divisions that ratings are judged on."""

from pathlib import Path

import pytest

from benchmarks.ratings import load


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["u1", "u5"])
def test_base_and_test_are_the_whole_log_and_have_nothing_in_common(data_dir: Path, split: str) -> None:
    base, test = load(split, data_dir)
    assert (len(base), len(test)) == (80_000, 20_000)
    assert base.join(test, on=["user_id", "item_id"]).is_empty()
    assert base["value"].min() == test["value"].min() == 1 and base["value"].max() == test["value"].max() == 5
