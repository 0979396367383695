"""SBX in a process of its own: for each number on standard input so many updates, for each the seconds they took on standard output."""

import json
import sys
import time
from typing import Any

from benchmarks.learner_rate import ACTIONS, BATCH, ROWS, STATES, Nothing, noise


def main() -> None:
    """Serve until the input ends. Prints an error instead of the first answer where SBX is not installed."""
    try:
        import sbx  # type: ignore[import-not-found,unused-ignore]
        from stable_baselines3.common.logger import configure
    except ImportError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    model = sbx.SAC("MlpPolicy", Nothing(), buffer_size=ROWS, batch_size=BATCH, policy_kwargs={"net_arch": [256, 256]})
    model.set_logger(configure(None, []))
    buffer: Any = model.replay_buffer
    state, action, reward, next_state, *_ = noise(STATES, ACTIONS)
    buffer.observations[:, 0], buffer.next_observations[:, 0], buffer.full = state, next_state, True
    buffer.actions[:, 0], buffer.rewards[:, 0] = action, reward
    for line in sys.stdin:
        start = time.perf_counter()
        model.train(int(line), BATCH)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
