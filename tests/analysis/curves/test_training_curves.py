"""Curves of runs: joined after kills, damaged last lines, pictures and tables, and the command."""

import csv
import json

import cv2
import pytest

from rass_mm.analysis.curves.runs import read_runs
from rass_mm.analysis.curves.write import _style
from rass_mm.errors import DataError
from rass_mm_cli.main import main


def row(step, **values):
    return json.dumps({'lr': 0.1 / step, 'data_time': 0.1, 'loss': 1 / step, 'iter': step, 'step': step, **values})


def val(step, **values):
    return json.dumps({**values, 'data_time': 0.1, 'time': 0.2, 'step': step})


def write(folder, start, *lines, end='\n'):
    file = folder / start / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(lines) + end)
    return file


@pytest.fixture
def killed(tmp_path):
    """A run that was killed after iteration 50, resumed from 20, killed again, and resumed from 40."""
    folder = tmp_path / 'rass'
    write(folder, '20260101_100000', *(row(step) for step in (10, 20, 30, 40, 50)), val(20, mIoU=30.0))
    write(folder, '20260101_110000', row(30, loss=0.5), val(40, mIoU=33.0), row(40, loss=0.4), row(50, loss=0.1))
    write(folder, '20260101_120000', row(50, loss=0.3), row(60, loss=0.2), val(60, mIoU=35.5))
    (folder / '20260101_130000').mkdir()  # a test, which logs no scalars
    return folder


def test_the_later_start_wins_where_a_run_was_done_again(killed):
    (run,) = read_runs([str(killed)])
    assert run.name == 'rass' and run.notes == [] and len(run.files) == 3
    assert run.curves['loss'] == {10: 0.1, 20: 0.05, 30: 0.5, 40: 0.4, 50: 0.3, 60: 0.2}
    assert run.curves['val/mIoU'] == {20: 30.0, 40: 33.0, 60: 35.5}
    assert set(run.curves) == {'loss', 'lr', 'val/mIoU'}


def test_iterations_that_were_not_reached_again_are_dropped(tmp_path):
    write(tmp_path, '1', *(row(step) for step in (10, 20, 30, 40)), val(30, mIoU=1.0))
    write(tmp_path, '2', row(20, loss=7.0))
    (run,) = read_runs([f'again={tmp_path}'])
    assert run.curves['loss'] == {10: 0.1, 20: 7.0} and 'val/mIoU' not in run.curves


def test_an_incomplete_last_line_is_named_and_left_out(tmp_path, capsys, monkeypatch):
    file = write(tmp_path, '1', row(10), row(20), row(30)[:40], end='')
    (run,) = read_runs([str(tmp_path)])
    assert list(run.curves['loss']) == [10, 20] and str(file) in run.notes[0] and '(3)' in run.notes[0]
    monkeypatch.chdir(tmp_path)
    assert main(['report', '--curves', str(tmp_path)]) == 0
    assert f'{file}: the last line (3) is incomplete' in capsys.readouterr().err
    file.write_text('\n'.join([row(10)[:30], row(20)]))
    assert main(['report', '--curves', str(tmp_path)]) == 1
    assert 'line 1' in capsys.readouterr().err


def test_the_command_writes_a_picture_and_tables(killed, tmp_path, capsys):
    write(tmp_path / 'scr', '1', row(10, loss=float('nan')), row(20, loss_pixel=0.25), val(20, PSNR=25.0))
    out = tmp_path / 'out' / 'all.png'
    assert main(['report', '--curves', str(killed), f'restorer={tmp_path / "scr"}', '--out', str(out)]) == 0
    assert 'rass: up to iteration 60' in capsys.readouterr().out
    picture = cv2.imread(str(out))
    assert picture is not None and picture.shape[1] > 600 and picture.std() > 5
    rows = list(csv.DictReader(out.with_suffix('.csv').open()))
    assert {'run': 'rass', 'curve': 'val/mIoU', 'iteration': '60', 'value': '35.5'} in rows
    content = json.loads(out.with_suffix('.json').read_text(), parse_constant=pytest.fail)
    assert [run['name'] for run in content['runs']] == ['rass', 'restorer']
    assert content['runs'][1]['curves']['loss'] == {'iterations': [10, 20], 'values': [None, 0.05]}


