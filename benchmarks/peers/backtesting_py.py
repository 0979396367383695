"""backtesting.py: python backtesting_py.py CANDLES.csv FAST SLOW STAKE FEE CAPITAL."""
# mypy: ignore-errors

import json
import sys
import time
import warnings

import backtesting
import pandas as pd
from backtesting import Backtest, Strategy

warnings.filterwarnings("ignore")


def average(values, length):
    return pd.Series(values).rolling(length).mean()


class Cross(Strategy):
    fast = slow = stake = 0

    def init(self):
        self.quick = self.I(average, self.data.Close, self.fast)
        self.calm = self.I(average, self.data.Close, self.slow)

    def next(self):
        if self.quick[-1] > self.calm[-1]:
            if not self.position:
                self.buy(size=int(self.stake / self.data.Close[-1]))
        elif self.position:
            self.position.close()


def main(path, fast, slow, stake, fee, capital):
    frame = pd.read_csv(path)
    frame.index = pd.to_datetime(frame.pop("timestamp"), unit="ms")
    frame.columns = [name.capitalize() for name in frame.columns]
    run = Backtest(frame, Cross, cash=capital, commission=fee)
    start, spent = time.perf_counter(), time.process_time()
    done = run.run(fast=fast, slow=slow, stake=stake)
    taken, spent = time.perf_counter() - start, time.process_time() - spent
    return {
        "version": backtesting.__version__, "seconds": taken, "cpu": spent, "bars": len(frame),
        "trades": len(done["_trades"]), "equity": float(done["Equity Final [$]"]),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:7]))))
