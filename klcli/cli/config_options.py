"""The options of TrainConfig: `takes_config` gives them to a command and hands it the config."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from klcli.cli.options import (
    HARDER,
    IMAGES,
    KEPT,
    LEARNING,
    NETWORK,
    OUTPUT,
    REPEATABILITY,
    decimal_option,
    integer_option,
    integers,
    option,
)
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import (
    BN_STATISTICS,
    DTYPES,
    INITIALIZERS,
    OPTIMIZERS,
    SCHEDULES,
    STANDARDISATIONS,
    TrainConfig,
)

Command = Callable[..., Any]

# The options of TrainConfig (and of its split), by field, in the order of `--help`.
_CONFIG_OPTIONS: dict[str, Any] = {
    "preset": Annotated[
        str | None,
        option(
            "--preset",
            panel=NETWORK,
            metavar="NAME",
            help="Begin with the settings of this name; what else is typed replaces them. --list-presets shows all.",
        ),
    ],
    "hidden": Annotated[
        list[str],
        option(
            "--hidden",
            "-H",
            panel=NETWORK,
            metavar="WIDTH...",
            help="Widths of the hidden layers, any number of them: `--hidden 50 30 20`, or 50,30,20.",
        ),
    ],
    "batch_norm": Annotated[
        bool, option("--bn/--no-bn", panel=NETWORK, help="Batch normalisation in every hidden layer.")
    ],
    "bn_position": Annotated[
        str, option("--bn-position", panel=NETWORK, metavar="before|after", help="BN before or after the ReLU.")
    ],
    "bn_momentum": Annotated[
        float,
        decimal_option("--bn-momentum", panel=NETWORK, help="Alpha of the running averages: the weight of the past."),
    ],
    "bn_eps": Annotated[
        float,
        decimal_option("--bn-eps", panel=NETWORK, help="Added to the variance. 1e-5 drowns it where sigma is 1e-4."),
    ],
    "bn_statistics": Annotated[
        str,
        option(
            "--bn-statistics",
            panel=NETWORK,
            metavar="|".join(BN_STATISTICS),
            help="With which the trained network is evaluated: running averages, those of training images under the "
            "final weights, of unlabelled test images (transductive), of the evaluated images (transductive).",
        ),
    ],
    "bn_samples": Annotated[
        int | None,
        integer_option("--bn-samples", panel=NETWORK, help="Images of precise (10000) and adaptive (1000), at most."),
    ],
    "whitening": Annotated[
        int | None,
        integer_option(
            "--whitening",
            panel=NETWORK,
            help="Principal components, whitened, that the first layer sees in place of pixels.",
        ),
    ],
    "whitening_eps": Annotated[
        float,
        decimal_option(
            "--whitening-eps", panel=NETWORK, help="Added to the variance of each component; a pixel's is 1."
        ),
    ],
    "initializer": Annotated[
        str,
        option("--init", panel=NETWORK, metavar="|".join(INITIALIZERS), help="Initial weights; normal needs --sigma."),
    ],
    "sigma": Annotated[
        float | None,
        decimal_option("--sigma", panel=NETWORK, help="Standard deviation of --init normal, in every layer."),
    ],
    "lam": Annotated[
        float,
        decimal_option("--lambda", panel=LEARNING, help="The L2 coefficient: J = loss + lambda * sum of W squared."),
    ],
    "optimizer": Annotated[
        str,
        option(
            "--optimizer", panel=LEARNING, metavar="|".join(OPTIMIZERS), help="How W, b, gamma and beta are updated."
        ),
    ],
    "momentum": Annotated[
        float, decimal_option("--momentum", panel=LEARNING, help="Nesterov's, of --optimizer sgd; for example 0.9.")
    ],
    "weight_decay": Annotated[
        float,
        decimal_option(
            "--weight-decay", panel=LEARNING, help="Decoupled, beside the L2 cost: each update takes eta * X of all W."
        ),
    ],
    "schedule": Annotated[
        str,
        option(
            "--schedule",
            panel=LEARNING,
            metavar="|".join(SCHEDULES),
            help="Of the learning rate eta: up and down in every cycle; up once and down over the whole training; "
            "down along a cosine in every cycle; always eta_max.",
        ),
    ],
    "eta_min": Annotated[
        float, decimal_option("--eta-min", panel=LEARNING, help="The lowest eta, where a cycle ends.")
    ],
    "eta_max": Annotated[float, decimal_option("--eta-max", panel=LEARNING, help="The highest eta of a cycle.")],
    "eta_decay": Annotated[
        float, decimal_option("--eta-decay", panel=LEARNING, help="Times eta_max from one cycle to the next, as 0.6.")
    ],
    "step_epochs": Annotated[
        float,
        decimal_option("--step-epochs", panel=LEARNING, help="Half a cycle in epochs: n_s = K * floor(n / n_batch)."),
    ],
    "step_size": Annotated[
        int | None,
        integer_option("--step-size", panel=LEARNING, help="Half a cycle in updates, n_s; overrides --step-epochs."),
    ],
    "cycles": Annotated[
        int, integer_option("--cycles", panel=LEARNING, help="How many cycles; the epochs follow from it.")
    ],
    "epochs": Annotated[
        int | None,
        integer_option("--epochs", panel=LEARNING, help="Overrides --cycles. 0 evaluates the untrained network."),
    ],
    "batch_size": Annotated[int, integer_option("--batch-size", panel=LEARNING, help="Images per update, n_batch.")],
    "flip": Annotated[
        bool, option("--flip/--no-flip", panel=HARDER, help="Mirror each training image with probability 1/2.")
    ],
    "shift": Annotated[
        int,
        integer_option("--shift", panel=HARDER, help="Move each training image by up to N pixels in both directions."),
    ],
    "mixup": Annotated[
        float,
        decimal_option("--mixup", panel=HARDER, help="Mix pairs of images; alpha of the Beta distribution, as 0.2."),
    ],
    "dropout": Annotated[
        float, decimal_option("--dropout", panel=HARDER, help="Leave each hidden unit out with this probability.")
    ],
    "label_smoothing": Annotated[
        float,
        decimal_option("--label-smoothing", panel=HARDER, help="The share of a label that all classes have, as 0.1."),
    ],
    "weight_average": Annotated[
        float,
        decimal_option(
            "--weight-average", panel=KEPT, help="The exponential average of the weights, with this decay, as 0.999."
        ),
    ],
    "snapshots": Annotated[
        bool,
        option(
            "--snapshots/--no-snapshots", panel=KEPT, help="Also the mean of the networks at the ends of the cycles."
        ),
    ],
    "split.validation": Annotated[
        int, integer_option("--validation", panel=IMAGES, help="The last N training images validate instead.")
    ],
    "split.train_batches": Annotated[
        list[str],
        option(
            "--train-batches", panel=IMAGES, metavar="N...", help="Train on these batch files, 1 to 5; all if none."
        ),
    ],
    "split.validation_batches": Annotated[
        list[str], option("--validation-batches", panel=IMAGES, metavar="N...", help="Validate on these batch files.")
    ],
    "split.subset": Annotated[
        int | None,
        integer_option(
            "--subset", panel=IMAGES, help="Only the first N training images, for a quick look; the rest in scale."
        ),
    ],
    "standardise": Annotated[
        str,
        option(
            "--standardise",
            panel=IMAGES,
            metavar="|".join(STANDARDISATIONS),
            help="To mean 0 and deviation 1: each pixel over the training images, or each image by itself.",
        ),
    ],
    "shuffle": Annotated[
        bool,
        option(
            "--shuffle/--no-shuffle",
            panel=IMAGES,
            help="Every epoch in an order of its own, or all in that of the files.",
        ),
    ],
    "seed": Annotated[
        int, integer_option("--seed", panel=REPEATABILITY, help="Of the weights and of the order of the images.")
    ],
    "order_seed": Annotated[
        int | None, integer_option("--order-seed", panel=REPEATABILITY, help="Of the order of the images; as --seed.")
    ],
    "dtype": Annotated[
        str, option("--dtype", panel=REPEATABILITY, metavar="|".join(DTYPES), help="Precision of the arithmetic.")
    ],
    "evaluations_per_cycle": Annotated[
        int | None,
        integer_option("--evaluations-per-cycle", panel=OUTPUT, help="Instead of once per epoch; 0: only at the end."),
    ],
}
_INTEGER_LISTS = ("hidden", "split.train_batches", "split.validation_batches")


def takes_config(
    only: tuple[str, ...] = (), omit: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Give a command the options of TrainConfig, with its defaults or these, and pass it `config`.

    The command is written as `def command(config: TrainConfig, ...)`; what the user typed is
    validated when the config is made, before the command runs. `only` names the fields whose
    options mean something to the command, all of them if it is empty; `omit` those that do not. A command
    that takes presets needs a `ctx`, which knows what the user typed.
    """
    options = {key: option for key, option in _CONFIG_OPTIONS.items() if key not in omit and (not only or key in only)}
    chosen = _defaults() | defaults

    def decorate(command: Command) -> Command:
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in inspect.signature(command, eval_str=True).parameters.values()
            if p.name != "config"
        ]
        parameters = [
            inspect.Parameter(_name(key), inspect.Parameter.KEYWORD_ONLY, default=chosen[key], annotation=annotation)
            for key, annotation in options.items()
        ]

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            typed = {key: values.pop(_name(key)) for key in options}
            if typed.get("preset") is None:
                return command(config=_config(typed), **values)
            return command(config=_over_preset(typed, typed_fields(values["ctx"])), **values)

        wrapper.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*parameters, *own]}
        return wrapper

    return decorate


