import shutil
import time
from pathlib import Path

from mammo.datasets.phantom import write_phantoms
from tests.flows.markers import _every_keyword, _marked, needles

shutil.rmtree("/tmp/pl", ignore_errors=True)
if __name__ == "__main__":
    write_phantoms(Path("/tmp/pl"), women=3, seed=5, long_side=128, workers=1)
    t = time.time()
    _marked(_every_keyword())
    print(time.time() - t)
    import cProfile

    t = time.time()
    cProfile.run('plant(Path("/tmp/pl"))', sort="cumtime")
    print(time.time() - t)
    print(needles())
