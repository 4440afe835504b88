"""The import law, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mdico_cube"
FLOORS = [
    {"errors", "markup"},
    {"spec", "period"},
    {"alone", "batch", "recipe", "schema", "progress"},
    {"sensors"},
    {"cube"},
    {"patches", "colearn"},
    {"maps"},
    {"benchmarks", "demo"},
    {"accessor", "doctor"},
    {"explorer"},
    {"journey"},
    {"cli"},
]
FORBIDDEN = {
    "colearn": {"xarray", "dask", "distributed", "zarr", "pystac", "pystac_client", "odc", "rasterio", "stackstac"},
    "cube": {"torch", "lightning"},
    "sensors": {"torch", "lightning", "odc", "rasterio", "dask", "zarr"},
    "demo": {"torch", "lightning"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """First name below the package: "mdico_cube.cube.build" is in "cube"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, inside a function or under TYPE_CHECKING) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) not in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found.append((node.module or "", node.lineno, id(node) not in top))
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int:
    (level,) = [i for i, names in enumerate(FLOORS) if name in names]
    return level


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_run_against_the_data(path: Path) -> None:
    here = room(module_of(path))
    for module, line, _ in imports(path):
        if module.startswith("mdico_cube") and here and room(module) not in ("", here):
            assert floor(room(module)) < floor(here), f"{path}:{line}: {here} imports {module}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_import_hides_inside(path: Path) -> None:
    hidden = [f"{path}:{line} {module}" for module, line, inside in imports(path) if inside and module != "__future__"]
    assert not hidden


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_each_room_keeps_to_its_libraries(path: Path) -> None:
    forbidden = FORBIDDEN.get(room(module_of(path)), set())
    used = {module.split(".")[0] for module, _, _ in imports(path)}
    assert not used & forbidden


def test_no_circle_between_modules() -> None:
    graph = {module_of(p): {m for m, _, _ in imports(p) if m.startswith("mdico_cube")} for p in FILES}
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if state.get(name) == 1:
            raise AssertionError(" -> ".join((*path, name)))
        if name in graph and name not in state:
            state[name] = 1
            for other in graph[name]:
                visit(other, (*path, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


def test_the_first_half_of_the_journey_loads_no_torch() -> None:
    code = (
        "import sys, mdico_cube.cube.build, mdico_cube.sensors.registry, mdico_cube.patches.extract;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["plan", "build", "inspect_cube", "load_bundle", "predict_map", "write_map"])
def test_only_training_loads_lightning(name: str) -> None:
    """It takes longer to load than most commands take."""
    code = f"import sys, mdico_cube; mdico_cube.{name}; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_unsafe_is_called(path: Path) -> None:
    """No pickle, no unsafe YAML, no torch.load without weights_only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("yaml.load", "pickle.load", "pickle.loads", "eval", "exec"), f"{path}:{node.lineno}"
            if name == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
    assert "pickle" not in {module.split(".")[0] for module, _, _ in imports(path)}
