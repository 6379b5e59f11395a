"""`lathe score`: a file of rows, scored by one bundle. Constant memory; a run that was stopped goes on.

    IN ──chunks──▶ texts ──engine and batcher, here or on Ray──▶ parts ──and IN again──▶ OUT

    OUT.progress/plan.json    what is scored and how: a run with another plan does not go on from here
    OUT.progress/000007.npz   logits of the eighth chunk, whole or not there
    OUT                       is there when it is complete, and not before

Each chunk is one request in an otherwise empty queue, longest texts first. Which texts are computed together then
depends on nothing but the chunk: however often a run is stopped, with however many streams and on however many
machines, it writes the same file.
"""

from service.scoring.local import Compute, score_here
from service.scoring.on_ray import score_on_ray
from service.scoring.run import Options, Summary, score

__all__ = ["Compute", "Options", "Summary", "score", "score_here", "score_on_ray"]
