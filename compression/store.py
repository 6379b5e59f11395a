"""Puts a bundle into BentoML's model store, under a tag that names its version."""

import shutil

from compression.bundle import Bundle, extra
from compression.bundle.signature import SIGNATURE
from compression.errors import StorageError


def store_bundle(bundle: Bundle, name: str) -> str:
    """Copies the bundle into the store.

    Returns:
        its tag, NAME:VERSION; storing the same bundle again keeps it.

    Raises:
        StorageError: the store takes no such name.
        MissingExtra: BentoML is not installed.
    """
    with extra("serve"):
        import bentoml
        from bentoml.exceptions import BentoMLException, NotFound

    tag = f"{name}:{bundle.version}"
    try:
        model = bentoml.models.get(tag)
        if (bundle.path / SIGNATURE).is_file():  # which the same bundle may have had not, or another
            shutil.copy(bundle.path / SIGNATURE, model.path)
        return str(model.tag)
    except NotFound:
        pass
    except (BentoMLException, ValueError) as error:
        raise StorageError(f"{name!r}: no name for a model: {error}; use letters, digits, - and _") from error
    with bentoml.models.create(tag, labels={"lathe.recipe": str(bundle.manifest.recipe.get("name"))}) as model:
        shutil.copytree(bundle.path, model.path, dirs_exist_ok=True)
    return str(model.tag)
