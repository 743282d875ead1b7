"""A socket finds its files by itself and refuses names it does not hold."""

import pytest

from recops import plugins
from recops.errors import CallError


def test_every_file_of_a_socket_is_found_and_private_ones_are_not() -> None:
    found = plugins.names("models")
    assert {"most_popular", "item_knn", "sasrec"} <= set(found)
    assert found == sorted(found)
    assert not [name for name in found if name.startswith("_")]


def test_the_class_is_the_name_in_camel_case() -> None:
    assert plugins.load("models", "most_popular").__name__ == "MostPopular"


def test_an_unknown_name_is_told_with_the_names_there_are() -> None:
    with pytest.raises(CallError, match=r"no models named 'item_nn': there are .*item_knn"):
        plugins.load("models", "item_nn")


def test_a_private_file_is_no_part() -> None:
    with pytest.raises(CallError, match="no models named '_links'"):
        plugins.load_module("models", "_links")
