"""The tests of this folder take every station that is here."""

import pytest

from support.stations import STATIONS, Station, station_or_skip


@pytest.fixture(scope="module", params=STATIONS)
def station(request: pytest.FixtureRequest) -> Station:
    return station_or_skip(request.param)
