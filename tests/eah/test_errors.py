"""The errors can be caught as this package's or as Python's own."""

import pytest

import eah
from eah.errors import nearest


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (eah.EAHConfigError, ValueError),
        (eah.UnsupportedModelError, TypeError),
        (eah.UnsupportedVersionError, ImportError),
        (eah.EAHStateError, RuntimeError),
    ],
)
def test_each_error_is_one_of_the_package_and_one_of_python(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, eah.EAHError)
    assert issubclass(error, builtin)


def test_a_near_name_is_suggested_and_all_names_are_listed() -> None:
    assert nearest("laye", ["layers", "head"]) == "did you mean 'layers'? known are head, layers"


def test_a_far_name_only_gets_the_list() -> None:
    assert nearest("zzz", ["layers", "head"]) == "known are head, layers"
