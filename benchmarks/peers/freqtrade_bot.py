"""freqtrade, without its network: python freqtrade_bot.py CANDLES.csv FAST SLOW STAKE FEE CAPITAL."""
# mypy: ignore-errors

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import freqtrade
import pandas as pd
from freqtrade.configuration import TimeRange
from freqtrade.enums import RunMode
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.resolvers import ExchangeResolver

PAIR = "BTC/USDT"
STRATEGY = """
from freqtrade.strategy import IStrategy
class Cross(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1h"
    minimal_roi = {{"0": 1000}}
    stoploss = -0.99
    startup_candle_count = 0
    process_only_new_candles = True
    use_exit_signal = True
    def populate_indicators(self, dataframe, metadata):
        dataframe["quick"] = dataframe["close"].rolling({fast}).mean()
        dataframe["calm"] = dataframe["close"].rolling({slow}).mean()
        return dataframe
    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["quick"] > dataframe["calm"], "enter_long"] = 1
        return dataframe
    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["quick"] <= dataframe["calm"], "exit_long"] = 1
        return dataframe
"""


def settings(folder, stake, fee, capital):
    return {
        "runmode": RunMode.BACKTEST, "dry_run": True, "dry_run_wallet": capital, "stake_currency": "USDT", "stake_amount": stake,
        "max_open_trades": 1, "fee": fee, "timeframe": "1h", "strategy": "Cross", "strategy_path": str(folder), "trading_mode": "spot",
        "user_data_dir": folder, "datadir": folder / "data", "export": "none", "exportfilename": folder / "out", "exportdirectory": folder,
        "exchange": {"name": "binance", "pair_whitelist": [PAIR], "pair_blacklist": []}, "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {"price_side": "same", "use_order_book": False}, "exit_pricing": {"price_side": "same", "use_order_book": False},
        "original_config": {}, "dataformat_ohlcv": "feather", "dataformat_trades": "feather", "tradable_balance_ratio": 1.0,
        "last_stake_amount_min_ratio": 0.5, "unfilledtimeout": {"entry": 10, "exit": 10, "unit": "minutes"}, "backtest_cache": "none",
    }  # fmt: skip


def market():
    precision = {"amount": 0.0001, "price": 0.00001}
    return {
        "id": "BTCUSDT", "symbol": PAIR, "base": "BTC", "quote": "USDT", "active": True, "spot": True, "type": "spot", "swap": False,
        "future": False, "margin": False, "linear": None, "contractSize": None, "precision": precision, "taker": 0.001, "maker": 0.001,
        "limits": {"amount": {"min": 0.0001, "max": 1e9}, "cost": {"min": 1, "max": 1e9}, "price": {"min": 1e-5, "max": 1e9}}, "info": {},
    }  # fmt: skip


def main(path, fast, slow, stake, fee, capital):
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp())
    (folder / "cross.py").write_text(STRATEGY.format(fast=fast, slow=slow))
    (folder / "data").mkdir()
    config = settings(folder, stake, fee, capital)
    exchange = ExchangeResolver.load_exchange(config, validate=False)
    exchange._markets = {PAIR: market()}
    exchange._api.set_markets([market()])
    run = Backtesting(config, exchange)
    frame = pd.read_csv(path)
    frame["date"] = pd.to_datetime(frame.pop("timestamp"), unit="ms", utc=True)
    frame = frame[["date", "open", "high", "low", "close", "volume"]]
    start, spent = time.perf_counter(), time.process_time()
    with run.progress if run.progress is not None else open("/dev/null"):
        run.backtest_one_strategy(run.strategylist[0], {PAIR: frame}, TimeRange())
    taken, spent = time.perf_counter() - start, time.process_time() - spent
    done = run.all_bt_content["Cross"]
    return {
        "version": freqtrade.__version__, "seconds": taken, "cpu": spent, "bars": len(frame),
        "trades": len(done["results"]), "equity": float(done["final_balance"]),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:7]))))
