"""Models as files that `transformers` reads: Llama checkpoints in safetensors, in and out.

`transformers.AutoModelForCausalLM.from_pretrained(directory)` opens what `save` writes, without this
package. `load` reads such directories, also sharded ones, and nothing that could run code.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posterhall.adapters.saving import CONFIG as ADAPTER
from posterhall.data import tensor_files
from posterhall.errors import DataError, MissingExtra
from posterhall.extras import require, torch
from posterhall.models import _layouts, _llama, quantized
from posterhall.models.quantized import Quantization
from posterhall.quantize import state
from posterhall.runs import is_run
from posterhall.runs.files import write_atomic

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig
    from posterhall.models.decoder import Decoder

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
IN_RUN = Path("artifacts") / "model"
"""Where a training run keeps its model."""

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LARGEST_JSON = 64 << 20


class Savable(Protocol):
    """What `save` needs of a tokenizer."""

    bos_id: int | None
    eos_id: int | None

    def save(self, directory: Path) -> Any:
        """Write its files."""


def save(
    model: Decoder,
    directory: Path | str,
    *,
    tokenizer: Savable | None = None,
    shard_bytes: float = 5e9,
    more_tensors: Mapping[str, Any] | None = None,
    more_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model: as a Llama, Mamba or Mamba-2 if it is one, for transformers, else under its own names.

    Everything is written beside `directory` first. A new directory then appears whole; in one that is
    there already, files are replaced one by one, the weights first, and others are left alone.

    Args:
        model: its parameters' type is kept.
        directory: where.
        tokenizer: its files are written too, and its ids of beginning and end.
        shard_bytes: largest file of weights; more are cut into several, with an index.
        more_tensors, more_config: further tensors (a head) and entries of config.json; the latter go before
            those of the model.

    Returns:
        The directory.

    Raises:
        DataError: if it has an adapter or is quantised, or nothing can be written there.
        MissingExtra: without safetensors.
    """
    safetensors = require("safetensors.torch", "train", "saving a model")
    directory = Path(directory)
    if shard_bytes < 1:
        raise DataError(f"shard_bytes is {shard_bytes}; it must be at least 1")
    parameters, pieces = model.state_dict(), _layouts.pieces(model)
    dtype = str(model.embedding.dtype).removeprefix("torch.")
    bos, eos, pad = (getattr(tokenizer, name, None) for name in ("bos_id", "eos_id", "pad_id"))
    config = _layouts.write_config(model, dtype=dtype, bos=bos, eos=eos, pad=pad)
    absent = sorted({piece.parameter for piece in pieces} - parameters.keys())
    if absent:
        raise DataError(
            f"{absent[0].removesuffix('.weight')} has an adapter or is quantised; save the adapter "
            "(posterhall.adapters.save), or merge it first (posterhall.adapters.merge)"
        )
    # Split parameters share their memory with nothing in the file: each piece is made contiguous.
    tensors = {
        piece.name: parameters[piece.parameter].detach()[slice(*piece.rows)].cpu().contiguous()
        for piece in pieces
    }
    tensors |= {name: tensor.cpu().contiguous() for name, tensor in (more_tensors or {}).items()}
    config |= more_config or {}
    beside = directory.with_name(f".{directory.name[:60]}.{os.urandom(6).hex()}.tmp")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot write {directory}: {error.strerror}; choose another place") from error
    try:
        files = _shards(tensors, shard_bytes)
        for name, part in files.items():
            safetensors.save_file(part, beside / name, metadata={"format": "pt"})
            sync(beside / name)
        if len(files) > 1:
            index = {
                "metadata": {"total_size": sum(each.nbytes for each in tensors.values())},
                "weight_map": {tensor: name for name, part in files.items() for tensor in part},
            }
            write_atomic(beside / INDEX, json.dumps(index, indent=2) + "\n")
        ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
        write_atomic(beside / GENERATION, json.dumps(ids, indent=2) + "\n")
        if tokenizer is not None:
            tokenizer.save(beside)
        write_atomic(beside / CONFIG, json.dumps(config, indent=2) + "\n")
        move(beside, directory)
    except OSError as error:
        raise DataError(f"cannot write {directory}: {error.strerror}; choose another place") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return directory


