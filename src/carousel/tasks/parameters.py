"""The options of an estimator as scikit-learn's protocol has them: given once, read back as the very same objects."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from carousel.tasks.cell_choice import choose_cell
from carousel.tasks.options import Option, check_names, describe
from carousel.training import TrainingConfig

if TYPE_CHECKING:
    from carousel.graph import Cell

__all__ = ["Parameters"]


class Parameters:
    """What an estimator is made with: the options of two dataclasses, flat.

    A name that is in neither raises, so that no typo is swallowed. Values are checked when they are given, not when
    fitting starts; scikit-learn's ``clone`` and searches over options see the objects that were given, unchanged.
    """

    options_type: ClassVar[type]
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    options: Any
    training: TrainingConfig
    cell: Cell
    _given: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "options_type"):
            return  # a base of tasks, with no options of its own
        parameters = [
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
            for option in cls.option_list()
        ]

        def __init__(self: Any, **options: Any) -> None:  # noqa: N807 - it becomes the class's own
            self._take(options)

        # What help(), completion in editors and scikit-learn read.
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        __init__.__signature__ = inspect.Signature([itself, *parameters])  # type: ignore[attr-defined]
        __init__.__qualname__ = f"{cls.__qualname__}.__init__"
        __init__.__module__ = cls.__module__
        cls.__init__ = __init__  # type: ignore[method-assign]
        cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    def __init__(self, **options: Any) -> None:
        self._take(options)

    @classmethod
    def option_list(cls) -> tuple[Option, ...]:
        """All options of this task with type, default and help."""
        return describe(cls.options_type) + describe(TrainingConfig, group="training", defaults=cls.training_defaults)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - the argument is scikit-learn's protocol
        """All options by name, as given or by default."""
        return dict(self._given)

    def set_params(self, **options: Any) -> Self:
        """Change options; what was fitted is kept until the next fit.

        Raises:
            ConfigError: an unknown option or an impossible value; nothing is changed then.
        """
        fresh = type(self)(**(self._given | options))
        vars(self).update({name: value for name, value in vars(fresh).items() if name in _OURS})
        return self

    def read_with(self, **fields: str | None) -> Self:
        """Choose how data files are read from now on (`format`, `text_field`, ...); None keeps what is set.

        Raises:
            ConfigError: an impossible value.
        """
        chosen = {name: value for name, value in fields.items() if value is not None}
        check_names(list(chosen), [item.name for item in dataclasses.fields(self.options)], where=type(self).__name__)
        self.options = dataclasses.replace(self.options, **chosen)
        self._given |= chosen
        return self

    def __repr__(self) -> str:
        changed = {o.name: self._given[o.name] for o in self.option_list() if not _same(self._given[o.name], o.default)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def _take(self, options: Mapping[str, Any]) -> None:
        known = self.option_list()
        check_names(list(options), [option.name for option in known], where=type(self).__name__)
        self._given = {option.name: option.default for option in known} | dict(options)
        values = {name: _python(value) for name, value in self._given.items()}
        self.options = self.options_type(**{f.name: values[f.name] for f in dataclasses.fields(self.options_type)})
        self.training = TrainingConfig(**{f.name: values[f.name] for f in dataclasses.fields(TrainingConfig)})
        self.cell = choose_cell(self.options.cell, self.options.cell_options)
        self._device = self.training.device

    def _values(self) -> dict[str, Any]:
        """All options by name, as they are used."""
        return {
            item.name: getattr(holder, item.name)
            for holder in (self.options, self.training)
            for item in dataclasses.fields(holder)
        }


_OURS = ("_given", "options", "training", "cell", "_device")


def _python(value: Any) -> Any:
    """A number of NumPy's, as a search over ``np.arange`` gives it, as one of Python's."""
    if isinstance(value, bool | int | float) and type(value).__module__ == "builtins":
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, int) else value


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))