def test_wrong_arguments_are_named(killed, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    for arguments, said in (
        ([tmp_path / 'none'], 'is not a folder'),
        ([tmp_path / 'empty'], 'contains no'),
        ([killed, killed], 'given twice'),
        ([killed, '--out', tmp_path / 'a.md'], 'does not end with .png'),
    ):
        assert main(['report', '--curves', *map(str, arguments)]) == 1, arguments
        assert said in capsys.readouterr().err
    log = killed / '20260101_100000' / 'vis_data' / 'scalars.json'
    before = log.read_bytes()
    assert main(['report', '--curves', str(killed), '--out', str(log.with_suffix('.png'))]) == 1
    assert 'would overwrite the input' in capsys.readouterr().err and log.read_bytes() == before


def test_files_of_other_commands_are_not_replaced(killed, tmp_path, capsys):
    for name, content in (('metrics.json', '{"kind": "test"}'), ('list.json', '[]'), ('notes.csv', 'a,b\n1,2\n')):
        file = tmp_path / name
        file.write_text(content)
        assert main(['report', '--curves', str(killed), '--out', str(file.with_suffix('.png'))]) == 1
        assert f'{file} was not written by this command' in capsys.readouterr().err
        assert file.read_text() == content and not file.with_suffix('.png').exists()
    for _ in range(2):  # its own files are
        assert main(['report', '--curves', str(killed), '--out', str(tmp_path / 'own.png')]) == 0


def test_titles_and_names_are_not_formulas(killed, tmp_path):
    bad = 'a $5_^$ b'
    write(tmp_path / 'other', '1', row(10, **{f'{bad}_loss': 1.0}), row(20))
    arguments = [f'{bad}={tmp_path / "other"}', str(killed), '--title', bad]
    assert main(['report', '--curves', *arguments, '--out', str(tmp_path / 'a.png')]) == 0


def test_more_runs_than_colours_have_different_lines():
    assert len({tuple(_style(number).items()) for number in range(20)}) == 20


@pytest.mark.parametrize('damaged', ['{"step": Infinity}', f'{{"step": 1, "loss": {"9" * 400}}}'])
def test_numbers_that_are_too_large_are_named(tmp_path, damaged):
    file = write(tmp_path, '1', row(10), damaged, row(30))
    with pytest.raises(DataError, match=f'{file}, line 2: .*OverflowError'):
        read_runs([str(tmp_path)])


def test_with_another_logging_interval_no_value_that_was_done_again_is_kept(tmp_path):
    first = [row(step) for step in range(10, 150, 10)]
    write(tmp_path / 'resumed', '1', *first, val(100, mIoU=1.0), val(120, mIoU=2.0))
    write(tmp_path / 'resumed', '2', row(150), row(200), val(200, mIoU=3.0))  # resumed from 100
    write(tmp_path / 'new', '1', *(row(step) for step in (10, 20, 30, 40)))
    write(tmp_path / 'new', '2', row(50), row(100))  # without --resume
    resumed, new = read_runs([str(tmp_path / 'resumed'), str(tmp_path / 'new')])
    assert list(resumed.curves['loss']) == [*range(10, 101, 10), 150, 200]
    assert list(resumed.curves['val/mIoU']) == [100, 200] and list(new.curves['loss']) == [50, 100]


@pytest.mark.parametrize(
    ('last', 'later', 'kept'),
    [
        (125, [row(150), row(200)], [125]),  # resumed from 125, and killed or running
        (125, [row(150), row(200), row(250), val(250, mIoU=2.0)], [125, 250]),
        (125, [val(125, mIoU=2.0), row(150), row(200)], [125]),  # resumed before 125
        (140, [row(150), row(200), row(250), val(250, mIoU=2.0)], [125, 140, 250]),  # 140 was the end, then extended
        (125, [row(150), row(200), row(250), row(300), val(300, mIoU=2.0)], [300]),  # or resumed before 125
    ],
)
def test_validations_between_two_logged_iterations_are_kept(tmp_path, last, later, kept):
    validations = [val(step, mIoU=1.0) for step in sorted({125, last})]
    write(tmp_path, '1', row(50), row(100), *validations)
    write(tmp_path, '2', *later)
    (run,) = read_runs([str(tmp_path)])
    assert list(run.curves['val/mIoU']) == kept and list(run.curves['loss'])[:4] == [50, 100, 150, 200]
    again = {json.loads(line)['step'] for line in later if 'mIoU' in line}
    assert all(value == (2.0 if step in again else 1.0) for step, value in run.curves['val/mIoU'].items())


def test_runs_of_folders_with_one_name_are_told_apart(tmp_path):
    for place in ('a', 'b'):
        write(tmp_path / place / 'rass', '1', row(10))
    paths = [str(tmp_path / place / 'rass') for place in ('a', 'b')]
    assert [run.name for run in read_runs(paths)] == paths
    with pytest.raises(DataError, match='given twice'):
        read_runs([f'x={paths[0]}', f'x={paths[1]}'])
