"""One file a question. Thread counts are fixed here, before numpy or torch is imported, so that figures compare."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
