"""MLflow model folders: the ``MLmodel`` file names flavours; we take a native one and never ``python_function``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from serving.errors import LoadFailed

#: Flavour -> the keys that may name its file (``save_model`` of MLflow's flavour modules); the preferred first.
_FLAVOURS: dict[str, tuple[str, ...]] = {
    "onnx": ("data",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "sklearn": ("pickled_model",),
}
_MAX_BYTES = 1 << 20


def model_file(folder: Path) -> Path:
    """The model file of the folder's best native flavour.

    Raises LoadFailed when ``MLmodel`` is damaged, names no flavour that is served, or a file outside its folder.
    """
    flavours = _flavours(folder)
    for flavour, keys in _FLAVOURS.items():
        described = flavours.get(flavour)
        if not isinstance(described, dict):
            continue
        name = next((described[key] for key in keys if isinstance(described.get(key), str)), None)
        if name is None:
            raise LoadFailed(f"MLmodel does not say in which file the flavour {flavour!r} lies")
        return _beneath(folder, name)
    offered = ", ".join(sorted(str(name) for name in flavours)[:10]) or "none"
    raise LoadFailed(f"MLmodel has none of the flavours {', '.join(_FLAVOURS)}; it has {offered}")


def _flavours(folder: Path) -> dict[object, object]:
    import yaml  # here: only MLflow folders need it

    path = folder / "MLmodel"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LoadFailed("MLmodel is larger than 1 MB")
        described = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise LoadFailed("MLmodel is not a YAML file that can be read") from error
    flavours = described.get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavours, dict):
        raise LoadFailed("MLmodel names no flavors")
    return flavours


def _beneath(folder: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise LoadFailed("MLmodel names a file outside its own folder")
    file = folder / relative
    if file.is_dir():  # newer MLflow keeps ONNX with external tensors in a folder
        file = file / "model.onnx"
    if not file.is_file():
        raise LoadFailed(f"MLmodel names the file {relative.name!r}, which is not in its folder")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise LoadFailed("MLmodel names a file outside its own folder")
    return file
