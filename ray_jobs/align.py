"""A run of any recipe as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/align.py --config configs/ts_align_paper.yaml storage=s3://BUCKET/runs

The whole working directory travels; `tsalign submit` sends only the config and the files that it names.
"""

from __future__ import annotations

from tsalign.cli.scripts import script

if __name__ == "__main__":
    script()
