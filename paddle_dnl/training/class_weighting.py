# SPDX-License-Identifier: Apache-2.0
"""`class_weights`: passes given weights, or those computed from the labels, to the losses that take them."""

from paddle_dnl.config.training_keys import weighted_losses
from paddle_dnl.data.classes import classes_of
from paddle_dnl.data.statistics import class_weights
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger


def weigh(loss_cfg: dict, wanted, dataset) -> dict:
    """The `loss` section with the class weights of the configuration.

    Args:
        loss_cfg: the section; changed in place.
        wanted: None, `auto` (`paddle_dnl.data.statistics.class_weights` of the training labels), or a number per class.
        dataset: of the training, checked.

    Raises:
        ConfigError: `auto` with a dataset that was not counted.
    """
    if wanted is None:
        return loss_cfg
    weights = wanted
    if wanted == "auto":
        statistics = getattr(dataset, "statistics", None)
        if statistics is None:
            raise ConfigError(
                f"class_weights: the labels of {type(dataset).__name__} are not counted here; give a list of numbers"
            )
        # With --skip_bad_samples ranks may have counted other samples.
        weights = collectives.broadcast_object(class_weights(statistics))
    names = classes_of(dataset).names
    logger.info(f"class weights: {', '.join(f'{n} {w:g}' for n, w in zip(names, weights, strict=True))}")
    for loss in weighted_losses(loss_cfg["types"]):
        loss["weight"] = list(weights)
    return loss_cfg
