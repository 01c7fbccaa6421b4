"""Where tools put pictures, their annotations and their splits."""

import pathlib

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.sources import pictures

# Folders of pictures, beside those of their annotations.
PICTURES = ("JPEGImages", "images")
# Of Pascal VOC: lists of the names of pictures, one a line, without suffix.
LISTS = ("ImageSets/Main", "ImageSets/Segmentation")
ANNOTATIONS = (".xml", ".json", ".txt", ".yaml", ".csv")  # endings of their files


def root_of(name, data_dir, what):
    """Returns the folder of a dataset; raises `UserError` if there is none.

    Args:
        name: of the dataset.
        data_dir: as the user gave it.
        what: what the folder has to hold.
    """
    if not data_dir:
        raise UserError(f"--dataset={name} needs --data_dir=DIR with {what}")
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise UserError(
            f"--dataset={name} needs a folder with {what}. Received: {str(data_dir)!r}"
        )
    return root


def picture_parts(root, left_out, is_picture=lambda path: True):
    """Finds the pictures of a folder, and what of them is held out.

    They lie in DIR/train and in DIR/val, "validation", "valid" or "test"; or ImageSets
    of Pascal VOC list them by these names; or a fifth is held out. Where DIR/JPEGImages
    or DIR/images exists, that has the pictures.

    Args:
        root: the folder.
        left_out: `pictures.LeftOut`.
        is_picture: function of a path that is false for masks.

    Returns:
        dict of the name of each split and its paths, "train" first.
    """

    def below(folder):
        found = sorted(pictures.images_below(folder, left_out, ANNOTATIONS))
        return list(filter(is_picture, found))

    if (root / "train").is_dir():
        held_out = [name for name in pictures.HELD_OUT if (root / name).is_dir()]
        if not held_out:
            raise UserError(
                f"{root} has a folder 'train' but none named 'val', 'validation', "
                "'valid' or 'test' to evaluate on"
            )
        for name in held_out[1:]:
            left_out.mention(f"the folder {name!r}")
        return {name: below(root / name) for name in ("train", held_out[0])}
    folders = [root / name for name in PICTURES if (root / name).is_dir()]
    paths = below(folders[0] if folders else root)
    listed = _listed(root, paths)
    if listed:
        return listed
    train, held_out = pictures.hold_out_a_fifth(paths)
    return {"train": train, "held_out": held_out}


def _listed(root, paths):
    """Returns the splits that lists of Pascal VOC name, or None."""
    for folder in (root / name for name in LISTS):
        held_out = [x for x in pictures.HELD_OUT if (folder / f"{x}.txt").is_file()]
        if not (folder / "train.txt").is_file() or not held_out:
            continue
        by_name = {pathlib.Path(path).stem: path for path in paths}
        parts = {}
        for name in ("train", held_out[0]):
            text = (folder / f"{name}.txt").read_text(encoding="utf-8-sig")
            stems = [pathlib.Path(line).name for line in text.split()]
            missing = [stem for stem in stems if stem not in by_name]
            if missing:
                raise UserError(
                    f"{folder / name}.txt lists {missing[0]!r}, which is no picture "
                    f"below {root} (and {len(missing) - 1} more like it)"
                )
            parts[name] = [by_name[stem] for stem in stems]
        return parts
    return None


def read_text(path, faults, kind):
    """Returns the text of an annotation, or None where it has a fault."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        faults.report(kind, f"{path}: {error}")
        return None
