"""Exact money: integer micro-units of a currency, fractions in between, one rounding at the end."""

from decimal import Decimal
from fractions import Fraction

MICRO = 1_000_000

# Digits after the point by ISO 4217; every other currency here has two.
_DIGITS = {"KRW": 0, "JPY": 0}


def round_half_even(amount: Fraction) -> int:
    """The nearest integer; a tie goes to the even one (Python's round() on a Fraction does just that)."""
    return round(amount)


def micro(text: str | Decimal) -> int:
    """Units of a currency, as people write them, in micro-units. Raises ValueError below a micro-unit."""
    exact = Decimal(text) * MICRO
    if exact != exact.to_integral_value():
        raise ValueError(f"{text} has more than six digits after the point")
    return int(exact)


def digits(currency: str) -> int:
    """How many digits after the point the currency is written with."""
    return _DIGITS.get(currency, 2)


def plain(amount: int, currency: str, *, extra: int = 0) -> str:
    """Micro-units as a plain number, rounded half-even to the currency's digits (and `extra` more)."""
    places = digits(currency) + extra
    scaled = round_half_even(Fraction(amount * 10**places, MICRO))
    return f"{Decimal(scaled).scaleb(-places):f}"


_SIGNS = {"USD": "$", "EUR": "\N{EURO SIGN}", "KRW": "\N{WON SIGN}", "JPY": "\N{YEN SIGN}", "GBP": "\N{POUND SIGN}"}


def text(amount: int, currency: str, *, extra: int = 0) -> str:
    """Micro-units as people read them: the sign, thousands apart."""
    number = plain(abs(amount), currency, extra=extra)
    whole, _, rest = number.partition(".")
    sign = _SIGNS.get(currency, f"{currency} ")
    return f"{'-' if amount < 0 else ''}{sign}{int(whole):,}{'.' + rest if rest else ''}"
