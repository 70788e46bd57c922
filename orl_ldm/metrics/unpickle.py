"""Reading a pickle of numpy arrays from a stranger."""

import io
import pickle
from typing import Any

import numpy as np

# The only callables that a pickled array needs. `_reconstruct` has moved between numpy's versions; an array knows it.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Every callable of a pickle comes through here, so that what is not listed can never run."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: only numpy arrays are read") from None


def load_arrays(data: bytes) -> Any:
    """Nested dicts, lists and scalars of numpy arrays from a pickle.

    Raises:
        pickle.UnpicklingError: the pickle asks for anything else (it is refused before it can run), or is damaged.
    """
    return _ArrayUnpickler(io.BytesIO(data)).load()
