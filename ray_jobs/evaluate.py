"""Two models compared under one judge, as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/evaluate.py --config evaluate.yaml storage=s3://BUCKET/runs

The keys are those of `recipe: evaluate` (docs/config.md): `model`, `against`, `evaluation`, and what goes with them. To
compare what a run made with what it began from: `model.model=s3://BUCKET/runs/RUN/iterations/3/policy`.
"""

from __future__ import annotations

from tsalign.cli.scripts import script

if __name__ == "__main__":
    script("evaluate")
