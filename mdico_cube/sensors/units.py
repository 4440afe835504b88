"""Units of a source and of a band in, the factor and shift between them out."""

from __future__ import annotations

from mdico_cube.errors import MdicoError
from mdico_cube.recipe import StoreVariable

UNITS: dict[tuple[str, str], tuple[float, float]] = {
    ("m", "mm"): (1000.0, 0.0),
    ("m of water equivalent", "mm"): (1000.0, 0.0),
    ("kg m-2", "mm"): (1.0, 0.0),
    ("J m-2", "MJ m-2"): (1e-6, 0.0),
    ("degC", "K"): (1.0, 273.15),
    ("Pa", "hPa"): (0.01, 0.0),
    ("m2 s-2", "m"): (1 / 9.80665, 0.0),
    ("m3 m-3", "1"): (1.0, 0.0),
}
"""(source's unit, band's unit) -> factor and shift; geopotential becomes height by standard gravity."""


def conversion(variable: StoreVariable, unit: str, said: str | None, where: str) -> tuple[float, float]:
    """Factor and shift that bring a variable's values to a band's unit.

    Args:
        variable: as the catalog file declares it.
        unit: the band's.
        said: what the store itself says; None where it says nothing.
        where: what to call it in an error.

    Raises:
        MdicoError: the catalog file and the store disagree, or no conversion is known.
    """
    declared, stored = plain_unit(variable.unit), plain_unit(said) if said else ""
    if stored and stored != declared and stored != unit:
        raise MdicoError(
            f"{where}: {variable.name} is in {stored!r} there, the catalog file says {declared!r}. "
            "Correct the unit in the catalog file, or in the recipe's source."
        )
    came = stored or declared
    if came == unit:
        return variable.scale, 0.0
    if (came, unit) not in UNITS:
        known = ", ".join(sorted({unit, *(a for a, b in UNITS if b == unit)}))
        raise MdicoError(f"{where}: {variable.name} in {came!r} cannot become {unit!r}. Known here: {known}.")
    factor, shift = UNITS[came, unit]
    return factor * variable.scale, shift


def plain_unit(text: str) -> str:
    """A unit as it is written here: "J m**-2" and "J/m^2" become "J m-2"."""
    plain = " ".join(text.replace("**", "").replace("^", "").split())
    return {
        "m/s": "m s-1",
        "(0 - 1)": "1",
        "J/m2": "J m-2",
        "C": "degC",
        "celsius": "degC",
        "Celsius": "degC",
        "kelvin": "K",
    }.get(plain, plain)
