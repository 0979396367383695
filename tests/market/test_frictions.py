"""Fees round against us, queues only shorten, impact only worsens."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.instruments import Currency, Instrument, Symbol
from agents.market.frictions import (
    BackQueue,
    FixedLatency,
    FrontQueue,
    MakerTakerFee,
    NoFee,
    NoImpact,
    NoLatency,
    ProRataQueue,
    SquareRootImpact,
    round_fee,
)

D = Decimal
BTC = Instrument(
    Symbol("BTC/USDT"), Currency("BTC"), Currency("USDT"), D("0.01"), D("0.001"), maker_fee=D("0.0002"), taker_fee=D("0.0005")
)
quantities = st.decimals(min_value=0, max_value=1000, places=3)
positive = st.decimals(min_value=D("0.001"), max_value=1000, places=3)


@pytest.mark.parametrize(
    ("fee", "maker", "taker"),
    [(MakerTakerFee(), "0.0002", "0.0005"), (MakerTakerFee(D("-0.0001"), D("0.001")), "-0.0001", "0.001"), (NoFee(), "0", "0")],
)
def test_fee_rates(fee: MakerTakerFee | NoFee, maker: str, taker: str) -> None:
    assert fee.rate(BTC, maker=True) == D(maker)
    assert fee.rate(BTC, maker=False) == D(taker)


@pytest.mark.parametrize(
    ("exact", "rounded"), [("0.000000001", "0.00000001"), ("0.1", "0.10000000"), ("-0.000000019", "-0.00000001")]
)
def test_fees_round_up(exact: str, rounded: str) -> None:
    assert round_fee(D(exact)) == D(rounded)


def test_latency() -> None:
    assert (FixedLatency(5, 7).command_ns(), FixedLatency(5, 7).report_ns()) == (5, 7)
    assert (NoLatency().command_ns(), NoLatency().report_ns()) == (0, 0)


@pytest.mark.parametrize("queue", [ProRataQueue(), BackQueue(), FrontQueue()])
@given(displayed=positive, ahead_share=st.decimals(0, 1, places=3), left_share=st.decimals(0, 1, places=3))
def test_queue_only_shortens(
    queue: ProRataQueue | BackQueue | FrontQueue, displayed: Decimal, ahead_share: Decimal, left_share: Decimal
) -> None:
    ahead, after = displayed * ahead_share, displayed * left_share
    left = queue.shrink(ahead, displayed, after)
    assert 0 <= left <= min(ahead, after)
    assert 0 <= queue.join(displayed) <= displayed


@given(displayed=positive, ahead_share=st.decimals(0, 1, places=3), left_share=st.decimals(0, 1, places=3))
def test_queue_models_are_ordered_by_hope(displayed: Decimal, ahead_share: Decimal, left_share: Decimal) -> None:
    ahead, after = displayed * ahead_share, displayed * left_share
    front, middle, back = (q.shrink(ahead, displayed, after) for q in (FrontQueue(), ProRataQueue(), BackQueue()))
    assert front <= middle <= back


@given(quantity=positive, more=quantities, depth=positive)
def test_impact_grows_with_quantity_and_as_its_root(quantity: Decimal, more: Decimal, depth: Decimal) -> None:
    impact = SquareRootImpact(D("0.001"))
    assert 0 < impact.fraction(quantity, depth) <= impact.fraction(quantity + more, depth)
    assert impact.fraction(4 * quantity, depth) == pytest.approx(2 * impact.fraction(quantity, depth))
    assert NoImpact().fraction(quantity, depth) == 0


def test_impact_without_depth_is_finite() -> None:
    assert SquareRootImpact(D("0.001")).fraction(D(1), D(0)) == D("0.001")
