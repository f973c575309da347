from tests.bench.figures import Figure
from tests.bench.ground import Ground
async def measure(ground: Ground) -> list[Figure]:
    return []
