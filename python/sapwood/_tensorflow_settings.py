"""The options of `sapwood train` as Keras objects: model, loss, optimizer, schedule, callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from ._train_options import Settings

_OPTIMIZER = {  # option: name in the optimizer's configuration
    "momentum": "momentum", "beta-1": "beta_1", "beta-2": "beta_2", "epsilon": "epsilon", "weight-decay": "weight_decay",
    "clip-norm": "clipnorm", "clip-value": "clipvalue", "global-clip-norm": "global_clipnorm",
}  # fmt: skip
_SCHEDULE = ("decay-steps", "decay-rate", "end-learning-rate", "power", "alpha", "boundaries", "warmup-steps")


# ---- Model ----------------------------------------------------------------------------------------------------------


def load_model(settings: Settings) -> keras.Model:
    """The network of --model, compiled with what the options say. Call it in the strategy's scope."""
    path, seed = settings.values["model"], settings.count("seed")
    keras.utils.set_random_seed(seed)
    if path.endswith(".json"):
        model = keras.models.model_from_json(Path(path).read_text(encoding="utf-8"))
    else:
        with warnings.catch_warnings():  # of an optimizer that was saved before its first step, whose state is zero
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.models.load_model(path)
    if settings.switch("fresh"):
        compiled = model.get_compile_config() if model.compiled else None
        model = keras.models.clone_model(model)
        if compiled:
            model.compile_from_config(compiled)
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError(f"{path}: one output, of classes, can be trained")
    loss, optimizer = _loss(settings, model), _optimizer(settings, model)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"] if is_crossentropy(loss) else None)
    optimizer.build(model.trainable_variables)
    return model


# ---- Loss -----------------------------------------------------------------------------------------------------------


