"""The tests of this folder take every station that is here: they skip those that are not, with the reason."""

import pytest

from support.stations import STATIONS, Station, missing_for_engines


@pytest.fixture(scope="module", params=STATIONS)
def station(request: pytest.FixtureRequest) -> Station:
    if request.param == "engine" and (missing := missing_for_engines()):
        pytest.skip(missing)
    return STATIONS[request.param]
