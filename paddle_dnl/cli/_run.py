"""What every program does around its `main`: errors to one line and an exit status."""

import errno
import importlib
import os
import sys
import traceback
import warnings


def run(module: str, argv: list[str] | None = None) -> None:
    """Imports `module`, runs its `main(argv)` and ends the process with the right status.

    0 is success, 2 wrong use of the command line, 1 any other failure; a failure that the user can act on is one line on
    stderr.
    """
    warnings.filterwarnings("ignore", message="No ccache found")
    from paddle_dnl.errors import PaddleDnlError
    from paddle_dnl.startup import configure_process, import_guard

    configure_process()
    try:
        status = importlib.import_module(module).main(argv)
        sys.stdout.flush()
    except PaddleDnlError as error:
        status = _fail(str(error), error.exit_status)
    except ImportError as error:
        explained = import_guard.explain(error)
        if explained is None:
            traceback.print_exc()
        status = _fail(explained or str(error), 1)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has seen enough. Nothing more is written at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EFBIG):
            traceback.print_exc()
            _tell_other_ranks(str(error))
            status = 1
        else:
            status = _fail(f"{error.filename or 'output'}: {error.strerror}", 1)
    except MemoryError:
        status = _fail("out of memory; a smaller --batch_size or sliding evaluation (--is_slide) needs less", 1)
    except KeyboardInterrupt:
        status = _fail("interrupted", 130)
    except Exception as error:  # a defect of the program: its traceback is what helps
        traceback.print_exc()
        _tell_other_ranks(f"{type(error).__name__}: {error}")
        status = 1
    sys.stdout.flush()
    if _in_group():
        # The other ranks wait for this one in a collective operation; the launcher ends them when this process is gone.
        sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status)


def _in_group() -> bool:
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def _fail(text: str, status: int) -> int:
    if os.environ.get("PADDLE_DNL_TRACEBACK"):
        traceback.print_exc()
    rank = os.environ.get("PADDLE_TRAINER_ID")
    where = f" (rank {rank})" if rank is not None and _in_group() else ""
    print(f"Error{where}: {text}", file=sys.stderr, flush=True)
    _tell_other_ranks(text)
    return status


def _tell_other_ranks(text: str) -> None:
    """What failed before the group was joined is seen by the launcher alone."""
    distributed = sys.modules.get("paddle_dnl.distributed.collectives")
    if distributed is not None:
        distributed.report_failure(text)
