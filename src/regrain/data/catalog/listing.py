"""What the catalogue holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from regrain.data.catalog import fine_grained, originals, reviews, superclasses
from regrain.data.catalog.hapt import hapt
from regrain.data.dataset import Modality
from regrain.data.rows import Rows
from regrain.labels import Relation

__all__ = ["Entry", "entries"]


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue.

    Parameters
    ----------
    name, description : str
    modality : Modality
    levels : mapping of level to number of classes, coarse to fine
    samples : mapping of split to number of samples
    source, licence : str
    layouts : tuple of str
        What is looked for under the root.
    views : tuple of str
        Names of presets for the two views to train on; empty: the modality's own.
    notes : tuple of str
        What one should know before quoting numbers.
    side : int
        Of its images in pixels; 256, at which large ones are stored, where they are of many sizes.
    relation : Relation
        How the levels hang together.
    original : callable
        Reads the authors' layout under a root; None when it is not there.
    grouping : str, optional
        The file of ``groupings/`` that gives coarse classes where a layout does not hold them.
    folder : str, optional
        Name of the folder of Parquet files.
    stored : mapping of level to number of classes, optional
        The levels of those files to read, where ``grouping`` gives the others; default all.
    roles : mapping
        Options that say what the columns of those files are (:class:`~regrain.data.table.RoleOptions`); default: a
        column named like the modality.
    torchvision : str, optional
        The class of torchvision's that downloads it.
    """

    name: str
    description: str
    modality: Modality
    levels: Mapping[str, int]
    samples: Mapping[str, int]
    source: str
    licence: str
    layouts: tuple[str, ...]
    views: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    side: int = field(default=256, kw_only=True)
    relation: Relation = field(default="tree", kw_only=True)
    original: Callable[[Path], Rows | None] = field(kw_only=True, repr=False)
    grouping: str | None = field(default=None, kw_only=True, repr=False)
    folder: str | None = field(default=None, kw_only=True, repr=False)
    stored: Mapping[str, int] | None = field(default=None, kw_only=True, repr=False)
    roles: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)
    torchvision: str | None = field(default=None, kw_only=True, repr=False)


_CIFAR10_LAYOUTS = ("cifar10/train.parquet, cifar10/test.parquet", "cifar-10-batches-py/data_batch_1 ... (torchvision)")
_CIFAR100_LAYOUTS = (
    "cifar100/train.parquet, cifar100/test.parquet",
    "cifar-100-python/train, test, meta (torchvision)",
)
_CIFAR10_NOTE = (
    "the Parquet copy holds JPEG files, a lossy copy: its numbers are not exactly comparable with published ones"
)
_CIFAR_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_ILSVRC_LAYOUTS = (
    "train/n01440764/*.JPEG, val/n01440764/*.JPEG",
    "imagenet/train/..., imagenet/val/...",
    "ILSVRC2012/train/..., ILSVRC2012/val/...",
    "ILSVRC/Data/CLS-LOC/train/..., ILSVRC/Data/CLS-LOC/val/... (Kaggle)",
)
_PHOTO_VIEWS = ("strong", "weak")
_GLYPH_VIEWS = ("glyph-strong", "glyph-weak")
_SERIES_VIEWS = ("strong", "weak")
_UNSEEN_NOTE = "no copy was at hand: the layout is the published one, the numbers of samples are not checked"
_SENTIMENT_NOTE = "of five stars, 4 and more are positive, 3 and 3.5 neutral, less negative; 0 and -1 are no rating"
_SUBJECTS_NOTE = "a sixth of the {0}, by a checksum of their ids, is tested, a choice of ours; groups are {0}"


