"""Stand-ins for packages that the scripts import and that no tensor of theirs depends on.

torchvision and timm get the few real functions that an evaluation uses; of the others every
attribute is a thing that can be called, subclassed, iterated and used as a decorator.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types


class Anything:
    """A thing that goes through every import and definition."""

    def __call__(self, *args, **kwargs):
        """Return what is decorated, or a thing again."""
        is_decorated = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if is_decorated else Anything()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __iter__(self):
        return iter(())

    def __getitem__(self, key):
        return Anything()

    def __mro_entries__(self, bases):
        return (object,)

    def __or__(self, other):
        return self


class Stub(types.ModuleType):
    """A module that has every name."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        return importlib.import_module(full) if full in REAL else Anything()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the named packages and everything below them."""

    def __init__(self, names):
        """Take the top-level names."""
        self.names = set(names)

    def find_spec(self, fullname, path=None, target=None):
        """Find a module of a stubbed package."""
        if fullname.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        """Make the module, with its real functions if it has any."""
        module = Stub(spec.name)
        vars(module).update(REAL.get(spec.name, dict)())
        return module

    def exec_module(self, module):
        """Do nothing: the module is complete."""


class Compose:
    """torchvision's."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """torchvision's, for a size (height, width) or a square's side."""

    def __init__(self, size, interpolation=None):
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def __call__(self, image):
        return image.resize(self.size[::-1])


class ToTensor:
    """torchvision's: a picture becomes (C, H, W) float32 from 0 to 1."""

    def __call__(self, image):
        import numpy
        import torch

        pixels = numpy.array(image, dtype="float32") / 255
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Normalize:
    """torchvision's."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, image):
        import torch

        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        return (image - mean) / std


def _transforms():
    return {"Compose": Compose, "Resize": Resize, "ToTensor": ToTensor, "Normalize": Normalize}


def _layers():
    import torch

    return {
        "drop_path": lambda x, *args, **kwargs: x,
        "to_2tuple": lambda x: x if isinstance(x, tuple) else (x, x),
        "trunc_normal_": torch.nn.init.trunc_normal_,
    }


REAL = {"torchvision.transforms": _transforms, "timm.models.layers": _layers}


def install(names):
    """Stub packages, also those that are installed."""
    sys.meta_path.insert(0, Finder(names))
