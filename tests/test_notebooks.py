"""Every chapter keeps to the rules and runs with small parameters; and the checks notice what they are for.

The strict comparison of stored outputs is a run of its own, `pytest book --nbval ...`: see tools/check.py.
"""

import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from chapter_rules import problems, with_solutions
from check import COMPARISON
from nbformat import v4
from notebooks import KERNEL, chapters, refresh
from papermill.exceptions import PapermillExecutionError
from repository import FIRST_CELL_TAGS, configured_url, first_cell

CHAPTERS = chapters()

EXERCISE = """\
::::{{exercise}}
:label: ex-{n}
Try.
::::

::::{{solution}} ex-{n}
:class: dropdown
```python
x = {n}
```
::::
"""

PROSE = """\
# A title

Why would anyone read this?

## Exercises

""" + "\n".join(EXERCISE.format(n=n) for n in range(3))


def small_chapter(code="steps = 1 if quick else 2\nprint(1 + 1)") -> nbformat.NotebookNode:
    """A chapter that keeps to every rule, once it was run."""
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell(PROSE),
            v4.new_code_cell(first_cell(configured_url()), metadata={"tags": list(FIRST_CELL_TAGS)}),
            v4.new_code_cell("quick = False", metadata={"tags": ["parameters"]}),
            v4.new_code_cell(code),
        ],
        metadata={"kernelspec": dict(KERNEL)},
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> nbformat.NotebookNode:
    """The small chapter as `make notebooks` stores it."""
    path = tmp_path_factory.mktemp("chapter") / "small.ipynb"
    nbformat.write(small_chapter(), path)
    assert refresh(path) == []
    return nbformat.read(path, as_version=4)


@pytest.fixture
def chapter(executed) -> nbformat.NotebookNode:
    """A copy of the executed small chapter, to be spoilt."""
    return nbformat.from_dict(nbformat.reads(nbformat.writes(executed), as_version=4))


def run_papermill(source: Path, target: Path, folder: Path | None = None) -> None:
    options = {"kernel_name": "python3", "cwd": folder or source.parent, "progress_bar": False}
    papermill.execute_notebook(source, target, {"quick": True}, **options)


def run_nbval(path: Path) -> subprocess.CompletedProcess:
    """Compare one notebook as `make test` compares the chapters."""
    command = [str(path) if part == "book" else part for part in COMPARISON]
    return subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True, timeout=300)


def test_the_book_has_chapters():
    assert len(CHAPTERS) >= 3
    assert sorted(CHAPTERS) == sorted((Path(__file__).parent.parent / "book").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_keeps_to_the_rules(path):
    assert problems(nbformat.read(path, as_version=4), configured_url()) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_and_its_solutions_run_with_small_parameters(path, tmp_path):
    chapter = with_solutions(nbformat.read(path, as_version=4))
    assert sum(cell.source.startswith("# the solution of") for cell in chapter.cells) >= 3
    nbformat.write(chapter, tmp_path / path.name)
    run_papermill(tmp_path / path.name, tmp_path / "out.ipynb", path.parent)
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    injected = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1
    assert "quick = True" in injected[0].source


def test_small_chapter_passes(chapter):
    assert problems(chapter, configured_url()) == []


def spoil_never_run(chapter):
    chapter.cells[-1].execution_count = None
    chapter.cells[-1].outputs = []


def spoil_order(chapter):
    chapter.cells[-1].execution_count = 7


def spoil_first_cell(chapter):
    chapter.cells[1].source += "\n# edited"


def spoil_parameters(chapter):
    del chapter.cells[2].metadata["tags"]


def spoil_kernel(chapter):
    chapter.metadata.kernelspec.name = "my-environment"


def spoil_error(chapter):
    chapter.cells[-1].outputs = [v4.new_output("error", ename="ValueError", evalue="", traceback=[])]


def spoil_widget(chapter):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
    chapter.cells[-1].outputs = [v4.new_output("display_data", data=data)]


def spoil_progress(chapter):
    chapter.cells[-1].outputs = [v4.new_output("stream", text="100%|#####| 3/3 [00:01<00:00, 2.1it/s]")]


def spoil_address(chapter):
    data = {"text/plain": "<object at 0x7f33b0a1c2d0>"}
    chapter.cells[-1].outputs = [v4.new_output("execute_result", data=data, execution_count=3)]


def spoil_alt_text(chapter):
    chapter.cells[-1].metadata["mystnb"] = {"figure": {"caption": "A line."}}
    chapter.cells[-1].outputs = [v4.new_output("display_data", data={"image/png": "AAAA"})]


def spoil_size(chapter):
    chapter.cells[-1].outputs = [v4.new_output("stream", text="x" * 600_000)]


def spoil_question(chapter):
    chapter.cells[0].source = chapter.cells[0].source.replace("?", ".")


def spoil_solution(chapter):
    chapter.cells[0].source = chapter.cells[0].source.replace("{solution} ex-2", "{note} ex-2")


def spoil_solution_code(chapter):
    chapter.cells[0].source = chapter.cells[0].source.replace("```python\nx = 1\n```", "One.")


def spoil_heading(chapter):
    chapter.cells[0].source = chapter.cells[0].source.replace("## Exercises", "### Exercises")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_never_run, "not every code cell was run"),
        (spoil_order, "not every code cell was run"),
        (spoil_first_cell, "the first code cell is not"),
        (spoil_parameters, "must be tagged `parameters`"),
        (spoil_kernel, "python3"),
        (spoil_error, "an error is stored"),
        (spoil_widget, "a widget view is stored"),
        (spoil_progress, "a progress bar is stored"),
        (spoil_address, "a memory address is stored"),
        (spoil_alt_text, "a figure has no alt text"),
        (spoil_size, "are the limit"),
        (spoil_question, "open with a question"),
        (spoil_solution, "ex-2 has no solution"),
        (spoil_solution_code, "ex-1 has no ```python block"),
        (spoil_heading, "skips a level"),
    ],
)
def test_rules_notice(chapter, spoil, message):
    spoil(chapter)
    assert any(message in problem for problem in problems(chapter, configured_url()))