def _cifar100(
    name: str,
    description: str,
    levels: Mapping[str, int] | None = None,
    grouping: str = "cifar100",
    notes: tuple[str, ...] = (),
) -> Entry:
    return Entry(
        name=name,
        description=description,
        modality="image",
        side=32,
        levels=levels or {"superclass": 20, "label": 100},
        samples={"train": 50_000, "test": 10_000},
        source=_CIFAR_SOURCE,
        licence="none stated",
        layouts=_CIFAR100_LAYOUTS,
        views=_PHOTO_VIEWS,
        notes=("26 groups of byte-identical images, 10 of them across train and test", *notes),
        original=originals.cifar100,
        grouping=grouping,
        folder="cifar100",
        stored=None if grouping == "cifar100" else {"label": 100},
        torchvision="CIFAR100",
    )


def _cifar100_superclasses(count: int, names: str, *notes: str) -> Entry:
    return _cifar100(
        f"cifar100-{count}",
        f"CIFAR-100 under SCLRE's {count} superclasses: {names}",
        {f"superclass{count}": count, "label": 100},
        f"cifar100_{count}",
        notes,
    )


def _voc(year: int, splits: Mapping[str, str], samples: Mapping[str, int], *notes: str) -> Entry:
    return Entry(
        name=f"voc{year}",
        description=f"PASCAL VOC {year}: photographs of biotic or of abiotic objects, 20 classes",
        modality="image",
        levels={"superclass": 2, "label": 20},
        samples=samples,
        source=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}",
        licence="none stated; photographs from Flickr, under its terms of use",
        layouts=(
            f"VOCdevkit/VOC{year}/JPEGImages, Annotations, ImageSets/Main/{', '.join(f'{s}.txt' for s in splits)}",
            f"VOC{year}/...",
        ),
        views=_PHOTO_VIEWS,
        notes=(
            "SCLRE (CVPR 2023) does not publish its list (1,905 training images); the rule is ours: biotic is what "
            "lives, potted plants too",
            "images with objects of both kinds (difficult ones too) are left out; the numbers of samples count them",
            "the label is known where all objects of an image are of one class",
            *notes,
            _UNSEEN_NOTE,
        ),
        original=partial(superclasses.voc, year=year, splits=splits),
    )


def _sentiments(aspects: Sequence[str]) -> dict[str, int]:
    return {f"{aspect}_sentiment": 3 for aspect in aspects}


def _cifartoy(name: str, description: str, grouping: str) -> Entry:
    return Entry(
        name=name,
        description=description,
        modality="image",
        side=32,
        levels={"coarse": 2, "label": 8},
        samples={"train": 40_000, "test": 8_000},
        source=_CIFAR_SOURCE,
        licence="none stated",
        layouts=_CIFAR10_LAYOUTS,
        views=_PHOTO_VIEWS,
        notes=("CIFAR-10 without deer and frog", _CIFAR10_NOTE),
        original=originals.cifar10,
        grouping=grouping,
        folder="cifar10",
        stored={"label": 10},
        torchvision="CIFAR10",
    )


def _ilsvrc(
    name: str,
    description: str,
    levels: Mapping[str, int],
    samples: Mapping[str, int],
    grouping: str,
    notes: tuple[str, ...] = (),
) -> Entry:
    return Entry(
        name=name,
        description=description,
        modality="image",
        levels=levels,
        samples=samples,
        source="https://www.image-net.org/challenges/LSVRC/2012",
        licence="ImageNet's terms of access: non-commercial research and education",
        layouts=_ILSVRC_LAYOUTS,
        views=_PHOTO_VIEWS,
        notes=(
            f"labels are WordNet ids; `regrain taxonomies {grouping}` prints them in words",
            "the test split is ILSVRC's validation set",
            *notes,
        ),
        original=partial(originals.ilsvrc, classes_of=grouping),
        grouping=grouping,
    )


