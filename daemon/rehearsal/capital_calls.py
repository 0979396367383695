"""Calls about money that comes and goes, and about the key's rights: what clients find under /sapi."""

from daemon.rehearsal.protocol import Params, text8
from daemon.rehearsal.transfers import Transfer
from daemon.rehearsal.venue import Venue


def _chosen(venue: Venue, params: Params, *, deposits: bool) -> list[Transfer]:
    coin, start, end = params.optional("coin"), params.integer("startTime"), params.integer("endTime")
    offset, limit = params.integer("offset") or 0, params.limit(1000, 1000)
    found = [
        transfer
        for transfer in reversed(venue.account.transfers)
        if (transfer.amount > 0) is deposits
        and (coin is None or transfer.currency == coin)
        and (start is None or transfer.real_ms >= start)
        and (end is None or transfer.real_ms <= end)
    ]
    return found[offset : offset + limit]


def deposits(venue: Venue, params: Params) -> object:
    """Newest first."""
    return [transfer.deposit_row() for transfer in _chosen(venue, params, deposits=True)]


def withdrawals(venue: Venue, params: Params) -> object:
    """Newest first."""
    return [transfer.withdrawal_row() for transfer in _chosen(venue, params, deposits=False)]


def restrictions(venue: Venue, params: Params) -> object:
    """What the key may do: read and trade spot."""
    return {
        "ipRestrict": True,
        "createTime": venue.started_ms,
        "enableReading": True,
        "enableSpotAndMarginTrading": True,
        "enableWithdrawals": False,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enablePortfolioMarginTrading": False,
    }


def coins(venue: Venue, params: Params) -> object:
    """Currencies with balances; no networks, since nothing can be sent in or out."""
    return [
        {
            "coin": currency,
            "name": currency,
            "free": text8(free),
            "locked": text8(locked),
            "freeze": "0",
            "withdrawing": "0",
            "storage": "0",
            "ipoable": "0",
            "ipoing": "0",
            "depositAllEnable": False,
            "withdrawAllEnable": False,
            "trading": True,
            "isLegalMoney": False,
            "networkList": [],
        }
        for currency, free, locked in venue.account.balances()
    ]