@pytest.mark.slow
def test_papermill_fails_on_a_broken_cell(tmp_path):
    nbformat.write(small_chapter("assert not quick"), tmp_path / "broken.ipynb")
    with pytest.raises(PapermillExecutionError, match="AssertionError"):
        run_papermill(tmp_path / "broken.ipynb", tmp_path / "out.ipynb")


@pytest.mark.slow
def test_papermill_fails_on_a_broken_solution(tmp_path):
    chapter = small_chapter()
    chapter.cells[0].source = chapter.cells[0].source.replace("x = 2", "assert x == 7")
    nbformat.write(with_solutions(chapter), tmp_path / "broken.ipynb")
    with pytest.raises(PapermillExecutionError, match="the solution of ex-2"):
        run_papermill(tmp_path / "broken.ipynb", tmp_path / "out.ipynb")


@pytest.mark.slow
def test_nbval_passes_what_was_stored_and_fails_on_an_edited_output_or_a_broken_cell(chapter, tmp_path):
    path = tmp_path / "small.ipynb"
    nbformat.write(chapter, path)
    finished = run_nbval(path)
    assert finished.returncode == 0, finished.stdout

    edited = nbformat.from_dict(chapter)
    edited.cells[-1].outputs[0].text = "3\n"
    nbformat.write(edited, path)
    finished = run_nbval(path)
    assert finished.returncode == 1
    assert "disagreement" in finished.stdout or "mismatch" in finished.stdout

    edited.cells[-1].source = "raise RuntimeError('broken')"
    nbformat.write(edited, path)
    finished = run_nbval(path)
    assert finished.returncode == 1
    assert "RuntimeError" in finished.stdout


@pytest.mark.slow
def test_notebooks_tool_stores_no_widgets_and_a_failing_chapter_keeps_its_outputs(tmp_path):
    # The pause makes the kernel send the printed text in two pieces.
    code = "import time\n\nimport ipywidgets\n\nprint(7, flush=True)\ntime.sleep(1)\nprint(8)\nipywidgets.IntSlider()"
    path = tmp_path / "widget.ipynb"
    nbformat.write(small_chapter(code), path)
    assert any("nbval-ignore-output" in complaint for complaint in refresh(path))
    outputs = nbformat.read(path, as_version=4).cells[-1].outputs
    assert [output.text for output in outputs] == ["7\n8\n"]

    nbformat.write(small_chapter("1 / 0"), path)
    before = path.read_bytes()
    command = [sys.executable, str(Path(__file__).parent.parent / "tools" / "notebooks.py"), str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 1
    assert "ZeroDivisionError" in finished.stdout
    assert path.read_bytes() == before
