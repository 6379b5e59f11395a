"""Scores chunks on a Ray cluster: the same engine, batcher and chunks as on one machine, and so the same file.

    driver's node: file ──a row of Ray Data for each chunk──▶ workers, one bundle each ──▶ parts ──▶ driver

The file is read where the command runs, as far ahead as Ray's object store has room. Only text and logits travel, and
the bundle, once to each worker. Every node needs the same installation; none needs the file.
"""

import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

from compression.bundle import Bundle, extra, open_bundle, texts_of
from service.errors import ScoringError
from service.scoring.local import Compute, ScoredChunk, Scorer
from service.scoring.parts import Part
from service.scoring.source import Source

Row = dict[str, Any]
_ANSWERS_WITHIN_S = 10


class _Worker:
    """One process of the cluster, with the bundle in a directory of its own."""

    def __init__(self, files: dict[str, bytes], compute: Compute) -> None:
        import ray

        self._node = ray.get_runtime_context().get_node_id()
        self._folder = tempfile.TemporaryDirectory(prefix="lathe-")
        for name, content in files.items():
            (Path(self._folder.name) / name).write_bytes(content)
        self._scorer = Scorer(open_bundle(Path(self._folder.name)), compute).__enter__()

    def __call__(self, row: Row) -> Row:
        inputs = [
            None if texts is None else texts[0] if len(texts) == 1 else (texts[0], texts[1]) for texts in row["inputs"]
        ]
        part = self._scorer.score(self._scorer.encode(inputs))
        return {"number": row["number"], "read": row["read"], "part": part.to_bytes(), "node": self._node}


def score_on_ray(address: str) -> Callable[[Bundle, Compute, Source, Set[int]], Iterator[ScoredChunk]]:
    """A scorer for `score`, on the cluster at that address (HOST:PORT of its head, or `auto`)."""

    def scorer(bundle: Bundle, compute: Compute, source: Source, done: Set[int]) -> Iterator[ScoredChunk]:
        ray = _connect(address)
        try:
            yield from _score(ray, bundle, compute, source, done)
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise ScoringError(
                f"{address}: Ray could not go on: {reason}; mend that and run the same command again to go on"
            ) from error
        finally:
            ray.shutdown()

    return scorer


def _score(ray: Any, bundle: Bundle, compute: Compute, source: Source, done: Set[int]) -> Iterator[ScoredChunk]:
    from ray.data import DataContext, read_datasource
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = DataContext.get_current()
    context.target_max_block_size = 1  # a chunk is a block: it is computed and kept as soon as it is read
    context.enable_progress_bars = False  # there is one already
    files = {path.name: path.read_bytes() for path in bundle.path.iterdir() if path.is_file()}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    chunks = read_datasource(_source(source, done), ray_remote_args={"scheduling_strategy": here, "num_cpus": 0})
    workers = _workers(ray, compute)
    parts = chunks.map(
        _Worker,
        fn_constructor_args=(files, compute),
        concurrency=workers,
        num_cpus=compute.streams,
        num_gpus=len(compute.device.gpus),  # Ray hides every other
    )
    nodes: set[str] = set()
    for row in parts.iter_rows():
        nodes.add(row["node"])
        yield ScoredChunk(int(row["number"]), Part.from_bytes(row["part"]), float(row["read"]))
    print(f"computed by {workers} workers on {len(nodes)} nodes", file=sys.stderr)


def _source(source: Source, done: Set[int]) -> Any:
    """The chunks that are not done, as a source of one task; made here because its base class is Ray's."""
    import pyarrow
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    schema = pyarrow.schema(
        {
            "number": pyarrow.int64(),
            "read": pyarrow.float64(),
            "inputs": pyarrow.list_(pyarrow.list_(pyarrow.string())),  # of a row one text, two, or None
        }
    )

    def read() -> Iterator[Any]:
        for number, chunk in enumerate(source.chunks()):
            if number not in done:
                inputs = [None if given is None else texts_of(given) for given in source.inputs(chunk)]
                row = {"number": number, "read": chunk.read, "inputs": inputs}
                yield pyarrow.Table.from_pylist([row], schema)

    class Chunks(Datasource):  # type: ignore[misc]  # Ray is not followed by the type checker
        def estimate_inmemory_data_size(self) -> int:
            return source.table.path.stat().st_size

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            return [ReadTask(read, BlockMetadata(None, None, None, None))]

    return Chunks()


def _workers(ray: Any, compute: Compute) -> int:
    """How many workers of that many streams and GPUs the cluster has room for.

    Raises:
        ScoringError: not for one.
    """
    needs = {"CPU": compute.streams, "GPU": len(compute.device.gpus)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = sum(min(int(node.get(name, 0)) // count for name, count in needs.items() if count) for node in nodes)
    if not workers:
        has = ", ".join(f"{int(node.get('CPU', 0))} cores and {int(node.get('GPU', 0))} GPUs" for node in nodes)
        raise ScoringError(
            f"no node of the cluster has the {needs['CPU']} cores and {needs['GPU']} GPUs that a worker of so many "
            f"streams on {compute.device} needs; its nodes have {has or 'none'}: say so with --streams and --device"
        )
    return workers


def _connect(address: str) -> Any:
    with extra("ray", "--ray, on every node,"):
        import ray
        import ray.data
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _ANSWERS_WITHIN_S).close()  # Ray itself tries for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ScoringError(
            f"{address}: no Ray cluster there: {str(error).splitlines()[0]}; start one with ray start --head"
        ) from error
    return ray
