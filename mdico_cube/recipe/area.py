"""Where and when, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from mdico_cube.period import Period
from mdico_cube.recipe.section import Section, day_text


class Area(Section):
    """Where: exactly one of bbox, bounds, geojson or tile."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees (EPSG:4326); west > east crosses the antimeridian."""
    bounds: tuple[float, float, float, float] | None = None
    """Left, bottom, right, top in the units of `crs`; `crs` must then be given."""
    geojson: Path | None = None
    """GeoJSON file in degrees; the cube covers its bounding box, over the antimeridian where that is shorter."""
    tile: str | None = None
    """Sentinel-2 tile by its name in the Military Grid, such as 31UFS: its 109.8 km square, in its own UTM zone."""
    crs: str = "auto"
    """Grid of the cube: "auto" = the UTM zone of the area's centre, or any code such as "EPSG:3035"."""
    resolution: Annotated[float, Field(gt=0)] = 10.0
    """Pixel size in units of the CRS."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [key for key in ("bbox", "bounds", "geojson", "tile") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of bbox, bounds, geojson, tile (got {', '.join(given) or 'none'})")
        if self.bounds is not None and self.crs == "auto":
            raise ValueError("bounds are in the units of a CRS: set crs, for example EPSG:32631")
        box = self.bbox or self.bounds
        backwards = box is not None and (box[0] == box[2] or (box[0] > box[2] and self.bbox is None))
        if box is not None and (backwards or box[1] >= box[3]):
            raise ValueError(f"must run from the lower left to the upper right corner, came {list(box)}")
        if self.bbox is not None and not (
            max(map(abs, self.bbox[::2])) <= 180 and max(map(abs, self.bbox[1::2])) <= 90
        ):
            raise ValueError(f"bbox is in degrees of longitude and latitude, came {list(self.bbox)}")
        return self


class PeriodSection(Section):
    """When: first and last day belong to the period, and to every window and season."""

    model_config = ConfigDict(
        json_schema_extra={"required": [], "anyOf": [{"required": ["start", "end"]}, {"required": ["windows"]}]}
    )

    start: str
    """First day, ISO date; left out where windows say it."""
    end: str
    """Last day, ISO date; left out where windows say it."""
    step: str = "MS"
    """Time step: a pandas offset (MS = calendar months, 10D = ten days), dekad (days 1-10, 11-20, 21 to the month's
    end), or season (one step per season)."""
    season: tuple[str, str] | None = None
    """Only these days of each year, as [month-day, month-day], for example ["10-01", "03-31"]; it may run over the turn
    of the year. Each season is cut into steps of its own."""
    windows: tuple[tuple[str, str], ...] = ()
    """The steps themselves, as [first day, last day] each: of any length, in order, without overlap, with or without
    gaps. They take the place of start, end, step and season."""

    @model_validator(mode="before")
    @classmethod
    def _ends_of_windows(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        data = dict(value)
        windows = data.get("windows")
        if isinstance(windows, list | tuple) and all(isinstance(w, list | tuple) and len(w) == 2 for w in windows):
            data["windows"] = windows = [[str(day) for day in window] for window in windows]
            if windows:
                ends = {"start": windows[0][0], "end": windows[-1][1]}
                said = {key: str(data[key]) for key in ends if key in data}
                if not said.items() <= ends.items() or data.get("season") or data.get("step", "MS") != "MS":
                    raise ValueError("windows are the steps themselves: leave out start, end, step and season")
                data |= ends
        return data

    @field_validator("start", "end", mode="before")
    @classmethod
    def _dates_as_text(cls, value: Any) -> str:
        return day_text(value)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.step == "season" and self.season is None:
            raise ValueError('step: season needs a season, for example ["10-01", "03-31"]')
        return self

    @property
    def period(self) -> Period:
        """The same as a Period."""
        return Period(self.start, self.end, self.step, self.season, self.windows)
