"""What every ``ovs-*`` command does around its method: settings, logging, errors, signals, exit codes.

A command is a function with one decorator::

    app = OvsApp("ovs-cluster", examples=…)

    @app.ovs_command()
    def cluster(ctx: typer.Context, …) -> None: …

It returns, or raises one of ``core.runtime.errors``; everything else happens here. A command of several subcommands is an
``OvsGroup``, whose ``ovs_command`` takes the name and the examples of each.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import typer
from typer.exceptions import TyperException

from ovskit.cli.expand import Expanded, expand
from ovskit.cli.help import OvsCommand
from ovskit.cli.plain_text import never_fail, plain
from ovskit.cli.settings import declared_of, listen, options_of, parse_error, unheard, with_origins, word_of
from ovskit.core import __version__
from ovskit.core.runtime.declared import decides
from ovskit.core.runtime.errors import Exit, OvsError
from ovskit.core.runtime.logs import get_logger, setup_logging
from ovskit.core.runtime.provenance import append_entry, command_line
from ovskit.core.runtime.signals import Terminated, handle_sigterm

log = get_logger("cli")

# oneDNN 3.12 (torch 2.14) on a CPU with AMX: a convolution in bfloat16 with a stride, over a map of few pixels, gives noise that changes
# from run to run (tests/models/pyramids/test_pyramid.py finds it). Without AMX it is right; float32 does not use it. Read before torch
# is imported.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOTHING_LEFT = "nothing half-written is left"

# For the CPU's memory torch raises a plain RuntimeError.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


Examples = Sequence[tuple[str, str]]


class Leaf(NamedTuple):
    """What is run: a command or a subcommand, as ``name`` is typed; ``click`` is what its parser sees."""

    name: str
    click: Any
    examples: Examples


class _Tool(typer.Typer):
    """What one command and a group of them share: how they are parsed, and how they leave."""

    def __init__(self, tool: str, **settings: Any) -> None:
        # Plain help: half the start-up time of the boxed one, and it survives pipes, pagers and narrow terminals.
        super().__init__(name=tool, rich_markup_mode=None, pretty_exceptions_enable=False, **settings)
        self.tool = tool
        self._expanded: dict[str, Expanded] = {}
        self.broken: Mapping[str, str] = {}  # subcommands that there would be, and why there are not

    def _register(self, name: str, examples: Examples, order: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            expanded = expand(function, order)
            wrapped = _guarded(self.tool, expanded.function)
            # For a group's list of subcommands, which otherwise ends within a sentence.
            short = (function.__doc__ or "").partition("\n\n")[0]
            self.command(name=name, cls=OvsCommand, short_help=short, epilog=_epilog(examples), context_settings=dict(_CONTEXT))(wrapped)
            self._expanded[name] = expanded
            return wrapped

        return decorate

    def click_command(self) -> Any:
        """The command as its parser sees it; help, man page and completion are read off this one object."""
        from typer.main import get_command

        command: Any = get_command(self)
        tool = self.tool.removeprefix("ovs-")
        parts = [((tool,), command), *(((tool, name), part) for name, part in getattr(command, "commands", {}).items())]
        for path, part in parts:
            expanded = self._expanded.get(path[-1] if part is not command else self.tool)
            if expanded is not None:
                part.expanded = expanded
            for parameter in part.params:
                parameter.declared = None if expanded is None else expanded.declared.get(parameter.name)
                parameter.show_envvar = False  # one sentence in the man page says it for all
            if expanded is None:
                part.get_help = functools.partial(_plain_help, part.get_help)
            listen(part, path)
        return command

    def leaves(self) -> list[Leaf]:
        """The commands that do something: this one, or the subcommands of a group."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and leave with its status."""
        never_fail()
        try:
            code = self.click_command().main(*args, prog_name=self.tool, standalone_mode=False, **kwargs)
        except TyperException as error:  # all that its parser raises of a command line
            context = getattr(error, "ctx", None)
            where = self.tool if context is None else context.command_path
            said = parse_error(error)
            said = next((why for name, why in self.broken.items() if f"'{name}'" in said), said)
            _say(self.tool, f"{_one_line(said).removesuffix('.')}; see {where} --help")
            code = Exit.USAGE
        except OvsError as error:  # from a settings callback, before the command's own guard
            _say(self.tool, _one_line(str(error)))
            code = error.exit_code
        except typer.Abort:
            code = Exit.INTERRUPT
        except SystemExit as error:  # Typer's answer to a reader of --help that has gone; shell completion exits too
            code = Exit.CLOSED_PIPE if error.code == 1 else error.code
        _leave(int(code) if isinstance(code, int) else Exit.OK)


class OvsApp(_Tool):
    """One command and its name; ``examples`` are (comment, command) pairs shown in ``--help`` and the man page."""

    def __init__(self, tool: str, examples: Examples) -> None:
        super().__init__(tool)
        self.examples = tuple(examples)

    def ovs_command(self) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Make the decorated function the command."""
        return self._register(self.tool, self.examples)

    def leaves(self) -> list[Leaf]:
        return [Leaf(self.tool, self.click_command(), self.examples)]


class OvsGroup(_Tool):
    """A command of subcommands; ``about`` is its help, and ``examples`` those of its own ``--help``."""

    def __init__(self, tool: str, about: str, examples: Examples) -> None:
        super().__init__(tool, subcommand_metavar="COMMAND [ARGS]...")
        self.examples = tuple(examples)
        self._examples: dict[str, Examples] = {}

        def group(
            version: bool = typer.Option(
                False, "--version", is_eager=True, callback=show_version, show_default=False, help="Show the version and exit."
            ),
        ) -> None: ...

        self.callback(help=about, epilog=_epilog(self.examples), context_settings=dict(_CONTEXT))(group)

    def ovs_command(self, name: str, examples: Examples, order: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Make the decorated function the subcommand ``name``; its options come in ``order``, as far as it names them."""
        self._examples[name] = tuple(examples)
        return self._register(name, examples, order)

    def leaves(self) -> list[Leaf]:
        commands = self.click_command().commands
        return [Leaf(f"{self.tool} {name}", commands[name], examples) for name, examples in self._examples.items()]


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _epilog(examples: Examples) -> str:
    lines = ["\b", "Examples:"]
    for comment, command in examples:
        lines += [f"  # {comment}", f"  {command}"]
    return "\n".join(lines)


