"""Every law of the family, gathered: importing this fills `LAWS`."""

import laws_autograd  # noqa: F401
import laws_derivatives  # noqa: F401
import laws_errors  # noqa: F401
import laws_layout  # noqa: F401
import laws_losses  # noqa: F401
import laws_values  # noqa: F401
from lawbook import LAWS, Case, Law, name_of

__all__ = ["LAWS", "Case", "Law", "name_of"]
