"""Damaged copies of the files of a run, and a process of its own that loads them under a limit on memory.

``python damage.py FOLDER NAME KIND COUNT SEED`` damages the file NAME of the run in FOLDER COUNT times, loads each copy
and prints what happened as one line of JSON. KIND is "accident", or "attack" by somebody who knows the format and
computes the checksum anew.
"""

import hashlib
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from tiny import assert_same, images, networks

from dcgan_lib import nested
from dcgan_lib.acceleration import adam
from dcgan_lib.checkpoint import load_generator, load_state, load_weights, restore
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import to_model_range
from dcgan_lib.errors import UserError

MARGIN = 24 * 2**20  # bytes that Python and the allocators may take besides; the smallest "huge" length is far above
PATIENCE = 5  # seconds that one file may take; milliseconds are usual
PAGE = 4096
NUMBERS = (0, 1, 2, 7, 8, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
# What nothing has to do that only reads numbers; Python reports each to audit hooks.
FORBIDDEN = {
    *("exec", "compile", "marshal.loads", "pickle.find_class", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen", "os.remove"),
    *("os.rename", "os.mkdir", "shutil.rmtree", "import"),
}


# --- accidents --------------------------------------------------------------------------------------------------------


def flip_bits(content, dice):
    damaged = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8, 100])):
        damaged[place(content, dice)] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def overwrite(content, dice):
    start = place(content, dice)
    length = min(dice.choice([1, 4, 8, 64, 512, PAGE]), len(content) - start)
    return content[:start] + dice.randbytes(length) + content[start + length :]


def truncate(content, dice):
    return content[: place(content, dice)]


def append(content, dice):
    return content + dice.choice([b"\0", b"}", dice.randbytes(dice.randrange(1, 2 * PAGE)), content])


def insert(content, dice):
    start = place(content, dice)
    return content[:start] + dice.randbytes(dice.randrange(1, 65)) + content[start:]


def remove(content, dice):
    start = place(content, dice)
    return content[:start] + content[start + dice.randrange(1, 65) :]


