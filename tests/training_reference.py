"""What open_clip says about learning rates and the sigmoid loss, for tests/training_options.

Makes tests/data/training/schedules.json. Needs open_clip_torch and torch; the test itself needs neither Python nor these.

    python tests/training_reference.py
"""

import json
from pathlib import Path

from open_clip_train.scheduler import const_lr, const_lr_cooldown

OUT = Path(__file__).parent / "data" / "training"


class Optimizer:
    param_groups = []


def schedules():
    """Rates of every update. open_clip's warm-up is one step ahead of the official FLIP code, so only what follows it counts."""
    cases = []
    for peak, warmup, steps, cooldown, end in [(1e-3, 5, 40, 10, 0.0), (5e-4, 0, 30, 30, 1e-5), (2e-3, 8, 20, 12, 1e-6)]:
        rate = const_lr_cooldown(Optimizer, peak, warmup, steps, cooldown, 1.0, end)
        rates = [rate(step) for step in range(steps)]
        cases.append(dict(peak=peak, warmup=warmup, steps=steps, cooldown=cooldown, end=end, rates=rates))
    peak, warmup, steps = 3e-4, 4, 12
    rate = const_lr(Optimizer, peak, warmup, steps)
    cases.append(dict(peak=peak, warmup=warmup, steps=steps, cooldown=0, end=0.0, rates=[rate(s) for s in range(steps)]))
    (OUT / "schedules.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    schedules()
