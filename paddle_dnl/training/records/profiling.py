# SPDX-License-Identifier: Apache-2.0
"""`--profiler_options` of train.py, by `paddle.profiler`.

PaddleSeg's form is kept: `"batch_range=[10, 20]; profile_path=model.profile"`. The trace of those steps is written as a
Chrome trace into the folder `profile_path` below the run's own, and a table of operators is printed at the end.
"""

import ast
from pathlib import Path

from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

# Options of PaddleSeg's profiler that have no counterpart here.
_IGNORED = ("state", "sorted_key", "tracer_option", "exit_on_finished", "timer_only")


class StepProfiler:
    """Profiles the steps of a training that the options name; does nothing without options.

    Raises:
        UsageError: options that cannot be read.
    """

    def __init__(self, options: str | None, save_dir: Path):
        self._profiler = None
        if not options:
            return
        values = {"batch_range": "[10, 20]", "profile_path": "model.profile"}
        for part in filter(None, (part.strip() for part in options.split(";"))):
            key, separator, value = (word.strip() for word in part.partition("="))
            if not separator or key not in (*values, *_IGNORED):
                raise UsageError(
                    f"--profiler_options: {part} is not one of {', '.join(f'{name}=...' for name in values)}; several are "
                    "separated by semicolons"
                )
            if key in _IGNORED:
                logger.warning(
                    f"--profiler_options: {key} is ignored; the profile has the CPU, and the GPU where there is one"
                )
            values[key] = value
        try:
            first, last = ast.literal_eval(values["batch_range"])
            if not 0 <= first < last:
                raise ValueError
        except (ValueError, SyntaxError, TypeError) as error:
            raise UsageError(f"--profiler_options: batch_range={values['batch_range']} is not [first, last]") from error
        from paddle import profiler

        write = profiler.export_chrome_tracing(str(save_dir / values["profile_path"]))
        self._profiler = profiler.Profiler(scheduler=(first, last), on_trace_ready=write)
        self._profiler.start()

    def step(self) -> None:
        """Marks the end of a training step."""
        if self._profiler is not None:
            self._profiler.step()

    def stop(self) -> None:
        """Writes the trace and prints the table of operators."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.summary(op_detail=True)