def _sop(name: str, description: str, samples: Mapping[str, int], products: int, *notes: str) -> Entry:
    """Stanford Online Products; MaskCon's splits where the name says so."""
    split = name.removeprefix("sop-") if name != "sop" else ""
    return Entry(
        name=name,
        description=f"Stanford Online Products: photographs of things on sale, {description}",
        modality="image",
        levels={"coarse12" if split else "category": 12, "product": products},
        samples=samples,
        source="https://cvgl.stanford.edu/projects/lifted_struct (Song et al., CVPR 2016)",
        licence="none stated; photographs of eBay's sellers, handed out for research",
        layouts=(
            "Stanford_Online_Products/bicycle_final/111085122871_0.JPG ..."
            + ("" if split else " beside Ebay_train.txt and Ebay_test.txt"),
            "the same in SOP, sop, stanford_online_products",
        ),
        views=("sop-strong", "sop-weak"),
        notes=(*notes, _UNSEEN_NOTE),
        original=partial(fine_grained.sop_split, name=f"sop_{split}") if split else fine_grained.sop,
        grouping=f"sop_{split}" if split else None,
    )


def _breeds(task: str, coarse: int, fine: int, train: int) -> Entry:
    return _ilsvrc(
        task,
        f"BREEDS: {fine} classes of ImageNet under {coarse} superclasses of like visual granularity",
        {"superclass": coarse, "label": fine},
        {"train": train, "test": 50 * fine},
        f"breeds_{task}",
        ("the number of training images is SCGM's (ICLR 2022), in full thousands",),
    )


