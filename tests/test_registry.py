"""Every name leads to something that is there, and names of others are added once."""

from __future__ import annotations

import pytest

from cacl import registry
from cacl.config import Config, from_dict
from cacl.errors import ConfigError
from cacl.registry import Registry

REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_name_of_this_package_is_there(kind: str) -> None:
    for name in REGISTRIES[kind].names():
        assert REGISTRIES[kind].load(name) is not None


def test_names_of_this_package_come_first_and_in_order() -> None:
    colours = Registry("colour", {"red": "colorsys:ONE_THIRD", "blue": "colorsys:TWO_THIRD"})
    colours.register("amber", 0.1)
    assert colours.names() == ["red", "blue", "amber"]
    assert [colours.is_own(name) for name in colours.names()] == [True, True, False]
    assert colours.load("red") == pytest.approx(1 / 3)
    assert colours.load("amber") == 0.1


def test_a_name_has_one_meaning() -> None:
    colours = Registry("colour", {"red": "colorsys:ONE_THIRD"})
    colours.register("red", "colorsys:ONE_THIRD")
    with pytest.raises(ConfigError, match=r"red: colorsys:ONE_THIRD and .* have the same name \(colour\); rename one"):
        colours.register("red", 0.5)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    colours = Registry("colour", {"red": "colorsys:ONE_THIRD"})
    assert colours.problem("red") == ""
    assert colours.problem("rod").startswith("no such colour; did you mean red? --import MODULE ")
    assert colours.problem("xyz").startswith("no such colour; there are red; --import MODULE ")
    assert colours.problem("auto", ["auto"]) == ""
    with pytest.raises(ConfigError, match="rod: no such colour"):
        colours.load("rod")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"losses": {"contrats": 1.0}}, "losses.contrats = 'contrats': no such loss; did you mean contrast?"),
        ({"losses": {"order": -1.0}}, "losses.order = -1.0: should be greater than or equal to 0"),
        ({"data": {"layout": "ucf10"}}, "data.layout = 'ucf10': no such layout; did you mean ucf101?"),
        ({"loader": {"backend": "gpu"}}, "loader.backend = 'gpu': no such backend; did you mean cpu?"),
    ],
)
def test_the_configuration_asks_the_registries(values: dict[str, dict[str, object]], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(values)
    assert str(error.value).startswith(line)


def test_a_loss_that_is_not_named_keeps_its_weight() -> None:
    assert from_dict({"losses": {"order": 0.5}}).losses == {"contrast": 1.0, "order": 0.5}
    assert Config().losses == {"contrast": 1.0, "order": 1.0}
