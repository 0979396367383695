"""Money that came from outside or went there, in the shapes of the exchange's history."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from agents.core.instruments import Currency

_DONE_IN, _DONE_OUT = 1, 6
"""The status codes of a deposit that is credited and of a withdrawal that is completed."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A deposit, or a withdrawal where `amount` is negative; `real_ms` is wall-clock time."""

    number: int
    currency: Currency
    amount: Decimal
    real_ms: int

    def deposit_row(self) -> dict[str, object]:
        return {
            "id": f"{self.number:018d}",
            "amount": str(self.amount),
            "coin": self.currency,
            "network": self.currency,
            "status": _DONE_IN,
            "address": "rehearsal",
            "addressTag": "",
            "txId": f"rehearsal{self.number}",
            "insertTime": self.real_ms,
            "completeTime": self.real_ms,
            "transferType": 0,
            "unlockConfirm": 0,
            "confirmTimes": "1/1",
            "walletType": 0,
        }

    def withdrawal_row(self) -> dict[str, object]:
        at = datetime.fromtimestamp(self.real_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return {
            "id": f"rehearsal{self.number:023d}",
            "amount": str(-self.amount),
            "transactionFee": "0",
            "coin": self.currency,
            "status": _DONE_OUT,
            "address": "rehearsal",
            "txId": f"rehearsal{self.number}",
            "applyTime": at,
            "completeTime": at,
            "network": self.currency,
            "transferType": 0,
            "withdrawOrderId": "",
            "info": "",
            "confirmNo": 1,
            "walletType": 0,
            "txKey": "",
        }
