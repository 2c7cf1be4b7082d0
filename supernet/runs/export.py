"""The job that writes the trained network in every form, each compared with the original."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supernet.mixture import Architecture
from supernet.runs.job import Job
from supernet.runs.training import Train, trained_network

if TYPE_CHECKING:
    from supernet.runs.work import Work


@dataclass(frozen=True)
class Export(Job):
    """Exports the derived network that was trained with the first seed.

    It does not export the best seed, because that would choose by the test images.
    """

    architecture: Architecture

    name = "export"

    def network(self, work: "Work") -> Train:
        """The job that trained the network."""
        return Train("retrain", 0, self.architecture, work.setup.init)

    def needs(self, work: "Work") -> list[Train]:
        return [self.network(work)]

    def inputs(self, work: "Work") -> dict[str, Any]:
        return {"network": self.network(work)}

    def compute(self, work: "Work") -> dict[str, Any]:
        from supernet.export import export_network  # onnxruntime takes seconds to import

        data, folder = work.setup.data, work.folder / "export"
        network = trained_network(work, self.network(work)).to("cpu")
        metadata: dict[str, Any] = {
            "mean": data.mean.tolist(),
            "std": data.std.tolist(),
            "data": work.config.data.name,
            "class_names": list(data.class_names),
        }
        if data.source_size is not None:
            # A user of the network must first reduce images to the same size.
            metadata["averaged_down_from"] = list(data.source_size)
        with work.progress.stage(self.name, 1) as update:
            export_network(
                network,
                self.architecture,
                work.space,
                task=work.setup.task,
                folder=folder,
                metadata=metadata,
            )
            update(1, {})
        return {"folder": "export"}
