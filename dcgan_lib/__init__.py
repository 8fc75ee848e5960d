"""The tested package behind the book *DCGAN from the ground up*.

Import the module you need, for example ``from dcgan_lib import models, training``. Nothing heavier than
``torch`` is imported until a module that needs it is.
"""

__version__ = "0.1.0"
