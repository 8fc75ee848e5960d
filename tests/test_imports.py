import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dcgan_lib

PACKAGE = Path(dcgan_lib.__file__).parent
SOURCES = {path.stem: [path] for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")} | {
    path.parent.name: sorted(path.parent.glob("*.py")) for path in PACKAGE.glob("*/__init__.py")
}
MODULES = sorted(SOURCES)


def loaded_after(statement: str) -> set[str]:
    """Names of the modules in a fresh interpreter after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(finished.stdout))


def imports(module: str) -> set[str]:
    """Modules of the package that a module, or a folder of modules, imports as it is loaded; not inside functions."""
    found = set()
    nodes = [node for path in SOURCES[module] for node in ast.parse(path.read_text(encoding="utf-8")).body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ImportFrom) and node.module == "dcgan_lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dcgan_lib."):
            found.add(node.module.split(".")[1])
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)
    return found & set(MODULES) - ({module} if len(SOURCES[module]) > 1 else set())


def test_the_package_itself_imports_nothing():
    modules = loaded_after("import dcgan_lib")
    assert "dcgan_lib" in modules
    assert not {name.split(".")[0] for name in modules} & {"torch", "numpy", "matplotlib", "IPython", "ipywidgets"}
    assert not [name for name in modules if name.startswith("dcgan_lib.")]


def test_training_imports_no_plotting_and_no_notebook():
    modules = {name.split(".")[0] for name in loaded_after("import dcgan_lib.training, dcgan_lib.cli")}
    assert {"torch", "tyro"} <= modules
    assert not modules & {"matplotlib", "IPython", "ipywidgets", "torchmetrics", "onnx", "onnxscript", "jupyter_core"}


@pytest.mark.parametrize("module", ["data", "models", "losses", "convolution"])
def test_the_foundations_import_none_of_each_other(module):
    allowed = {"convolution"} if module == "models" else set()
    assert imports(module) & {"data", "models", "losses", "convolution"} <= allowed


def test_imports_follow_the_arrows_of_the_design():
    order = ["data", "models", "losses", "training", "latent", "metrics", "plots", "widgets", "cli"]
    assert imports("training")  # the reader of imports sees something
    for position, module in enumerate(order):
        later = set(order[position + 1 :])
        if module == "training":
            later.discard("latent")  # the sample grids come from the one place that makes images from z
        if module in MODULES:
            assert not imports(module) & later, module


def test_no_module_imports_itself_in_a_circle():
    def reachable(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
        direct = imports(module) - seen
        return direct.union(*(reachable(name, seen | direct) for name in direct))

    for module in MODULES:
        assert module not in reachable(module), module