def zero_page(content, dice):
    start = dice.randrange(len(content)) // PAGE * PAGE
    length = min(PAGE, len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def swap_blocks(content, dice):
    size = dice.choice([1, 4, 64, 512, PAGE])
    first, second = sorted((place(content, dice), place(content, dice)))
    one, other = content[first : first + size], content[second : second + size]
    damaged = bytearray(content)
    damaged[first : first + len(other)] = other
    damaged[second : second + len(one)] = one
    return bytes(damaged)


def header_length(content, dice):
    length = dice.choice([*NUMBERS, len(content) - 9, len(content) - 8, len(content) - 1, len(content), 2**20 + 1])
    return length.to_bytes(8, "little") + content[8:]


def header_number(content, dice):
    """Another number in the header: an offset, a length of a shape."""
    header, numbers = apart(content)
    found = dice.choice(list(re.finditer(rb"(?<=[\[,])\d+(?=[\],])", header)))
    number = dice.choice([*NUMBERS, int(found[0]) + 1, int(found[0]) - 1, 10 * int(found[0])])
    return together(header[: found.start()] + str(number).encode() + header[found.end() :], numbers)


def header_dtype(content, dice):
    header, numbers = apart(content)
    found = dice.choice(list(re.finditer(rb'(?<="dtype":")\w+', header)))
    kinds = [b"F64", b"F16", b"BF16", b"I64", b"U8", b"BOOL", b"F8_E4M3", b"C64", b"F4", b"", b"__reduce__"]
    return together(header[: found.start()] + dice.choice(kinds) + header[found.end() :], numbers)


ACCIDENTS = (
    flip_bits, overwrite, truncate, append, insert, remove, zero_page, swap_blocks,
    header_length, header_number, header_dtype,
)  # fmt: skip


def place(content, dice):
    """A place in the file; every second time in its first kilobytes, where the header is."""
    return dice.randrange(min(len(content), dice.choice([6000, len(content)])))


def apart(content):
    """Header and numbers of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def together(header, numbers):
    return len(header).to_bytes(8, "little") + header + numbers


# --- attacks ----------------------------------------------------------------------------------------------------------


def signed(content):
    """The content with the checksum that belongs to it."""
    blank = re.sub(rb'("sha256":")[0-9a-f]{64}(?=")', rb"\g<1>" + b"0" * 64, content)
    return blank.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + hashlib.sha256(blank).hexdigest().encode(), 1)


def to_json(value):
    return json.dumps(value, separators=(",", ":")).encode()


def described(content, dice):
    """Another value somewhere in the header, as JSON."""
    header, numbers = apart(content)
    return together(to_json(altered(json.loads(header), dice)), numbers)


def nested_text(content, dice):
    """Another value somewhere in what the file says about networks, or how tensors make a state."""
    header, numbers = apart(content)
    header = json.loads(header)
    if "json" not in header:
        value = altered(json.loads(header["__metadata__"]["architectures"]), dice)
        header["__metadata__"]["architectures"] = json.dumps(value)
        return together(to_json(header), numbers)
    start, stop = header["json"]["data_offsets"]
    text = to_json(altered(json.loads(numbers[start:stop]), dice))
    for name, entry in header.items():  # the text stands last among the tensors of single bytes
        if name != "__metadata__" and entry["data_offsets"][0] >= stop:
            entry["data_offsets"] = [offset + len(text) - (stop - start) for offset in entry["data_offsets"]]
    header["json"] = {"dtype": "U8", "shape": [len(text)], "data_offsets": [start, start + len(text)]}
    return together(to_json(header), numbers[:start] + text + numbers[stop:])


def exchanged_entries(content, dice):
    """Two names of tensors exchanged, so that each stands for the numbers of the other."""
    header, numbers = apart(content)
    header = json.loads(header)
    one, other = dice.sample([name for name in header if name != "__metadata__"], 2)
    header[one], header[other] = header[other], header[one]
    return together(to_json(header), numbers)


def altered(value, dice):
    """A copy of nested lists and mappings with another value, or nothing, in one place of it."""
    if isinstance(value, (list, dict)) and value and dice.random() < 0.85:
        copy = value.copy()
        key = dice.choice(range(len(copy)) if isinstance(copy, list) else list(copy))
        what = dice.random()
        if what < 0.05:
            del copy[key]
        elif what < 0.1 and isinstance(copy, dict):
            copy[dice.choice(["tensor", "tuple", "dict", "table", "", "__metadata__", "two\nlines"])] = copy.pop(key)
        else:
            copy[key] = altered(copy[key], dice)
        return copy
    deep = "x"
    for _ in range(dice.choice([1, 10, 400])):
        deep = dice.choice([[deep], {"tuple": [deep]}])
    some = [
        None,
        True,
        False,
        -1,
        0.5,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
        10**30,
        10**400,
        "",
        "x" * 1000,
        [],
        {},
    ]
    tensor = {"tensor": dice.choice(["json", "/generator/layers.4x4.0.weight", "/d_optimizer/state/0/step", ""])}
    return dice.choice([*some, *NUMBERS, deep, tensor, {"dict": []}, {"OrderedDict": [["a", 1]]}])


ATTACKS = (described, described, nested_text, nested_text, nested_text, exchanged_entries, *ACCIDENTS)


# --- loading ----------------------------------------------------------------------------------------------------------


def load(folder, name):
    """All that a file of a run is for."""
    if name.startswith("state"):
        return load_state(folder)
    return [load_generator(folder).state_dict(), load_weights(folder / name, "discriminator").state_dict()]


def use(loaded, folder, name):
    """Go on with what was loaded: a step of training, or an image."""
    if not name.startswith("state"):
        generator = load_generator(folder)
        generator(torch.zeros(1, generator.latent_dim))
        return
    targets = dict(zip(("generator", "discriminator"), networks(), strict=True))
    targets["average"] = networks()[0]
    optimizers = {key: adam(targets[network].parameters(), TrainingConfig()) for key, network in
                  (("d_optimizer", "discriminator"), ("g_optimizer", "generator"))}  # fmt: skip
    for key, target in (targets | optimizers).items():
        restore(target, loaded.get(key), key)
    targets["discriminator"](to_model_range(images().images)).sum().backward()
    optimizers["d_optimizer"].step()
    nested.take_apart(loaded)


class Watch:
    """Notes what the interpreter is asked to do that reading numbers does not need."""

    def __init__(self):
        self.active, self.seen = False, set()
        sys.addaudithook(self)

    def __enter__(self):
        self.active = True

    def __exit__(self, *_):
        self.active = False

    def __call__(self, event, arguments):
        if self.active and (event in FORBIDDEN or (event == "open" and arguments[1] not in ("r", "rb", None))):
            self.seen.add(f"{event} {arguments}"[:200])


def limit_memory(extra):
    """Let this process take no more than so many bytes beyond what it has; Linux alone counts what it has."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        size = int(statm.read_text().split()[0]) * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def peak_memory():
    """Most bytes that this process has held so far; on Linux, since the last call.

    Linux's getrusage counts what the parent held before the program was started.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (peak,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(peak)


def growth(work):
    """Most bytes that the process held during some work beyond what it held before."""
    peak_memory()
    before = peak_memory()  # since the call before
    work()
    return peak_memory() - before


def main():
    folder, name, kind, count, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    torch.set_num_threads(1)
    torch.set_warn_always(False)
    content = (folder / name).read_bytes()
    expected = load(folder, name)
    use(expected, folder, name)  # whatever is imported or compiled on first use is there now
    outcomes, slowest, largest, watch = Counter(), 0.0, len(content), Watch()
    limit_memory(MARGIN + 4 * len(content))

    def work():
        nonlocal slowest, largest
        for number in range(count):
            dice = random.Random(f"{seed}-{number}")
            mutate = dice.choice(ACCIDENTS if kind == "accident" else ATTACKS)
            damaged = mutate(content, dice)
            if kind == "attack":
                damaged = signed(damaged)
            (folder / name).write_bytes(damaged)
            started = time.perf_counter()
            try:
                with watch:
                    outcome = examine(folder, name, kind, expected)
            except BaseException as error:
                raise AssertionError(f"{mutate.__name__}, number {number}: {type(error).__name__} {error}") from error
            slowest, largest = max(slowest, time.perf_counter() - started), max(largest, len(damaged))
            assert slowest < PATIENCE, f"{mutate.__name__}, number {number}: {slowest} seconds"
            outcomes.update([outcome, mutate.__name__])
            assert not watch.seen, f"{mutate.__name__}, number {number}: {watch.seen}"

    grown = growth(work)
    print(json.dumps({"outcomes": outcomes, "slowest": slowest, "grown": grown, "largest": largest}))


def examine(folder, name, kind, expected):
    """Load a damaged file and say what came of it; whatever is not right is raised."""
    try:
        loaded = load(folder, name)
    except UserError as error:
        assert_clear(error)
        return "refused"
    try:
        assert_same(loaded, expected)
    except (AssertionError, RuntimeError):
        assert kind == "attack", "what was loaded is not what was saved"
    else:
        return "equal"
    try:
        use(loaded, folder, name)
    except UserError as error:
        assert_clear(error)
        return "refused when restored"
    return "loaded"


def assert_clear(error):
    message = str(error)
    assert "\n" not in message, message
    assert len(message) < 1000, message
    assert "memory" not in message, message


if __name__ == "__main__":
    main()
