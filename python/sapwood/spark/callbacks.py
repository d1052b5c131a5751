"""Keras' callbacks for a training that runs elsewhere: some become options of the ranks, all others are called at the driver after each epoch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def _refuse(what: str) -> None:
    raise NotImplementedError(f"SapwoodEstimator does not support {what}")


def _monitoring(callback: Any, least: float) -> dict[str, str]:
    name = type(callback).__name__
    if getattr(callback, "mode", "auto") not in ("auto", "min", "max"):
        _refuse(f"{name} with mode={callback.mode!r}")
    natural = "max" if any(word in callback.monitor for word in ("acc", "auc")) else "min"
    if callback.mode not in ("auto", natural):
        _refuse(f"{name} with mode={callback.mode!r} for {callback.monitor}")
    delta = abs(float(callback.min_delta))
    return {"monitor": callback.monitor, **({"min-delta": repr(delta)} if delta != least else {})}


def _as_options(callback: Any) -> dict[str, str] | None:
    """Options of `sapwood train` that do what the callback does; None: there are none."""
    import keras

    kinds = keras.callbacks
    if isinstance(callback, kinds.EarlyStopping):
        if callback.baseline is not None or callback.start_from_epoch:
            _refuse("EarlyStopping with baseline or start_from_epoch")
        return {"early-stopping": str(callback.patience), "restore-best": "yes" if callback.restore_best_weights else "no",
                **_monitoring(callback, 0.0)}  # fmt: skip
    if isinstance(callback, kinds.ReduceLROnPlateau):
        if callback.cooldown:
            _refuse("ReduceLROnPlateau with cooldown")
        return {"reduce-lr": str(callback.patience), "reduce-lr-factor": repr(float(callback.factor)),
                **({"min-learning-rate": repr(float(callback.min_lr))} if callback.min_lr else {}), **_monitoring(callback, 1e-4)}  # fmt: skip
    return None


class Callbacks:
    """What was given as `callbacks`, sorted. options: words for `sapwood train`. look: models are wanted after each epoch."""

    def __init__(self, given: Any, model: bytes, epochs: int) -> None:
        self.options: list[str] = []
        self._list: Any = None
        own = list(given) if isinstance(given, (list, tuple)) else [given] if given is not None else []
        if own:
            self._sort(own, model, epochs)
        self.look = self._list is not None

    def _sort(self, own: list[Any], model: bytes, epochs: int) -> None:
        import keras

        from ..keras import _check_callback

        settings: dict[str, str] = {}
        rest = []
        for callback in own:
            options = _as_options(callback)
            if options is None:
                _check_callback(callback)
                if isinstance(callback, keras.callbacks.LearningRateScheduler):
                    _refuse("LearningRateScheduler (options={'schedule': …}, or a schedule in the model's optimizer, changes the rate)")
                if not isinstance(callback, keras.callbacks.TerminateOnNaN):  # the engine ends so in any case
                    rest.append(callback)
                continue
            for name, value in options.items():
                if settings.setdefault(name, value) != value:
                    _refuse(f"callbacks with different {name}: {settings[name]} and {value}")
        self.options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        if rest:
            self._folder = tempfile.TemporaryDirectory(prefix="sapwood-")
            self._path = Path(self._folder.name, "model.keras")
            self._path.write_bytes(model)
            self._live = keras.saving.load_model(self._path)
            self._list = keras.callbacks.CallbackList(rest, add_history=False, add_progbar=False, model=self._live, epochs=epochs)

    def begin(self) -> None:
        if self._list:
            self._live.stop_training = False
            self._list.on_train_begin()

    def end_epoch(self, epoch: int, logs: dict[str, float], model: bytes) -> bool:
        """Calls them, with a model as it was after the epoch. Returns whether one of them wants the training to end."""
        if not self._list:
            return False
        self._path.write_bytes(model)
        self._live.load_weights(self._path)
        optimizer = getattr(self._live, "optimizer", None)
        before = _rate(optimizer)
        self._list.on_epoch_begin(epoch)
        self._list.on_epoch_end(epoch, dict(logs))
        if _rate(optimizer) != before:
            _refuse("a callback that sets the learning rate")
        return bool(self._live.stop_training)

    def end(self) -> None:
        if self._list:
            self._list.on_train_end()


def _rate(optimizer: Any) -> float | None:
    return None if optimizer is None else float(optimizer.learning_rate)