def load(
    path: Path | str,
    *,
    dtype: Any = None,
    device: Any = "cpu",
    quantize: str | Quantization | None = None,
    ignore: Collection[str] = (),
) -> Decoder:
    """Read a Llama's, Mamba's or Mamba-2's checkpoint, or another decoder's that `save` has written; also one
    whose linear layers are quantised (`posterhall model quantize`).

    Args:
        path: a directory with config.json and safetensors; a run whose artifacts hold one; or an id on the
            Hugging Face hub ("owner/name"), which is downloaded, safetensors only.
        dtype: a torch type, or its name; None keeps that of the files. Of a quantised model, that of its
            other tensors, in which it computes.
        device: where to put it.
        quantize: quantise the linear layers but the head while they are read: a code as "nf4", with QLoRA's
            settings, or a `posterhall.models.quantized.Quantization`.
        ignore: names of tensors that are not the decoder's.

    Returns:
        The model, in evaluation mode.

    Raises:
        DataError: for what is not there, damaged, pickled, or of another architecture.
        MissingExtra: without torch or safetensors; for an id, without huggingface_hub.
    """
    from posterhall.models.decoder import Decoder
    from posterhall.models.filling import Filling

    require("safetensors", "train", "loading a model")
    directory = locate(path)
    if is_adapter(directory):
        raise DataError(
            f"{directory} is an adapter, and a whole model is needed here; merge it first: "
            "posterhall model merge"
        )
    config, wanted = read_config(directory), dtype_of(dtype)
    how = quantized.of(quantize)
    check_quantized_once(directory, how)
    filling = Filling(Decoder(config, seed=None), tensor_names(directory), how)
    for file, name, tensor in tensors(directory):
        if name not in ignore:
            filling.take(name, tensor, file)
    model = filling.finish(directory)
    return model.to(device=device, dtype=wanted or filling.dtype).eval()


def tensors(directory: Path) -> Iterator[tuple[Path, str, torch.Tensor]]:
    """Every tensor of a directory's weight files, one at a time, with its file and name.

    Raises:
        DataError: for files that are missing or damaged.
    """
    for file in sorted(set(weight_files(directory).values())):
        for name, tensor in tensors_of(file):
            yield file, name, tensor