def loss_name(loss: Any) -> str:
    """"CategoricalCrossentropy" and "categorical_crossentropy" alike as "categoricalcrossentropy"."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name.lower().replace("_", "")


def is_crossentropy(loss: Any) -> bool:
    return "crossentropy" in loss_name(loss)


def _loss(settings: Settings, model: keras.Model) -> Any:
    loss = settings.text("loss") or (model.get_compile_config() or {}).get("loss") if model.compiled else settings.text("loss")
    while isinstance(loss, (list, tuple)) or (isinstance(loss, Mapping) and "class_name" not in loss):
        loss = (loss if not isinstance(loss, Mapping) else list(loss.values()))[0]
    loss = keras.losses.get(loss) if isinstance(loss, Mapping) else loss or "categorical_crossentropy"
    smoothing = settings.real("label-smoothing")
    if smoothing is not None:
        kinds = {"categoricalcrossentropy": keras.losses.CategoricalCrossentropy,
                 "binarycrossentropy": keras.losses.BinaryCrossentropy}
        if loss_name(loss) not in kinds:
            raise ValueError(f"--label-smoothing does not go with {loss_name(loss)}")
        loss = kinds[loss_name(loss)](from_logits=getattr(loss, "from_logits", False), label_smoothing=smoothing)
    keras.losses.get(loss)  # an unknown name is an error now
    return loss


# ---- Optimizer ------------------------------------------------------------------------------------------------------


def _schedule(settings: Settings, rate: float) -> Any:
    kind, schedules = settings.text("schedule"), keras.optimizers.schedules
    steps, warmup = settings.real("decay-steps"), settings.real("warmup-steps", 0.0)
    if kind in ("exponential", "inverse-time"):
        made = schedules.ExponentialDecay if kind == "exponential" else schedules.InverseTimeDecay
        return made(rate, steps, settings.real("decay-rate"), settings.switch("staircase"))
    if kind == "polynomial":
        return schedules.PolynomialDecay(rate, steps, settings.real("end-learning-rate", 1e-4), settings.real("power", 1.0))
    if kind == "cosine" and warmup:
        return schedules.CosineDecay(0.0, steps, settings.real("alpha", 0.0), warmup_target=rate, warmup_steps=int(warmup))
    if kind == "cosine":
        return schedules.CosineDecay(rate, steps, settings.real("alpha", 0.0))
    if kind == "piecewise":
        pairs = [pair.split(":") for pair in settings.values["boundaries"].split(",")]
        return schedules.PiecewiseConstantDecay([int(step) for step, _ in pairs], [rate, *(float(value) for _, value in pairs)])
    return rate


def _optimizer(settings: Settings, model: keras.Model) -> Any:
    before = model.optimizer if model.compiled else None
    chosen = settings.text("optimizer")
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}
    kind = kinds[chosen] if chosen else type(before) if before else keras.optimizers.Adam
    config = before.get_config() if before and not chosen else kind().get_config()
    changes: dict[str, Any] = {own: settings.real(name) for name, own in _OPTIMIZER.items() if settings.has(name)}
    changes |= {name: True for name in ("nesterov", "amsgrad") if settings.switch(name)}
    if settings.has("ema"):
        changes |= {"use_ema": True, "ema_momentum": settings.real("ema")}
    odd = [name for name in changes if name not in config]
    if odd:
        raise ValueError(f"the optimizer {kind.__name__} has no {', '.join(odd)}")
    if settings.has("learning-rate"):
        changes["learning_rate"] = settings.real("learning-rate")
    if settings.text("lr-scaling") == "linear":
        rate = changes.get("learning_rate", config["learning_rate"])
        if not isinstance(rate, float):
            raise ValueError("the model has a schedule: give --learning-rate with --lr-scaling")
        changes["learning_rate"] = rate * settings.count("batch") / settings.count("lr-batch")
    if any(settings.has(name) for name in ("schedule", *_SCHEDULE)):
        rate = changes.get("learning_rate", config["learning_rate"])
        if not isinstance(rate, float):
            raise ValueError("the model has a schedule already: give --learning-rate with --schedule")
        changes["learning_rate"] = _schedule(settings, rate)
    if before and not chosen and not changes:
        return before
    made = kind.from_config(config | changes)
    made.build(model.trainable_variables)
    if before and not chosen and before.built:  # options change what it does, not how far it is
        state = {variable.path.split("/", 1)[-1]: variable for variable in before.variables}
        for variable in made.variables:
            own = variable.path.split("/", 1)[-1]
            if own in state and own != "learning_rate":
                variable.assign(state[own])
    return made


# ---- Callbacks ------------------------------------------------------------------------------------------------------


def callbacks(settings: Settings, writes: bool, resumed: bool) -> list[Any]:
    """Keras' own, in the order reduce, write, stop. writes: this worker writes the files."""
    kinds, made = keras.callbacks, []
    monitor = settings.text("monitor") or "val_loss"
    watch = {"monitor": monitor, "mode": "max" if monitor.endswith(("accuracy", "auc")) else "min"}
    if settings.has("reduce-lr"):
        made.append(kinds.ReduceLROnPlateau(**watch, factor=settings.real("reduce-lr-factor"), patience=settings.count("reduce-lr"),
                                            min_delta=settings.real("min-delta", 1e-4), min_lr=settings.real("min-learning-rate", 0.0)))
    if settings.has("model-checkpoint") and writes:
        made.append(kinds.ModelCheckpoint(settings.text("model-checkpoint"), **watch, save_best_only=settings.switch("save-best-only")))
    if settings.has("csv") and writes:
        made.append(kinds.CSVLogger(settings.text("csv"), append=resumed))
    if settings.has("tensorboard") and writes:
        made.append(kinds.TensorBoard(settings.text("tensorboard"), write_graph=False))
    if settings.has("early-stopping"):
        made.append(kinds.EarlyStopping(**watch, min_delta=settings.real("min-delta", 0.0), patience=settings.count("early-stopping"),
                                        restore_best_weights=settings.switch("restore-best")))
    return made


def monitored(settings: Settings) -> str | None:
    """What callbacks look at, if there are such."""
    watching = settings.has("reduce-lr") or settings.has("early-stopping") or (
        settings.has("model-checkpoint") and settings.switch("save-best-only"))
    return (settings.text("monitor") or "val_loss") if watching else None
