"""Names and colours of the classes of known datasets."""

from dataclasses import dataclass

CITYSCAPES = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60),
    "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100),
    "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip

PASCAL_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

PASCAL_CONTEXT_59 = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow",
    "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip

ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink",
    "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow",
    "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book",
    "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
    "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
    "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip


@dataclass(frozen=True)
class ClassInfo:
    """One name and one (red, green, blue) colour per class, in order."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]


def bit_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """PASCAL VOC's colours: the bits of the class number spread over the high bits of red, green and blue."""
    colors = []
    for number in range(count):
        red = green = blue = 0
        for shift in range(8):
            digit = number >> (3 * shift)
            red |= (digit & 1) << (7 - shift)
            green |= (digit >> 1 & 1) << (7 - shift)
            blue |= (digit >> 2 & 1) << (7 - shift)
        colors.append((red, green, blue))
    return tuple(colors)


_NAMES = {
    ("PascalVOC", 21): PASCAL_VOC,
    ("PascalContext", 59): PASCAL_CONTEXT_59,
    ("PascalContext", 60): ("background", *PASCAL_CONTEXT_59),
    ("PascalContext59", 59): PASCAL_CONTEXT_59,
    ("ADE20K", 150): ADE20K,
}


def class_info(dataset_type: str, num_classes: int) -> ClassInfo:
    """Names and colours for a dataset of a configuration; `class_0`, `class_1`, ... where it has none of its own.

    Args:
        dataset_type: the `type` of the dataset, such as `Cityscapes`.
        num_classes: how many classes the model has.
    """
    if dataset_type == "Cityscapes" and num_classes == len(CITYSCAPES):
        return ClassInfo(tuple(CITYSCAPES), tuple(CITYSCAPES.values()))
    names = _NAMES.get((dataset_type, num_classes))
    if names is not None:
        return ClassInfo(names, bit_palette(num_classes))
    # Without a background class black would hide class 0 in overlays.
    return ClassInfo(tuple(f"class_{i}" for i in range(num_classes)), bit_palette(num_classes + 1)[1:])
