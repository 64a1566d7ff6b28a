"""Every exception that geoflow raises, and the ones that job types raise to it."""

from __future__ import annotations


class _Told(Exception):
    """What happened, and then what to do: *python* ends its text, *typed* says the same for a terminal."""

    what = in_terminal = ""

    def __init__(self, *args: object, python: str = "", typed: str = "") -> None:
        if python or typed:
            self.what = str(args[0])
            self.in_terminal = f"{self.what} {typed}"
            args = (f"{self.what} {python}",)
        super().__init__(*args)

    def as_warning(self) -> GeoflowWarning:
        warning = GeoflowWarning(*self.args)
        warning.what, warning.in_terminal = self.what, self.in_terminal
        return warning


class GeoflowError(_Told):
    """The root of all of geoflow's exceptions."""


class GeoflowWarning(_Told, UserWarning):
    """What geoflow warns of."""


# What handlers raise. The names are production's; `geoflow.core.retry` decides by name what each one means.


class ContractViolationError(GeoflowError, TypeError):
    """User code broke the contract between a job type and the engine. Never retried."""

    def __init__(self, *args: object, code: str = "") -> None:
        super().__init__(*args)
        self.code = code  # that of the catalogue of `gf.check`, where it has one


class BusinessLogicError(GeoflowError):
    """The work itself went wrong. Retried."""


class TaskExecutionError(BusinessLogicError):
    """A task could not do its work. Retried."""


class ResourceNotFoundError(BusinessLogicError):
    """Something that the task needs does not exist. Permanent: not retried."""


class ServiceBusError(BusinessLogicError):
    """A message could not be sent or received. Transient: retried."""


class DatabaseError(BusinessLogicError):
    """A database could not be reached or refused. Transient: retried."""


# What geoflow raises to its users.


class DefinitionError(GeoflowError, ValueError):
    """A job type or a handler cannot be used as it is written; the message lists every problem."""


class ParameterError(GeoflowError, ValueError):
    """The parameters of a submission were rejected; nothing was stored."""


class UnstorableValue(GeoflowError, TypeError):
    """A value has no JSON form; the message names the key and says what to do instead."""


class BundleError(GeoflowError, ValueError):
    """A bundle cannot be read, is not what a bundle should be, or cannot be run here."""


class SavedFileLost(GeoflowError, ValueError):
    """The file that a reference of `gf.save` leads to is gone, or is not what was saved."""


class TableError(GeoflowError, ValueError):
    """A stage's tasks do not make the table that was asked for; the message names the column, or the task."""


class JobNotFound(GeoflowError, LookupError):
    """No job, or more than one, goes by this id or beginning of an id."""


class JobExists(GeoflowError):
    """The job was submitted before, and ``on_existing="raise"`` was asked for."""


class JobFailed(GeoflowError):
    """The job ended without a result. ``job_id`` and ``status`` say which and how."""

    def __init__(
        self, message: str, *, job_id: str = "", status: str = "failed", python: str = "", typed: str = ""
    ) -> None:
        super().__init__(message, python=python, typed=typed)
        self.job_id = job_id
        self.status = status


class JobIdCollision(GeoflowError):
    """One job id for two different jobs: the id leaves out something that tells them apart."""


class IllegalTransition(GeoflowError):
    """A change of state that the tables of `geoflow.core.transitions` do not have."""


class StoreError(GeoflowError):
    """The store cannot be opened, read or written; the message names the file and what is safe."""


class StoreBusy(StoreError):
    """Another process drives this job, or holds this store."""


class ResultRemoved(StoreError):
    """A result that a plan was to take over was removed from the store meanwhile; the plan is made anew."""


class TooLarge(StoreError):
    """What a job is given, or gives, is more than can be held at once; that ends the job, which says what to do."""


class SchemaTooNew(StoreError):
    """The store was written by a newer geoflow. It was not touched."""


class LeaseLost(StoreError):
    """Another session took the job over; this one must not write to it again."""


class DriverFailed(GeoflowError):
    """What drives a job failed, through no fault of the job's; the message says how, and what to do."""
