"""The house plan, held: floors, public names, documentation, and what importing costs."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from registry import ENTRIES, NEWCOMERS
from test_schedule_laws import REGISTRY as SCHEDULES

import mlxopt as mo

ROOT = Path(mo.__file__).parent

# Imports point down; inside a floor also sideways, but an optimizer takes only a sibling's scale_by_* and its state.
FLOORS = {
    "checks": 0,
    "readable": 0,
    "reach": 0,
    "signatures": 0,
    "tracing": 0,
    "numerics": 1,
    "tree": 2,
    "base": 3,
    "extras": 4,
    "schedules": 4,
    "update": 4,
    "combine": 4,
    "hyperparameters": 4,
    "linesearch": 5,
    "transforms": 5,
    "optimizers": 6,
    "wrappers": 7,
    "compiled": 8,
    "gradients": 8,
    "checkpoint": 8,
    "inspection": 8,
    "coverage": 9,
    "interop": 9,
    "distributed": 8,
    "testing": 9,
}

FUNCTIONS_AND_TYPES = "not a transformation or schedule: tested in a file of its own"
STATE = "memory of the transformation of its name, under the laws with it"
NUMERICS = [name for name, value in vars(mo).items() if getattr(value, "__module__", "").startswith("mlxopt.numerics")]
NOT_IN_A_REGISTRY = {
    **dict.fromkeys(
        [
            "Curve",
            "GradientTransformation",
            "MaskedNode",
            "TreeError",
            "checkpoint",
            "distributed",
            "interop",
            "testing",
            "schedules",
            "tree",
        ],
        FUNCTIONS_AND_TYPES,
    ),
    **dict.fromkeys(
        [
            "by_path",
            "describe",
            "plot",
            "update_ratio",
            "is_hidden_matrix",
            "newton_schulz",
            "readable",
            "Accumulation",
            "compile_accumulation",
            "compile_step",
            "compile_update",
            "Inner",
            "PrivateStep",
            "compile_private_step",
            "differentially_private_aggregate",
            "dpsgd",
            "micro_grad",
            "micro_vmap",
            "microbatch",
            "per_example_global_norm_clip",
            "per_example_layer_norm_clip",
            "private_gradients",
            "Iteration",
            "LinesearchInfo",
            "Minimum",
            "minimize",
            "Projector",
            "galore_projector",
            "skip_large_updates",
            "skip_not_finite",
            "StatefulSchedule",
            "plateau_schedule",
            "measure_with_ema",
            "scale_gradient",
        ],
        FUNCTIONS_AND_TYPES,
    ),
    **dict.fromkeys(["apply_updates", "eval_params", "incremental_update", "periodic_update"], FUNCTIONS_AND_TYPES),
    **dict.fromkeys([name for name in vars(mo) if name in NUMERICS], FUNCTIONS_AND_TYPES),
    **dict.fromkeys([name for name in vars(mo) if name.startswith("projection_")], FUNCTIONS_AND_TYPES),
    **{name: STATE for name in vars(mo) if name.endswith("State")},
}


def public_names() -> list[str]:
    """Names that __init__ re-exports; submodules that Python adds by itself are none."""
    exported = ast.parse((ROOT / "__init__.py").read_text())
    return [
        alias.name
        for node in ast.walk(exported)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


def imports(source: str) -> set[tuple[str, str]]:
    """Pairs of module and name that a file takes from this package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlxopt"):
            module = (node.module or "").removeprefix("mlxopt").removeprefix(".")
            found |= {(module or alias.name, alias.name) for alias in node.names}
    return found


