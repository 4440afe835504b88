"""ERA5, ERA5-Land and AgERA5 in, weather per time step out: bands, what becomes of each over a step, what follows."""

from __future__ import annotations

import numpy as np

from mdico_cube.sensors.weather import Formula, Weather
from mdico_cube.spec import Array, Band, Modality, Storage

MODALITY = Modality(
    name="era5",
    variable="weather",
    bands=(
        Band("t2m", "K", title="air temperature at 2 m, mean", lapses=True),
        Band("t2m_min", "K", title="lowest air temperature", lapses=True),
        Band("t2m_max", "K", title="highest air temperature", lapses=True),
        Band("d2m", "K", title="dew point at 2 m, mean"),
        Band("vpd", "hPa", title="vapour pressure deficit, mean"),
        Band("tp", "mm", title="precipitation, sum"),
        Band("pev", "mm", title="potential evaporation, sum"),
        Band("ssrd", "MJ m-2", title="solar radiation, sum"),
        Band("u10", "m s-1", title="eastward wind at 10 m, mean"),
        Band("v10", "m s-1", title="northward wind at 10 m, mean"),
        Band("ws10", "m s-1", title="wind speed at 10 m, mean"),
        Band("swvl1", "1", title="soil water in the upper 7 cm, mean"),
    ),
    storage=Storage("float32", 1.0, np.nan),
    title="Weather (ERA5)",
    coarse=True,
)


def vapour_deficit(temperature: Array, dew_point: Array) -> Array:
    """Vapour pressure deficit in hPa from temperature and dew point in K, over water.

    Magnus formula with the constants of Alduchov and Eskridge, Journal of Applied Meteorology 35, 1996.
    """

    def saturation(kelvin: Array) -> Array:
        celsius = kelvin - 273.15
        return np.asarray(6.1094 * np.exp(17.625 * celsius / (celsius + 243.04)))

    return np.asarray(np.maximum(saturation(temperature) - saturation(dew_point), 0.0))


def _same(values: Array) -> Array:
    return values


WEATHER = Weather(
    modality=MODALITY,
    defaults=("t2m", "tp"),
    operators={
        "t2m": "mean",
        "t2m_min": "min",
        "t2m_max": "max",
        "d2m": "mean",
        "vpd": "mean",
        "tp": "sum",
        "pev": "sum",
        "ssrd": "sum",
        "u10": "mean",
        "v10": "mean",
        "ws10": "mean",
        "swvl1": "mean",
    },
    formulas={
        "t2m_min": Formula(("t2m",), _same),
        "t2m_max": Formula(("t2m",), _same),
        "vpd": Formula(("t2m", "d2m"), vapour_deficit),
        "ws10": Formula(("u10", "v10"), np.hypot),
    },
)
