"""What every file of `rules/` must do; which items each lets through stands in test_recommend.py."""

import pytest

from recops import plugins
from recops.serving.requests import RULES, Filters, Recommend


@pytest.mark.parametrize("name", plugins.names("serving.rules"))
def test_a_rule_is_a_field_of_the_request_and_silent_when_it_is_left_out(name, served):
    rule = RULES[name]
    assert type(rule).__module__ == f"recops.serving.rules.{name}"
    assert name in {"request": Recommend, "filters": Filters}[rule.where].model_fields
    for body in ({"user_id": "u"}, {"user_id": "u", "filters": {}}):
        assert rule.allowed(Recommend.model_validate(body), served.state.release) is None