def typed_fields(ctx: typer.Context) -> tuple[str, ...]:
    """Return the fields of the config whose options the user typed, `lam` for --lambda, `split.subset` for --subset."""
    return tuple(key for key in _CONFIG_OPTIONS if is_typed(ctx, _name(key)))


def is_typed(ctx: typer.Context, parameter: str) -> bool:
    """Whether the user named the option of this parameter."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _name(key: str) -> str:
    return key.removeprefix("split.")


def _defaults() -> dict[str, Any]:
    """The default of every option, from the dataclasses that own it; lists as the text a user would type."""
    config, split = TrainConfig(), SplitConfig()
    values = {
        key: getattr(split, _name(key)) if key.startswith("split.") else getattr(config, key) for key in _CONFIG_OPTIONS
    }
    return {key: [str(item) for item in value] if key in _INTEGER_LISTS else value for key, value in values.items()}


def _config(typed: dict[str, Any]) -> TrainConfig:
    """The config of the option values."""
    typed = _read(typed)
    split = SplitConfig(**{_name(key): value for key, value in typed.items() if key.startswith("split.")})
    return TrainConfig(split=split, **{key: value for key, value in typed.items() if not key.startswith("split.")})


def _over_preset(typed: dict[str, Any], named: tuple[str, ...]) -> TrainConfig:
    """The config of a preset, with what the user named in the place of its settings."""
    from klcli.settings.presets import override, preset

    return override(preset(typed["preset"]).config, {key: value for key, value in _read(typed).items() if key in named})


def _read(typed: dict[str, Any]) -> dict[str, Any]:
    """The option values with lists of numbers in the place of their texts."""
    return {key: integers(value, _name(key)) if key in _INTEGER_LISTS else value for key, value in typed.items()}
