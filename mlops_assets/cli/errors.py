"""How a command ends when something goes wrong: one line that says what to do, and exit status 1."""

from __future__ import annotations

import errno
import linecache
import os
import traceback
from typing import Any, NoReturn

import click

from mlops_assets.terminal import say, visible

DEBUG_VARIABLE = "MLOPS_DEBUG"
PACKAGE = "mlops_assets"


class Commands(click.Group):
    """A group of commands whose errors are shown as one line, made fit for the terminal.

    With `--debug`, or MLOPS_DEBUG in the environment, the traceback comes first.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _print_traceback(error)
            said = error.format_message()
            error.__dict__["format_message"] = lambda: visible(said)  # click's own way of showing it calls this
            raise
        except (click.exceptions.Exit, click.Abort):
            raise  # "no" to a question, or Ctrl-C at it: click says "Aborted!"
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone; click knows what to do
            _print_traceback(error)
            _stop(error)


def set_debug(_context: click.Context, _parameter: click.Parameter, on: bool) -> None:
    """Callback of `--debug`: for this process and those that it starts."""
    if on:
        os.environ[DEBUG_VARIABLE] = "1"


def _print_traceback(error: BaseException) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        say("".join(traceback.format_exception(error)).rstrip(), err=True)


def _stop(error: Exception) -> NoReturn:
    from mlops_assets.outages import explain

    said = str(error) if _is_for_people(error) else explain(error)
    if said is None:
        text = " ".join(str(error).split())[:500]
        said = (
            f"unexpected {type(error).__name__}{f': {text}' if text else ''}. This is a fault of mlops-assets or of "
            "its environment: run the command again as `mlops-assets --debug …` to see where"
        )
    raise click.ClickException(visible(said)) from error


def _is_for_people(error: Exception) -> bool:
    """Whether the message was written by this package, which says what was found, what was expected and what to do."""
    if type(error).__module__.partition(".")[0] == PACKAGE:
        return True
    if not isinstance(error, (ValueError, LookupError, RuntimeError)) or isinstance(error, (KeyError, IndexError)):
        return False
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None or type(error).__module__ != "builtins":
        return False
    return str(innermost.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == PACKAGE and _raises(innermost)


def _raises(frame: Any) -> bool:
    """Whether the line is a `raise` of ours, and not one in which Python itself found a fault."""
    return linecache.getline(frame.tb_frame.f_code.co_filename, frame.tb_lineno).lstrip().startswith("raise ")
