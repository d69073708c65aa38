"""Work for Dask workers that does not let go: a module of its own, quick to import."""

import os
import threading
from pathlib import Path


def hold(number: int, folder: Path) -> int:
    """Square a number; the first to get 3 says who it is and waits for ever."""
    holder = folder / "holder"
    if number == 3:
        try:
            with holder.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return number * number
        holder.rename(folder / "ready")
        holder.touch()
        threading.Event().wait()
    return number * number
