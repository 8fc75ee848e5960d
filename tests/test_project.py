"""The set-up: one list of dependencies, one version, commands that say what is wrong."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import version

import pytest
import yaml
from conftest import ROOT
from notebooks import chapters
from packaging.requirements import Requirement

import dcgan_lib

CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIGURATION["project"]
PACKAGES = CONFIGURATION["tool"]["setuptools"]["packages"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OPTIONAL = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *OPTIONAL.values())
    for text in group
    if not text.startswith("dcgan-lib")
]
NOT_INSTALLED = {Requirement(text).name for text in OPTIONAL["inception"]}  # its network is a download


def make(*arguments, cwd=ROOT) -> subprocess.CompletedProcess:
    # A make that runs this test must not hand its own options down.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_a_dependency_has_a_lower_bound_that_is_installed(requirement):
    assert any(bound.operator == ">=" for bound in requirement.specifier)
    if requirement.name not in NOT_INSTALLED:
        assert requirement.specifier.contains(version(requirement.name), prereleases=True)


def test_the_tests_install_every_extra_but_one():
    (text,) = (text for text in OPTIONAL["test"] if text.startswith("dcgan-lib"))
    assert Requirement(text).extras == OPTIONAL.keys() - {"test", "inception"}


def test_only_a_known_break_has_an_upper_bound():
    bounded = {requirement.name for requirement in REQUIREMENTS if "<" in str(requirement.specifier)}
    assert bounded == {"jupyter-book"}


def test_environment_file_is_no_second_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    names = [entry if isinstance(entry, str) else entry["pip"] for entry in environment["dependencies"]]
    assert [re.split("[=<>]", name)[0] if isinstance(name, str) else name for name in names] == [
        "python",
        "pip",
        ["--editable .[test]"],
    ]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == dcgan_lib.__version__ == citation["version"]


def test_every_module_is_in_the_api_reference():
    listed = re.findall(r"automodule:: dcgan_lib\.(\w+)", (ROOT / "book" / "api.md").read_text(encoding="utf-8"))
    modules = [path.stem for path in (ROOT / "dcgan_lib").glob("*.py") if not path.stem.startswith("__")]
    packages = [path.parent.name for path in (ROOT / "dcgan_lib").glob("*/__init__.py")]
    assert sorted(listed) == sorted(modules + packages)
    assert sorted(PACKAGES) == sorted(["dcgan_lib", *(f"dcgan_lib.{name}" for name in packages)])


def test_readme_says_what_each_file_is_for():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in ("dcgan_lib", "tools"):
        missing = [
            path.name
            for path in (ROOT / folder).glob("*.py")
            if path.stem != "__init__" and f"{path.name}`" not in readme
        ]
        assert not missing
    assert all(f"(book/{path.name})" in readme for path in chapters())
    assert not re.search(r"\b(TIMES|FILES|TODO)\b", readme)


def test_the_glossary_is_in_alphabetical_order():
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\S.*)\n  \S", text.split(":::{glossary}\n")[1], re.MULTILINE)
    assert len(terms) >= 30
    assert terms == sorted(terms, key=str.lower)


def test_every_source_is_complete():
    entries = (ROOT / "book" / "references.bib").read_text(encoding="utf-8").split("\n@")
    for entry in entries:
        missing = [field for field in ("author", "title", "year", "url") if f"  {field:<9} = {{" not in entry]
        assert not missing, f"{entry.splitlines()[0]} has no {missing}"


def test_continuous_integration_runs_make_test():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "exec make test" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": ".ci/run"}


def test_the_published_book_links_to_its_own_repository():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    assert commands[0].startswith("make repository URL=")
    assert commands[1] == "make book"


def test_make_lists_every_target():
    listed = {line.split()[0] for line in make("help").stdout.splitlines()}
    assert listed == set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split())


def test_an_old_python_is_named(tmp_path):
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\nexit 99\n')
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "pyproject.toml").touch()
    finished = make(f"PYTHON={old}", "book", cwd=tmp_path)
    assert finished.returncode == 2
    assert f"Python 3.11 or newer is needed, and {old} is not" in finished.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_repository_asks_for_the_address():
    finished = make("repository")
    assert finished.returncode == 2
    assert "make repository URL=https://github.com/owner/name" in finished.stdout