def tensors_of(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a file, one at a time, with its name.

    Raises:
        DataError: for a damaged file.
    """
    safetensors = require("safetensors", "train", "loading a model")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, opened.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise DataError(f"{file}: not a whole safetensors file: {error}; fetch it again") from error


def tensor_names(directory: Path) -> list[str]:
    """The names of all tensors in a directory's weight files; only headers are read."""
    files = sorted(set(weight_files(directory).values()))
    return [name for file in files for name in tensor_files.header(file)]


def fingerprint(directory: Path) -> str:
    """Of the weights in a directory; see `posterhall.data.tensor_files.fingerprint`."""
    return tensor_files.fingerprint(set(weight_files(directory).values()))


def read_quantization(directory: Path) -> Quantization | None:
    """How the model in a directory is quantised; None if it is not.

    Raises:
        DataError: for a kind that is not known here.
    """
    file = directory / CONFIG
    return quantized.read_config(read_json(file), str(file))


def has_halves(directory: Path, how: Quantization | None) -> bool:
    """Whether some projections that are one matrix of a decoder are quantised and others of it are not, as a
    Llama's files say, or would be with `how`."""
    marked = set(state.names(tensor_names(directory)))

    def is_quantised(name: str) -> bool:
        return f"{name}.weight" in marked if how is None else not how.skips(name)

    return any(
        len({is_quantised(name) for name, _ in parts}) > 1
        for parts in _llama.projections(read_config(directory)).values()
    )


def check_quantized_once(directory: Path, how: Quantization | None) -> None:
    """Refuse to quantise what is quantised already."""
    said = read_quantization(directory)
    if how is not None and said is not None:
        raise DataError(
            f"{directory} is quantised already ({said.code}); load it without quantising, or quantise the "
            "original model"
        )


def read_config(directory: Path) -> DecoderConfig:
    """The shape of the model in a directory.

    Raises:
        DataError: if there is none, or of another architecture.
    """
    file = directory / CONFIG
    return _layouts.read_config(read_json(file), str(file))


def end_ids(directory: Path) -> frozenset[int]:
    """The tokens that end a text, of which chat models have several: what generation_config.json says, or
    else config.json."""
    for name in (GENERATION, CONFIG):
        if (directory / name).is_file():
            found = read_json(directory / name).get("eos_token_id")
            if found is not None:
                listed = found if isinstance(found, list) else [found]
                return frozenset(each for each in listed if isinstance(each, int))
    return frozenset()


def stored(directory: Path) -> tuple[int, list[str], int]:
    """What the weight files of a directory hold: numbers, their types, and bytes; only headers are read.

    Raises:
        DataError: if there are none, or they are damaged.
    """
    return stored_in(sorted(set(weight_files(directory).values())))


def stored_in(files: Iterable[Path]) -> tuple[int, list[str], int]:
    """The same of some files."""
    count, dtypes, size = 0, set(), 0
    for file in files:
        size += file.stat().st_size
        for tensor in tensor_files.header(file).values():
            count += math.prod(tensor["shape"])
            dtypes.add(str(tensor["dtype"]))
    return count, sorted(dtypes), size


def locate(path: Path | str) -> Path:
    """The directory of a model or an adapter: itself, a run's artifacts/model, or the copy of one on the hub.

    Raises:
        DataError: if there is no model.
        MissingExtra: if it is an id of the hub, and huggingface_hub is not installed.
    """
    directory = Path(path)
    if is_run(directory):
        inside = directory / IN_RUN
        if not _holds_model(inside):
            raise DataError(f"the run {directory} holds no model ({IN_RUN}); has the training ended?")
        return inside
    if _holds_model(directory):
        return directory
    if directory.is_dir():
        raise DataError(
            f"{directory} has no {CONFIG}; give a directory that Hugging Face models or adapters are saved "
            "to, or a run"
        )
    if directory.exists():
        raise DataError(f"{directory} is a file; give the model's directory")
    if _HUB_ID.fullmatch(str(path)):
        return _download(str(path))
    raise DataError(
        f"no model at {path}; give a directory with {CONFIG}, a run, or an id of the Hugging Face hub "
        "(owner/name)"
    )


def _holds_model(directory: Path) -> bool:
    return (directory / CONFIG).is_file() or (directory / ADAPTER).is_file()


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter, and not a whole model."""
    return (directory / ADAPTER).is_file() and not (directory / CONFIG).is_file()


def _download(name: str) -> Path:
    try:
        hub = require("huggingface_hub", "hf", f"fetching {name}")
    except MissingExtra as error:
        raise MissingExtra("hf", f"there is no directory {name}, and fetching it from the hub") from error
    patterns = ["*.json", "*.safetensors", "tokenizer*", "*.jinja", "merges.txt", "vocab.txt"]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # its own errors, requests', the system's: all mean the same here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"there is no directory {name}, and the hub has none to give: {reason}") from error


def weight_files(directory: Path) -> dict[str, Path]:
    """The file of each tensor; of a single file, one entry.

    Raises:
        DataError: if there are none, one is missing, or they are pickles.
    """
    if (directory / WEIGHTS).is_file():
        return {"": directory / WEIGHTS}
    if (directory / INDEX).is_file():
        mapped = read_json(directory / INDEX).get("weight_map")
        if not isinstance(mapped, dict) or not mapped:
            raise DataError(f"{directory / INDEX}: has no weight_map")
        files = {}
        for tensor, name in mapped.items():
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise DataError(f"{directory / INDEX}: {tensor} is in {name!r}, which is no file beside it")
            files[tensor] = directory / name
            if not files[tensor].is_file():
                raise DataError(f"{directory / name} is missing; {INDEX} names it. Fetch it again")
        return files
    pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")])
    if pickled:
        raise DataError(
            f"{pickled[0]} is a pickle, which can run any code when it is opened, so it is not. Make "
            "safetensors of it where that does no harm: transformers' "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...), or take the model's safetensors"
        )
    raise DataError(f"{directory} has no weights ({WEIGHTS} or {INDEX})")


def dtype_of(given: Any) -> Any:
    """A torch type by its name; another thing as it is.

    Raises:
        DataError: for another name.
    """
    if isinstance(given, str):
        if given not in _DTYPES:
            raise DataError(f"dtype is '{given}'; it must be one of {', '.join(_DTYPES)}")
        return getattr(torch, given)
    return given


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        DataError: if there is none.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{path} has {path.stat().st_size} bytes; that is no settings file")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}; it must be an object")
    return found


def _shards(tensors: Mapping[str, Any], limit: float) -> dict[str, dict[str, Any]]:
    """Tensors by file, in order, none above the limit unless a single tensor is."""
    groups: list[dict[str, Any]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    count = len(groups)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": group for i, group in enumerate(groups, 1)}


def move(beside: Path, directory: Path) -> None:
    """Let what was written beside take a directory's place: whole if it is new, else file by file."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        beside.replace(directory)
        return
    if not directory.is_dir():
        raise DataError(f"cannot write a model to {directory}: it is a file; give a directory")
    written = {each.name for each in beside.iterdir()}
    # The config last: until it is there, the old one stands beside whole files, old or new.
    for name in sorted(written, key=lambda name: (name == CONFIG, not name.endswith(".safetensors"), name)):
        (beside / name).replace(directory / name)
    stale = {INDEX} | {each.name for each in directory.glob("model*.safetensors")}
    for name in stale - written:
        (directory / name).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk take a file's bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
