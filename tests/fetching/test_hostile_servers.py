"""Servers and addresses that answer with nonsense: one sentence, no traceback, nothing written."""

import pytest
from fetch_server import BIG, names, redirected


@pytest.mark.parametrize('target', ['http://[::1/x', 'http://[x]/y', 'http://\x1b[31mx/y'])
def test_a_redirect_to_an_address_that_cannot_be_parsed_is_refused(server, catalog, run, tmp_path, target):
    catalog()
    server.fault = redirected(target)
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'redirects to an address that is not valid' in err and '--mirror or --from' in err
    assert len(server.asked) == 1 and not (tmp_path / 'to').exists()


def test_the_expected_protocol_of_a_redirect_is_named(server, catalog, run, tmp_path):
    catalog()
    server.fault = redirected('ftp://127.0.0.1/x')
    _, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert 'redirects to ftp://127.0.0.1, but http or https:// was expected' in err and 'from HTTPS' not in err


def test_an_answer_cannot_control_the_terminal(server, catalog, run, tmp_path):
    catalog()

    def answer(handler, content):
        handler.wfile.write(b'HTTP/1.1 404 \x1b[31mGone\x1b]0;x\x07\r\nContent-Length: 0\r\n\r\n')
        handler.close()
        return True

    server.fault = answer
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and r'404 \x1b[31mGone\x1b]0;x\x07' in err and '\x1b' not in err and '\x07' not in err


@pytest.mark.parametrize('encoding', ['', 'Identity', ' identity '])
def test_an_answer_that_is_not_compressed_is_accepted(server, catalog, run, tmp_path, encoding):
    catalog()
    server.fault = lambda handler, content: handler.serve(content, Content_Encoding=encoding) is None
    assert run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')[0] == 0
    assert (tmp_path / 'to' / 'unet' / 'weights.safetensors').read_bytes() == BIG


@pytest.mark.parametrize(
    'address',
    [
        *('', 'http://[::1/', f'http://{"a" * 300}/', 'http://127.0.0.1:port/', 'http://127.0.0.1:99999/'),
        *('http://127.0.0.1/#part', 'http://a b/', 'http://127.0.0.1/\n'),
    ],
)
def test_an_address_that_is_not_valid_is_refused_and_not_replaced(catalog, run, tmp_path, address):
    """With an empty address, e.g. of a variable that is not set, the files would come from another source."""
    catalog(address='http://127.0.0.1:1')
    status, _, err = run('tiny', '--mirror', address, '--to', tmp_path / 'to')
    assert status == 1 and 'is not an address of a folder. Expected https://HOST/FOLDER' in err
    assert not (tmp_path / 'to').exists()


def test_a_folder_that_cannot_be_created_is_named(server, catalog, run, tmp_path, monkeypatch):
    """The lock does without a folder, so the message would be that the folder does not exist."""
    catalog()

    def refused(self, *_, **__):
        raise PermissionError(13, 'Permission denied', str(self))

    monkeypatch.setattr('pathlib.Path.mkdir', refused)
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and f'{tmp_path / "to"} cannot be accessed: Permission denied' in err
    assert server.asked == [] and names(tmp_path) == []


def test_a_file_that_is_removed_says_what_to_do(server, catalog, run, tmp_path):
    catalog()
    server.fault = lambda handler, content: handler.serve(bytes(len(content))) is None
    _, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert 'It was removed. Run the command again, or choose another source with --mirror or --from.' in err
