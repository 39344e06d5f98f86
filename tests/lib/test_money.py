"""Money is exact: integers of a millionth, and a rounding that favours nobody."""

from decimal import Decimal
from fractions import Fraction

import pytest

from haein.lib import money


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("1/2", 0), ("3/2", 2), ("5/2", 2), ("-1/2", 0), ("-3/2", -2), ("49/100", 0), ("51/100", 1), ("7", 7)],
)
def test_a_tie_goes_to_the_even_neighbour(amount: str, rounded: int) -> None:
    assert money.round_half_even(Fraction(amount)) == rounded


@pytest.mark.parametrize(("text", "micro"), [("4.00", 4_000_000), ("0.000001", 1), ("1234", 1_234_000_000), ("0", 0)])
def test_units_are_read_as_micro_units(text: str, micro: int) -> None:
    assert money.micro(text) == money.micro(Decimal(text)) == micro


def test_it_refuses_less_than_a_micro_unit() -> None:
    with pytest.raises(ValueError, match=r"0\.0000001 has more than six digits"):
        money.micro("0.0000001")


def test_a_currency_is_written_with_its_own_digits() -> None:
    assert money.text(1_234_567_000, "USD") == "$1,234.57"
    assert money.text(1_234_567_000_000, "KRW") == "₩1,234,567"
    assert money.text(12_345, "USD", extra=2) == "$0.0123"
    assert money.text(12_345_000, "CHF") == "CHF 12.34"


def test_what_is_owed_to_the_reader_has_its_minus_before_the_sign() -> None:
    assert money.text(-1_500_000, "USD") == "-$1.50"


def test_a_table_has_plain_numbers() -> None:
    assert money.plain(1_234_567_891, "USD", extra=4) == "1234.567891"
    assert money.plain(0, "USD") == "0.00"
    assert money.plain(2_500_000, "KRW") == "2"