def definitions(source: str) -> set[str]:
    """Functions and classes at the top of a module."""
    return {node.name for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def upward_imports(name: str, source: str) -> list[str]:
    """Imports of a module (``optimizers.adam``) that break the table above."""
    room = name.split(".")[0]
    wrong = []
    for module, imported in sorted(imports(source)):
        other = module.split(".")[0]
        sideways = room == other == "optimizers" and not imported.startswith(("scale_by_", "ScaleBy"))
        if FLOORS[other] > FLOORS[room] or sideways:
            wrong.append(f"{name} imports {imported} from {module}")
    return wrong


def modules() -> dict[str, str]:
    """Source of every module by dotted name; the __init__ files only re-export."""
    files = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")}
    return {name: path.read_text() for path, name in files.items() if path.name != "__init__.py"}


def test_imports_point_down() -> None:
    assert [line for name, source in modules().items() for line in upward_imports(name, source)] == []


def test_the_floor_check_catches() -> None:
    assert upward_imports("tree.dtypes", "from mlxopt.combine import chain")
    assert upward_imports("optimizers.lamb", "from mlxopt.optimizers.adam import adam")
    assert not upward_imports("optimizers.lamb", "from mlxopt.optimizers.adam import scale_by_adam")


def test_no_cycles() -> None:
    names = modules()
    needs = {
        name: {module for module, _ in imports(source) if module in names and module != name}
        | {f"{module}.{imported}" for module, imported in imports(source) if f"{module}.{imported}" in names}
        for name, source in names.items()
    }
    while needs:
        free = [name for name, others in needs.items() if not others & needs.keys()]
        assert free, f"these import each other: {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


MATHEMATICS = ("linesearch", "transforms", "optimizers", "wrappers")
SPEED = r"\btracing\b|\bcompil(ed|ing)|\bmx\.(contiguous|depends|stream|compile|eval|async_eval)\b|\bstream"


def words_for_speed(source: str) -> list[str]:
    """What a file of mathematics should not know of, outside of its docstrings."""
    code = ast.parse(source)
    for node in ast.walk(code):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return [match.group() for match in re.finditer(SPEED, ast.unparse(code))]


def test_mathematics_knows_nothing_of_speed() -> None:
    rooms = {name: source for name, source in modules().items() if name.split(".")[0] in MATHEMATICS}
    assert len(rooms) > 20
    assert {name: words for name, source in rooms.items() if (words := words_for_speed(source))} == {}


def test_the_search_for_speed_catches() -> None:
    assert words_for_speed("from mlxopt.tracing import number")
    assert words_for_speed("def f(x):\n    return mx.contiguous(x)")
    assert not words_for_speed('"""Fast by mx.compile."""\nx = 1')


def test_no_file_is_longer_than_a_room_should_be() -> None:
    lengths = {name: len(source.splitlines()) for name, source in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_dir_shows_what_is_public() -> None:
    rooms = {"checkpoint", "distributed", "interop", "schedules", "testing", "tree"}
    assert set(dir(mo)) == {*public_names(), *rooms, "__version__"}
    assert all(hasattr(mo, name) for name in dir(mo))
    with pytest.raises(AttributeError, match="module 'mlxopt' has no attribute 'adamm'"):
        mo.adamm  # noqa: B018


def test_rooms_load_when_they_are_used() -> None:
    loaded = loaded_by("import mlxopt; assert mlxopt.__version__")
    rooms = ("mlxopt.checkpoint", "mlxopt.distributed", "mlxopt.interop", "mlxopt.testing")
    assert not {name for name in loaded if name.startswith(rooms)}
    assert "mlxopt.checkpoint" in loaded_by("import mlxopt; mlxopt.checkpoint.save")


def test_only_mlx_and_typing_extensions_are_imported() -> None:
    allowed = sys.stdlib_module_names | {"mlx", "mlxopt", "typing_extensions"}
    for name, source in modules().items():
        for node in ast.walk(ast.parse(source)):
            tops = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            extra = {"hypothesis", "pytest"} if name.startswith("testing.") else set()
            assert {top.split(".")[0] for top in tops} <= allowed | extra, name


def test_init_files_only_re_export() -> None:
    """That of the package also says which rooms load later, and its version."""
    for path in ROOT.rglob("__init__.py"):
        allowed: tuple[type, ...] = (ast.ImportFrom,)
        if path.parent == ROOT:
            allowed = (ast.ImportFrom, ast.Import, ast.Try, ast.If, ast.Assign, ast.FunctionDef)
        for node in ast.parse(path.read_text()).body[1:]:
            assert isinstance(node, allowed), f"{path}:{node.lineno}"


def test_every_public_name_is_in_a_registry_or_has_a_reason() -> None:
    registered = {entry.public_name for entry in [*ENTRIES, *NEWCOMERS]} | set(SCHEDULES)
    missing = set(public_names()) - registered - NOT_IN_A_REGISTRY.keys()
    assert missing == set(), f"put a line for each of {sorted(missing)} into ENTRIES of tests/registry.py"
    assert registered & NOT_IN_A_REGISTRY.keys() == set()


def builds_transformations(source: str) -> set[str]:
    """Public functions of a module whose annotation says that they build a transformation."""
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if node.returns is not None and ast.unparse(node.returns) == "GradientTransformation"
    }


def test_every_factory_is_public() -> None:
    for name, source in modules().items():
        if name.split(".")[0] in MATHEMATICS:
            missing = builds_transformations(source) - set(public_names())
            assert missing == set(), f"put lines for {sorted(missing)} of mlxopt.{name} into mlxopt/__init__.py"


def test_names_of_mlxopt_in_a_registry_are_public() -> None:
    """What else stands there is a user's own."""
    known = {entry.public_name for entry in [*ENTRIES, *NEWCOMERS]} | set(SCHEDULES) | NOT_IN_A_REGISTRY.keys()
    internal = {name for source in modules().values() for name in definitions(source)}
    assert (known & internal) - set(public_names()) == set()
    assert {entry.public_name for entry in NEWCOMERS} & internal == set()


def test_one_name_for_one_thing() -> None:
    values = [id(getattr(mo, name)) for name in public_names()]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("name", [name for name in public_names() if not inspect.ismodule(getattr(mo, name))])
def test_public_names_are_documented_and_typed(name: str) -> None:
    value = getattr(mo, name)
    text = inspect.getdoc(value) or ""
    assert text.splitlines()[0].endswith("."), "the first line is one sentence"
    if inspect.isfunction(value):
        assert ">>>" in text, "an example that runs as a doctest"
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, parameter.name
            assert f"{parameter.name}:" in text, f"Args: must tell what {parameter.name} is"


@pytest.mark.parametrize("name", [name for name in vars(mo.tree) if inspect.isfunction(getattr(mo.tree, name))])
def test_tree_functions_are_documented(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(mo.tree, name)) or "")


def loaded_by(statement: str) -> set[str]:
    """Third-party packages and parts of MLX in memory after a statement, in a fresh process."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return {name for name in output if name.split(".")[0] not in sys.stdlib_module_names} - {"__main__"}


def test_importing_pulls_in_nothing_heavy() -> None:
    heavy = {"numpy", "matplotlib", "hypothesis", "pytest", "torch", "jax", "mlx.nn", "mlx.optimizers", "mlx.utils"}
    assert heavy & loaded_by("import mlxopt") == set()
    assert heavy & loaded_by("import mlxopt, mlx.optimizers") >= {"mlx.optimizers"}


def test_without_a_backend_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['mlx.core'] = None; import mlxopt"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'mlxopt[cpu]'" in result.stderr.strip().splitlines()[-1]


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()
