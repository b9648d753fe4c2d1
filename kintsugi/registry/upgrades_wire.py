"""The words of upgrades between their records and the public proto: the one place with both. Pure."""

from kintsugi.projections.calibration import Calibration
from kintsugi.projections.strategy import Strategy
from kintsugi.registry.records import UpgradeState
from kintsugi.v1 import upgrades_pb2

STATES: dict[UpgradeState, upgrades_pb2.UpgradeState.ValueType] = {
    UpgradeState.PLANNED: upgrades_pb2.UPGRADE_STATE_PLANNED,
    UpgradeState.SERVING_BOTH: upgrades_pb2.UPGRADE_STATE_SERVING_BOTH,
    UpgradeState.MAPPING: upgrades_pb2.UPGRADE_STATE_MAPPING,
    UpgradeState.BACKFILLING: upgrades_pb2.UPGRADE_STATE_BACKFILLING,
    UpgradeState.CUT_OVER: upgrades_pb2.UPGRADE_STATE_CUT_OVER,
    UpgradeState.FINISHING: upgrades_pb2.UPGRADE_STATE_FINISHING,
    UpgradeState.FINISHED: upgrades_pb2.UPGRADE_STATE_FINISHED,
    UpgradeState.ROLLING_BACK: upgrades_pb2.UPGRADE_STATE_ROLLING_BACK,
    UpgradeState.ROLLED_BACK: upgrades_pb2.UPGRADE_STATE_ROLLED_BACK,
}
STRATEGIES: dict[Strategy, upgrades_pb2.UpgradeStrategy.ValueType] = {
    Strategy.BRIDGE: upgrades_pb2.UPGRADE_STRATEGY_QUERY_BRIDGE,
    Strategy.MAP: upgrades_pb2.UPGRADE_STRATEGY_GALLERY_MAP,
    Strategy.BOTH: upgrades_pb2.UPGRADE_STRATEGY_BOTH_VECTORS,
}
CALIBRATIONS: dict[Calibration, upgrades_pb2.ScoreCalibration.ValueType] = {
    Calibration.RAW: upgrades_pb2.SCORE_CALIBRATION_RAW,
    Calibration.MOMENTS: upgrades_pb2.SCORE_CALIBRATION_MOMENTS,
    Calibration.QUANTILES: upgrades_pb2.SCORE_CALIBRATION_QUANTILES,
}
_STATE_OF = {number: state for state, number in STATES.items()}
_STRATEGY_OF = {number: strategy for strategy, number in STRATEGIES.items()}
_CALIBRATION_OF = {number: calibration for calibration, number in CALIBRATIONS.items()}


def state_of(number: int) -> UpgradeState | None:
    """None for a state that nobody knows; so do the others."""
    return _STATE_OF.get(number)  # type: ignore[call-overload,no-any-return]


def strategy_of(number: int) -> Strategy | None:
    return _STRATEGY_OF.get(number)  # type: ignore[call-overload,no-any-return]


def calibration_of(number: int) -> Calibration | None:
    return _CALIBRATION_OF.get(number)  # type: ignore[call-overload,no-any-return]