def _plain_help(get_help: Callable[[Any], str], context: Any) -> str:
    # Typer would write UTF-8 to a stdout whose encoding is ASCII.
    return plain(get_help(context))


def _guarded(tool: str, function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        verbose, quiet = kwargs.get("verbose", 0), kwargs.get("quiet", 0)
        setup_logging(tool, shard=kwargs.get("shard"), verbose=verbose, quiet=quiet)
        if verbose == 0:
            import warnings

            warnings.simplefilter("ignore")  # other libraries' advice; ours goes through the log
        code = Exit.OK
        context = kwargs.get("ctx")
        try:
            handle_sigterm()
            if context is not None:
                for line in unheard(context):
                    log.warning("%s", line)
            function(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
        except typer.Exit:
            raise
        except OvsError as error:
            code = error.exit_code
            said = str(error) if context is None else with_origins(str(error), context)
            log.error("%s", _one_line(said), exc_info=verbose > 1)
        except BrokenPipeError:
            code = Exit.CLOSED_PIPE
        except KeyboardInterrupt as error:
            code = Exit.INTERRUPT
            log.error("interrupted; %s", _one_line(str(error)) or _NOTHING_LEFT)
        except Terminated as error:
            code = Exit.TERMINATED
            log.error("terminated; %s", _one_line(str(error)) or _NOTHING_LEFT)
        except OSError as error:
            code = Exit.IO
            log.error("%s: %s", error.filename or "I/O error", error.strerror or error, exc_info=verbose > 1)
        except Exception as error:  # the last line of defence: a bug must not look like bad input, nor end in a traceback
            code = Exit.BUG
            log.error("%s", _unexpected(error, kwargs, traceback=verbose > 1), exc_info=verbose > 1)
        if code is not Exit.OK:
            raise typer.Exit(code)

    return run


def _unexpected(error: Exception, given: Mapping[str, Any], *, traceback: bool) -> str:
    """What is said of an error that nobody raised on purpose; ``given`` are the command's options, by name."""
    said = _one_line(str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(said)):
        smaller = [f"--{name.replace('_', '-')}" for name in ("size", "batch", "batch_size") if name in given]
        advice = [f"a smaller {' or '.join(smaller)}"] * bool(smaller) + ["fewer -j workers"] * ("workers" in given)
        what = f"out of memory: {said}" if said else "out of memory"
        return f"{what}; use {', or '.join(advice)}" if advice else what
    hint = "" if traceback else "; run again with -vv for the traceback and please report it"
    return f"bug: {type(error).__name__}: {said}{hint}"


def _one_line(text: str) -> str:
    """A message without line breaks or bytes that a terminal would act on."""
    text = " ".join(text.split())
    text = _CONTROL.sub(lambda sign: f"\\x{ord(sign[0]):02x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _say(tool: str, message: str) -> None:
    sys.stderr.write(f"{tool}: {message}\n")


def _leave(code: int) -> NoReturn:
    if code == Exit.OK:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            code = Exit.CLOSED_PIPE
        except OSError as error:  # `--help > /dev/full`
            _say("ovskit", f"cannot write stdout: {error.strerror}")
            code = Exit.IO
        else:
            sys.exit(code)
    # Worker threads may be deep in a kernel, and the interpreter would wait for them, flush a broken stdout and complain.
    try:
        sys.stderr.flush()
    finally:
        os._exit(code)


def show_version(value: bool) -> None:
    """Callback of ``--version``."""
    if value:
        typer.echo(f"ovskit {__version__}")
        raise typer.Exit()


def provenance(
    ctx: typer.Context,
    previous: Sequence[Mapping[str, Any]],
    *,
    arguments: Sequence[str] = (),
    model: str | None = None,
    model_sha256: str | None = None,
    supervised: bool = False,
) -> list[dict[str, Any]]:
    """This run's entry after ``previous``, or nothing under ``--no-pg``; options left at their default are not named."""
    if ctx.params.get("no_pg"):
        return []
    options: dict[str, Any] = {}
    declared = {}
    for parameter in options_of(ctx.command):
        source = ctx.get_parameter_source(parameter.name)
        value = ctx.params.get(parameter.name)
        is_off = value is False and not parameter.secondary_opts  # which only the environment or a file can say
        if source is not None and source.name != "DEFAULT" and not is_off:
            options[word_of(parameter)] = value  # as it is typed, which need not be what the parameter is called
            declared[word_of(parameter)] = declared_of(parameter)
    options = {word: value for word, value in options.items() if decides(declared[word], options)}
    tool = ctx.find_root().command.name or ""
    subcommands = [] if ctx.parent is None else [ctx.command.name or ""]
    command = shlex.join([tool, *subcommands]) + command_line(tool, options, arguments).removeprefix(tool)
    return append_entry(
        previous,
        tool=tool,
        version=__version__,
        command=command,
        model=model,
        model_sha256=model_sha256,
        supervised=supervised,
    )