@cache
def _entries() -> dict[str, Entry]:
    entries = [
        Entry(
            name="digits",
            description="handwritten digits of 8 x 8 pixels, grouped by the shape of their strokes",
            modality="image",
            side=8,
            levels={"group": 3, "digit": 10},
            samples={"train": 1352, "test": 445},
            source="https://archive.ics.uci.edu/dataset/80, as it comes with scikit-learn",
            licence="CC BY 4.0",
            layouts=("comes with scikit-learn",),
            views=_GLYPH_VIEWS,
            notes=("the groups and the split (every fourth sample of a digit is tested) are our own",),
            original=originals.digits,
            grouping="digits",
        ),
        Entry(
            name="cifar10",
            description="photographs of 32 x 32 pixels in ten classes",
            modality="image",
            side=32,
            levels={"label": 10},
            samples={"train": 50_000, "test": 10_000},
            source=_CIFAR_SOURCE,
            licence="none stated",
            layouts=_CIFAR10_LAYOUTS,
            views=_PHOTO_VIEWS,
            notes=(_CIFAR10_NOTE,),
            original=originals.cifar10,
            folder="cifar10",
            torchvision="CIFAR10",
        ),
        _cifar100("cifar100", "photographs of 32 x 32 pixels in 100 classes under 20 superclasses"),
        _cifar100("cifar100-20", "CIFAR-100 under MaskCon's name: train on 20 superclasses, tell 100 classes apart"),
        _cifar100_superclasses(
            3,
            "aquatic, land-motional, stationary",
            "RECONSTRUCTION. Certain: the 40 stationary classes, and that aquatic has 18 and land-motional 42",
            "inferred: which two of ten invertebrates and reptiles move on land; spider and lizard are a guess",
        ),
        _cifar100_superclasses(
            4,
            "mammals, non mammals, natures, artifacts",
            "exact: table 2 of SCLRE's supplement, which is its code's list",
        ),
        _cifar100_superclasses(
            7,
            "aquatics, plants, household items, small and non small animals, outdoor scenes, vehicles",
            "RECONSTRUCTION. Certain: five groups, of 60 classes, and that the others have 18 and 22",
            "inferred: which of 40 land animals and people are small; lizard, snake and turtle taken as such",
        ),
        _cifartoy("cifartoy-good", "CIFARtoy, good split: vehicles against animals", "cifartoy_good"),
        _cifartoy("cifartoy-bad", "CIFARtoy, bad split as in MaskCon's paper", "cifartoy_bad"),
        _cifartoy("cifartoy-bad-code", "CIFARtoy, bad split as in MaskCon's code", "cifartoy_bad_code"),
        Entry(
            name="omniglot",
            description="handwritten characters of five alphabets by twenty drawers each, 105 x 105 pixels",
            modality="image",
            side=105,
            levels={"alphabet": 5, "character": 136},
            samples={"train": 1904, "test": 816},
            source="https://github.com/brendenlake/omniglot, python/images_background_small1.zip",
            licence="MIT",
            layouts=(
                "omniglot/train.parquet, omniglot/test.parquet",
                "images_background_small1/ALPHABET/characterNN/*.png",
                "images_background/ALPHABET/characterNN/*.png (30 alphabets, 964 characters)",
            ),
            views=_GLYPH_VIEWS,
            notes=("drawers 1 to 14 are for training, 15 to 20 for testing",),
            original=originals.omniglot,
            folder="omniglot",
        ),
        Entry(
            name="clinc150",
            description="short questions to an assistant, 150 intents under ten domains",
            modality="text",
            levels={"domain": 10, "intent": 150},
            samples={"train": 15_000, "val": 3_000, "test": 4_500},
            source="https://github.com/clinc/oos-eval",
            licence="CC BY 3.0",
            layouts=("clinc150/train.parquet, val.parquet, test.parquet, oos.parquet", "data_full.json"),
            notes=(
                "out-of-scope texts are a split of their own, oos, without labels, read when splits names it",
                "five texts occur in two splits, four of them with different intents",
            ),
            original=originals.clinc150,
            grouping="clinc150",
            folder="clinc150",
        ),
        Entry(
            name="hwu64",
            description="short commands to an assistant, 64 intents under 18 domains",
            modality="text",
            levels={"coarse": 18, "label": 64},
            samples={"train": 8954, "test": 1031},
            source="https://github.com/Lackel/Hierarchical_Weighted_SCL, data/hwu64 (Liu et al. 2019)",
            licence="none stated there",
            layouts=("hwu64/train.tsv, hwu64/test.tsv (text, category)", "data/hwu64/..., HWU64/..."),
            notes=("figures of category discovery are measured on this copy", _UNSEEN_NOTE),
            original=partial(originals.tabbed_texts, name="hwu64"),
            grouping="hwu64",
        ),
        Entry(
            name="grocery",
            description="photographs of groceries in a shop, three levels, unbalanced",
            modality="image",
            side=64,
            levels={"category": 3, "coarse": 43, "fine": 81},
            samples={"train": 2640, "val": 296, "test": 2485},
            source="https://github.com/marcusklasson/GroceryStoreDataset",
            licence="MIT",
            layouts=(
                "grocery/train.parquet, val.parquet, test.parquet (64 x 64 pixels)",
                "GroceryStoreDataset/dataset/train/... (about 350 pixels)",
            ),
            views=_PHOTO_VIEWS,
            notes=("the Parquet copy is cropped to the centre and resized to 64 x 64",),
            original=originals.grocery,
            grouping="grocery",
            folder="grocery",
        ),
        _ilsvrc(
            "imagenet",
            "ILSVRC 2012: photographs in 1000 classes under MaskCon's 12",
            {"coarse12": 12, "label": 1000},
            {"train": 1_281_167, "test": 50_000},
            "imagenet_12",
        ),
        _breeds("living17", 17, 68, 88_000),
        _breeds("nonliving26", 26, 104, 132_000),
        _breeds("entity13", 13, 260, 334_000),
        _breeds("entity30", 30, 240, 307_000),
        Entry(
            name="imagenet-32",
            description="ILSVRC 2012 at 32 x 32 pixels, in 1000 classes under MaskCon's 12",
            modality="image",
            side=32,
            levels={"coarse12": 12, "label": 1000},
            samples={"train": 1_281_167, "test": 50_000},
            source="https://patrykchrabaszcz.github.io/Imagenet32 (Chrabaszcz et al. 2017)",
            licence="ImageNet's terms of access: non-commercial research and education",
            layouts=(
                "train_data_batch_1 ... train_data_batch_10, val_data (pickles)",
                "the same with .npz; in imagenet32, imagenet-32, ImageNet32, downsampled-imagenet-32",
            ),
            views=_PHOTO_VIEWS,
            notes=(
                "labels are WordNet ids; the files number the classes in an order of their own, which is undone",
                "the test split is ILSVRC's validation set",
                "3.9 GB in memory, twice that while it is read",
                _UNSEEN_NOTE,
            ),
            original=fine_grained.imagenet32,
            grouping="imagenet_12",
        ),
        Entry(
            name="tieredimagenet",
            description="608 classes of ImageNet under 34; superclasses tested are not trained on",
            modality="image",
            levels={"coarse": 34, "label": 608},
            samples={"train": 448_695, "val": 124_261, "test": 206_209},
            source="https://github.com/renmengye/few-shot-ssl-public (Ren et al., ICLR 2018)",
            licence="ImageNet's terms of access: non-commercial research and education",
            layouts=(
                "tiered-imagenet/train/n01530575/*, val/n.../*, test/n.../* (also tiered_imagenet, tieredImageNet)",
                *(layout.partition(", ")[0] + " (ILSVRC's training images)" for layout in _ILSVRC_LAYOUTS),
            ),
            views=_PHOTO_VIEWS,
            notes=(
                "labels are WordNet ids; `regrain taxonomies tieredimagenet` prints them in words",
                "20, 6 and 8 superclasses are for training, validation and testing: judge with --unseen-superclasses",
                "the papers see it at 84 x 84 pixels: --image-size 84",
                "the pickles of 84 x 84 pixels (train_images_png.pkl) are not read: unpack them into folders",
                _UNSEEN_NOTE,
            ),
            original=fine_grained.tiered_imagenet,
            grouping="tieredimagenet",
        ),
        _sop("sop", "the authors' split", {"train": 59_551, "test": 60_502}, 22_634),
        _sop(
            "sop-split1",
            "MaskCon's split 1: the products tested are not trained on",
            {"train": 25_368, "test": 25_278},
            5035,
            "products with eight images and more",
        ),
        _sop(
            "sop-split2",
            "MaskCon's split 2: ten images of a product to train on, two to test",
            {"train": 14_980, "test": 2_996},
            1498,
            "products with twelve images",
        ),
        Entry(
            name="cars196",
            description="Stanford Cars: photographs of 196 models of cars under MaskCon's eight types",
            modality="image",
            levels={"coarse8": 8, "label": 196},
            samples={"train": 8144, "test": 8041},
            source="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (Krause et al. 2013)",
            licence="none stated; handed out for research",
            layouts=(
                "stanford_cars/cars_train/*.jpg, cars_test/*.jpg, devkit/cars_meta.mat, devkit/cars_train_annos.mat, "
                "cars_test_annos_withlabels.mat (torchvision; the last may lie in devkit)",
                "car_data/car_data/train/CLASS/*.jpg, car_data/car_data/test/CLASS/*.jpg (Kaggle)",
                "the same in cars196, car_data",
            ),
            views=("cars-strong", "cars-weak"),
            notes=(
                "Ford E-Series Wagon Van is a Van, as in MaskCon's code and figure 6; its table 8 counts otherwise",
                _UNSEEN_NOTE,
            ),
            original=fine_grained.cars196,
            grouping="cars196_8",
        ),
        Entry(
            name="cub200",
            description="Caltech-UCSD Birds: photographs of 200 species under BuCSFR's 24 groups",
            modality="image",
            levels={"coarse": 24, "label": 200},
            samples={"train": 5994, "test": 5794},
            source="https://www.vision.caltech.edu/datasets/cub_200_2011 (Wah et al. 2011)",
            licence="non-commercial research and education",
            layouts=(
                "CUB_200_2011/images/001.Black_footed_Albatross/*.jpg, images.txt, image_class_labels.txt, "
                "classes.txt, train_test_split.txt",
                "the same in cub200",
            ),
            views=("cars-strong", "cars-weak"),
            notes=("the views are Stanford Cars', for no paper here publishes its own", _UNSEEN_NOTE),
            original=fine_grained.cub200,
            grouping="cub200_24",
        ),
        Entry(
            name="flowers102",
            description="Oxford Flowers: photographs of 102 species under BuCSFR's twelve groups",
            modality="image",
            levels={"coarse": 12, "label": 102},
            samples={"train": 1020, "val": 1020, "test": 6149},
            source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102 (Nilsback and Zisserman 2008)",
            licence="none stated; handed out for research",
            layouts=("flowers-102/jpg/image_*.jpg, imagelabels.mat, setid.mat (torchvision)", "the same in flowers102"),
            views=("cars-strong", "cars-weak"),
            notes=("the views are Stanford Cars', for no paper here publishes its own", _UNSEEN_NOTE),
            original=fine_grained.flowers102,
            grouping="flowers102",
            torchvision="Flowers102",
        ),
        Entry(
            name="mini-imagenet",
            description="photographs of 84 x 84 pixels in 100 classes of ImageNet, animals or not",
            modality="image",
            side=84,
            levels={"superclass": 2, "label": 100},
            samples={"train": 38_400, "val": 9_600, "test": 12_000},
            source="https://github.com/twitter-research/meta-learning-lstm, data/miniImagenet",
            licence="ImageNet's terms of access: non-commercial research and education",
            layouts=(
                "mini-imagenet/train.csv, val.csv, test.csv (filename,label), mini-imagenet/images/*.jpg",
                "the same in miniImagenet, mini_imagenet, miniimagenet",
            ),
            views=_PHOTO_VIEWS,
            notes=(
                "labels are WordNet ids; `regrain taxonomies mini_imagenet_2` prints them in words",
                "SCLRE (CVPR 2023) does not publish its list; the rule is WordNet's: 35 classes are animals",
                "the splits are those of few-shot learning, no class of one occurring in another; SCLRE's are not "
                "published",
                _UNSEEN_NOTE,
            ),
            original=superclasses.mini_imagenet,
            grouping="mini_imagenet_2",
        ),
        _voc(2007, {"train": "train", "val": "val", "test": "test"}, {"train": 2501, "val": 2510, "test": 4952}),
        _voc(
            2012,
            {"train": "train", "val": "test"},
            {"train": 5717, "test": 5823},
            "the test split is VOC's val: the labels of its test images are not published",
        ),
        Entry(
            name="fmow",
            description="satellite pictures of 224 x 224 pixels: six regions of the world, 62 kinds of land use",
            modality="image",
            side=224,
            levels={"region": 6, "category": 62},
            samples={"train": 76_863, "val": 19_915, "test": 22_108},
            source="https://wilds.stanford.edu/datasets/#fmow",
            licence="FMoW Challenge Public License",
            layouts=("fmow_v1.1/rgb_metadata.csv, country_code_mapping.csv, images/rgb_img_*.png (WILDS)",),
            views=_PHOTO_VIEWS,
            notes=(
                "superclasses are regions, as in SCLRE (CVPR 2023); they do not nest with the categories",
                "splits are WILDS': train before 2013, val 2013 to 2015, test from 2016; id_val and id_test, before "
                "2013, are read when splits names them",
                "groups are the places photographed",
                _UNSEEN_NOTE,
            ),
            relation="aspects",
            original=superclasses.fmow,
        ),
        Entry(
            name="adience",
            description="faces in eight age groups, unfiltered photographs of Flickr albums",
            modality="image",
            levels={"age": 8},
            samples={"train": 15_554, "test": 3_816},
            source="https://talhassner.github.io/home/projects/Adience/Adience-data.html",
            licence="photographs under Creative Commons licences of their authors; handed out for research, on request",
            layouts=(
                "adience/fold_0_data.txt ... fold_4_data.txt, adience/aligned/USER/landmark_aligned_face.*.jpg",
                "adience/folds/fold_*_data.txt",
                "fold_frontal_*_data.txt in the same places (frontal faces alone)",
            ),
            views=_PHOTO_VIEWS,
            notes=(
                "folds 0 to 3 are for training, fold 4 for testing, a choice of ours: SCLRE's loader is not published",
                "an age or range of ages belongs to the group that it overlaps, else to the nearest; where that leaves "
                "two (3, 35, 8 to 23, 38 to 48), and where there is none, the age is unknown",
                "groups are users, whose albums a fold does not tear; a user may show several people",
                _UNSEEN_NOTE,
            ),
            original=superclasses.adience,
        ),
        Entry(
            name="deepfashion",
            description="photographs of clothes: worn above, below or on all of the body, 50 categories",
            modality="image",
            levels={"type3": 3, "category": 50},
            samples={"train": 209_222, "val": 40_000, "test": 40_000},
            source="https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/AttributePrediction.html",
            licence="non-commercial research alone; handed out on request",
            layouts=(
                "Anno_coarse/list_category_cloth.txt, list_category_img.txt, Eval/list_eval_partition.txt, "
                "Img/img/... (Category and Attribute Prediction Benchmark)",
                "the same in Category and Attribute Prediction Benchmark, deepfashion, DeepFashion; Anno, img",
            ),
            views=_PHOTO_VIEWS,
            notes=(
                "images are whole: the boxes around the clothes are not used",
                "splits are the authors'; categories of which no image is there are no classes",
                _UNSEEN_NOTE,
            ),
            original=originals.deepfashion,
            grouping="deepfashion_50",
        ),
        Entry(
            name="tripadvisor",
            description="hotel reviews rated in six aspects, negative, neutral or positive each",
            modality="text",
            levels=_sentiments(reviews.STAY_ASPECTS),
            samples={"train": 400, "test": 600},
            source="https://github.com/jniimi/tripadvisor_dataset, data1000.pkl",
            licence="Apache-2.0 for the repository; the terms of the Hotel Review set of Li et al. 2013, which the "
            "reviews come from, apply as well",
            layouts=(
                "tripadvisor/train.parquet, tripadvisor/test.parquet",
                "tripadvisor/review.txt (JSON lines of Li et al. 2013, all of them)",
            ),
            notes=(
                "aspects do not nest; 74 to 90 % of the test labels of an aspect are positive",
                "400 and 600 reviews drawn at random of a sample of 1,000",
                _SENTIMENT_NOTE,
                f"review.txt: all reviews, not the sample; {_SUBJECTS_NOTE.format('hotels')}; no copy was at hand",
            ),
            relation="aspects",
            original=reviews.tripadvisor,
            folder="tripadvisor",
            roles={"text": "text", "relation": "aspects"},
        ),
        Entry(
            name="tripadvisor-lara",
            description="hotel reviews rated in six aspects, as MLCL has them; negative, neutral or positive each",
            modality="text",
            levels=_sentiments(reviews.HOTEL_ASPECTS),
            samples={"train": 196_000, "test": 39_000},
            source="http://times.cs.uiuc.edu/~wang296/Data, LARA, TripAdvisor (Wang et al. 2010)",
            licence="none stated; handed out for research",
            layouts=(
                "Review_Texts/hotel_*.dat (lines such as <Content>..., <Rooms>4)",
                "TripAdvisorJson/json/*.json (Reviews with Content and Ratings)",
                "the same in TripAdvisor, tripadvisor",
            ),
            notes=(
                "aspects do not nest; those that only one version of the files has (check in, business service, sleep "
                "quality) are not read: MLCL counts seven aspects and names these six",
                _SENTIMENT_NOTE,
                f"{_SUBJECTS_NOTE.format('hotels')}; MLCL's 10,000 and 2,000 reviews are not published",
                "the numbers of samples are estimates, five and one sixth of a total that was not looked up again",
                _UNSEEN_NOTE,
            ),
            relation="aspects",
            original=reviews.tripadvisor_lara,
        ),
        Entry(
            name="beeradvocate",
            description="beer reviews rated in five aspects, negative, neutral or positive each",
            modality="text",
            levels=_sentiments(reviews.BEER_ASPECTS),
            samples={"train": 1_322_000, "test": 264_000},
            source="https://snap.stanford.edu/data/web-BeerAdvocate.html (McAuley et al. 2012)",
            licence="none stated; SNAP no longer hands it out, as BeerAdvocate asked",
            layouts=(
                "beeradvocate.txt (lines such as review/taste: 4.5, SNAP)",
                "beeradvocate.json (an object in each line)",
                "the same with .gz, and in beeradvocate, BeerAdvocate",
            ),
            notes=(
                "aspects do not nest",
                f"{_SENTIMENT_NOTE}; MLCL tells whole stars alone: what half of one becomes is our choice",
                f"{_SUBJECTS_NOTE.format('beers')}; MLCL's 10,000 and 2,000 reviews are not published",
                "all reviews are read and kept in memory, some GB",
                "the numbers of samples are estimates, five and one sixth of the published total of 1,586,614",
                _UNSEEN_NOTE,
            ),
            relation="aspects",
            original=reviews.beeradvocate,
        ),
        Entry(
            name="hapt",
            description="smartphone motion of 30 subjects, 2.56 s at 50 Hz in six channels; activities, transitions",
            modality="series",
            levels={"coarse": 3, "fine": 12},
            samples={"train": 7795, "test": 3174},
            source="https://github.com/anas337/Human-Activity-Recognition-Using-Smartphones.github.io, "
            "Data/Original-Data/HAPT-Dataset/Raw-Data (Reyes-Ortiz et al. 2015)",
            licence="none in the repository; the data set's own words: as-is, any commercial use is prohibited",
            layouts=(
                "hapt/train.parquet, hapt/test.parquet (windows of 128 x 6)",
                "RawData/acc_exp*_user*.txt, gyro_exp*_user*.txt, labels.txt (UCI)",
                "the same in HAPT Data Set/RawData, hapt/RawData, hapt",
            ),
            views=_SERIES_VIEWS,
            notes=(
                "split by subject, as its authors did: 21 in train, 9 in test; groups are subjects, in time order",
                "windows lie 64 steps apart within a labelled segment; a shorter segment gives one, centred on it, "
                "that reaches beyond it; what has no label is left out",
                "neighbouring windows share half their samples; transitions are 5 % of the windows",
            ),
            original=hapt,
            folder="hapt",
            roles={"columns": ["series"], "series_shape": (128, 6), "group": "subject"},
        ),
        Entry(
            name="dialysis",
            description="SYNTHETIC dialysis-like records of 5 sessions x 40 features, 28 static ones; events ahead",
            modality="series",
            levels={"event": 2, "subtype": 4},
            samples={"train": 3200, "test": 3200},
            source="generated (regrain.data.catalog.dialysis_records, seed 0) in the form of the private data of SCGM "
            "(Ni et al. 2022, section 4.3)",
            licence="Apache-2.0, as this package",
            layouts=("generated when it is asked for",),
            views=_SERIES_VIEWS,
            notes=(
                "SYNTHETIC: no patients stand behind it, and its figures do not compare with published ones",
                "some values are missing; groups are subjects, in time order",
                "neighbouring windows share four of five sessions, which recall@K finds: judge by personalised",
            ),
            original=originals.dialysis,
        ),
    ]
    return {entry.name: entry for entry in entries}


def entries() -> dict[str, Entry]:
    """The catalogue, by name.

    Examples
    --------
    >>> entries()["cifar100"].levels
    {'superclass': 20, 'label': 100}
    """
    return dict(_entries())
