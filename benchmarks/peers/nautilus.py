"""nautilus_trader (Rust and Cython): python nautilus.py CANDLES.csv FAST SLOW STAKE FEE CAPITAL."""
# mypy: ignore-errors

import json
import sys
import time
from decimal import Decimal

import nautilus_trader
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TraderId, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("SIM")


class Cross(Strategy):
    def __init__(self, instrument, kind, fast, slow, stake):
        super().__init__()
        self.instrument, self.kind, self.stake = instrument, kind, stake
        self.quick, self.calm = SimpleMovingAverage(fast), SimpleMovingAverage(slow)
        self.held = None

    def on_start(self):
        self.register_indicator_for_bars(self.kind, self.quick)
        self.register_indicator_for_bars(self.kind, self.calm)
        self.subscribe_bars(self.kind)

    def on_bar(self, bar):
        if not self.calm.initialized:
            return
        if self.quick.value > self.calm.value:
            if self.held is None:
                self.held = Quantity.from_int(int(self.stake / bar.close.as_double()))
                self.submit_order(self.order_factory.market(self.instrument.id, OrderSide.BUY, self.held))
        elif self.held is not None:
            self.submit_order(self.order_factory.market(self.instrument.id, OrderSide.SELL, self.held))
            self.held = None


def market(fee):
    return CurrencyPair(
        InstrumentId(Symbol("BTC/USDT"), VENUE), Symbol("BTCUSDT"), BTC, USDT, 5, 0, Price.from_str("0.00001"), Quantity.from_int(1),
        0, 0, maker_fee=Decimal(repr(fee)), taker_fee=Decimal(repr(fee)), margin_init=Decimal(0), margin_maint=Decimal(0),
    )  # fmt: skip


def main(path, fast, slow, stake, fee, capital):
    instrument = market(fee)
    kind = BarType.from_str(f"{instrument.id}-1-HOUR-LAST-EXTERNAL")
    frame = pd.read_csv(path)
    frame.index = pd.to_datetime(frame.pop("timestamp"), unit="ms", utc=True) + pd.Timedelta(hours=1)
    bars = BarDataWrangler(kind, instrument).process(frame)
    quiet = LoggingConfig(bypass_logging=True)
    engine = BacktestEngine(BacktestEngineConfig(trader_id=TraderId("T-1"), logging=quiet))
    # A market order at a closing fills at that price, without latency; with latency it would wait until the next closing.
    engine.add_venue(VENUE, OmsType.NETTING, AccountType.CASH, [Money(capital, USDT)], bar_execution=True)
    engine.add_instrument(instrument)
    engine.add_data(bars)
    strategy = Cross(instrument, kind, fast, slow, stake)
    engine.add_strategy(strategy)
    start, spent = time.perf_counter(), time.process_time()
    engine.run()
    taken, spent = time.perf_counter() - start, time.process_time() - spent
    account = engine.cache.account_for_venue(VENUE)
    held = float(account.balance_total(BTC).as_double()) if account.balance_total(BTC) is not None else 0.0
    equity = float(account.balance_total(USDT).as_double()) + held * bars[-1].close.as_double()
    return {
        "version": nautilus_trader.__version__, "seconds": taken, "cpu": spent, "bars": len(bars),
        "trades": (engine.cache.orders_total_count() + 1) // 2, "equity": equity,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:7]))))
