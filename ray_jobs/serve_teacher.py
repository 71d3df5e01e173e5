"""A teacher for several runs, as a job that serves until it is stopped:

    ray job submit --no-wait --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/serve_teacher.py --config configs/ts_align_paper.yaml teacher.host=0.0.0.0

Of the config it reads `teacher`. Anything but loopback needs a token, in the variable that `teacher.token_env` names;
runs set `teacher.url` to the address that it prints. `ray job stop` ends it.
"""

from __future__ import annotations

import sys

from tsalign.cli import app

if __name__ == "__main__":
    app(["serve", "teacher", *(given for given in sys.argv[1:] if given != "--config")])
