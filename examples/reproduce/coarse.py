"""Coarse classes where the data's own files do not tell them."""

import re

CIFARTOY = {
    "cifartoy-good": (("airplane", "automobile", "ship", "truck"), ("horse", "dog", "bird", "cat")),
    "cifartoy-bad": (("airplane", "automobile", "bird", "cat"), ("horse", "dog", "ship", "truck")),
}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# The superclasses of CIFAR-100 in the order of its own coarse labels, for copies that are plain image folders.
CIFAR100 = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}

BODIES = ("cab", "sedan", "suv", "convertible", "coupe", "hatchback", "wagon", "van")
# Cars whose name tells no body type; the body is that of the paper's published labels.
NAMELESS = {
    "acura tl type-s": "sedan",
    "acura integra type r": "coupe",
    "buick regal gs": "sedan",
    "chevrolet corvette zr1": "convertible",
    "chevrolet corvette ron fellows edition z06": "convertible",
    "chevrolet hhr ss": "suv",
    "chevrolet cobalt ss": "coupe",
    "chevrolet trailblazer ss": "suv",
    "chrysler 300 srt-8": "sedan",
    "dodge challenger srt8": "coupe",
    "dodge charger srt-8": "sedan",
    "fiat 500 abarth": "hatchback",
    "jaguar xk xkr": "convertible",
    "lamborghini gallardo lp 570-4 superleggera": "coupe",
}


def cifartoy(dataset: str, fine: str) -> int:
    """0 or 1, or -1 for the two classes of CIFAR-10 that CIFARtoy leaves out."""
    return next((number for number, names in enumerate(CIFARTOY[dataset]) if fine in names), -1)


def cifar100(fine: str) -> int:
    """The superclass, 0 to 19; -1 for a name that is not of CIFAR-100."""
    return next((number for number, names in enumerate(CIFAR100.values()) if fine in names.split()), -1)


def car(name: str) -> int:
    """The body type, 0 to 7: the last word of the name that is one. A drophead coupe convertible is a convertible."""
    plain = re.sub(r"\s+(19|20)\d\d$", "", name.strip().lower().replace("_", " "))
    words = re.findall(rf"({'|'.join(BODIES)})\b", plain)
    body = NAMELESS.get(plain) or (words[-1] if words else None)
    return -1 if body is None else BODIES.index(body)
