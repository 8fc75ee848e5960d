"""A chapter shows the code that runs, at the margin, whatever its depth in the file."""

import inspect

from dcgan_lib import models
from dcgan_lib.source import source


def test_a_method_is_shown_from_the_margin():
    shown = source(models.Generator.forward).data
    assert shown.startswith("```python\ndef forward(self, z: Tensor) -> Tensor:\n    ")
    assert shown.endswith("```")
    assert "return self.layers(z[:, :, None, None])" in shown


def test_a_function_is_shown_as_it_stands():
    assert source(models.count_parameters).data == f"```python\n{inspect.getsource(models.count_parameters)}```"
