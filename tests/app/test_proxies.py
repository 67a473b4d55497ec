"""Requests of proxies in front of the app, whose headers name its public address."""

import pytest
from app_guarded import API, ask

PROXY = {'proxied': True, 'names': ['photos.org']}
POST = {'method': 'POST', 'body': b'{}', **PROXY}


def forwarded(scope):
    return {name.decode(): value.decode() for name, value in scope['headers'] if name.startswith(b'x-')}


@pytest.mark.parametrize('local', [True, False])
def test_headers_of_proxies_are_dropped_if_there_is_none(local):
    status, _, (scope,) = ask('/', x_forwarded_host='a:b:c', x_gradio_server='http://evil.org', local=local)
    assert status == 200 and not forwarded(scope)


def test_only_the_public_name_and_protocol_are_passed_on():
    given = {'x_forwarded_host': 'photos.org:8443', 'x_forwarded_proto': 'https'}
    unused = {'x_forwarded_for': '10.0.0.1', 'x_forwarded_prefix': '/a', 'x_gradio_server': 'http://evil.org'}
    _, _, (scope,) = ask('/', **given, **unused, **PROXY)
    assert forwarded(scope) == {'x-forwarded-host': 'photos.org:8443', 'x-forwarded-proto': 'https'}


def test_other_public_names_are_refused():
    assert ask('/', x_forwarded_host='a:b:c', **PROXY)[0] == 400
    assert ask('/', x_forwarded_host='evil.org', **PROXY)[0] == 403


def test_headers_of_proxies_are_believed_of_this_machine_only():
    direct = {'local': False, 'host': '10.0.0.7', 'x_forwarded_host': 'photos.org', 'x_forwarded_proto': 'https'}
    for client in (('10.0.0.9', 50_000), ('fe80::1', 50_000), ('name', 50_000), None):
        status, _, (scope,) = ask('/', client=client, **direct, **PROXY)
        assert status == 200 and not forwarded(scope)
    for client in (('127.0.0.1', 50_000), ('::1', 50_000), ('10.0.0.9', 0)):  # the last as uvicorn replaces the first
        assert len(forwarded(ask('/', client=client, **direct, **PROXY)[2][0])) == 2


def test_requests_of_other_origins_are_refused_behind_a_proxy():
    for host in ({'host': 'photos.org'}, {'host': '127.0.0.1:7860', 'x_forwarded_host': 'photos.org'}):
        assert ask(f'{API}/queue/join', origin='https://photos.org', **host, **POST)[0] == 200
        for origin in ('https://evil.org', 'null', 'https://[', 'https://127.0.0.2'):
            assert ask(f'{API}/queue/join', origin=origin, **host, **POST)[0] == 403
