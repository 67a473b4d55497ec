"""The kit of the campaign, made once for all its tests."""

import pytest
from campaign import server
from campaign.kit import make_kit


@pytest.fixture(scope='session')
def kit(tmp_path_factory):
    server.warm_up()
    return make_kit(tmp_path_factory.mktemp('campaign') / 'kit')
