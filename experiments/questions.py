"""Questions that the experiments answer, and their answers on a data set."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.results import Comparison, Row, compare, miou
from experiments.systems import systems_of


class Question(NamedTuple):
    """Question that is answered by the difference in mIoU of two systems on a split."""

    text: str
    better: str
    worse: str
    split: str = 'degraded'


QUESTIONS = (
    Question('RASS > base without SCR', 'rass', 'base'),
    Question('base without SCR > FT', 'base', 'ft'),
    Question('RASS > FT', 'rass', 'ft'),
    Question('base without SCR > R2S', 'base', 'r2s'),
    Question('FT > DT', 'ft', 'dt'),
    Question('R2S > DT', 'r2s', 'dt'),
    Question('R2S > FT', 'r2s', 'ft'),
    Question('RASS > R2S', 'rass', 'r2s'),
    Question('lambda 0.1 > lambda 0 (RASS)', 'rass', 'rass_l0'),
    Question('trained base, LoRA > random UNet, all trained', 'base', 'random'),
    Question('class tokens > empty prompts', 'rass', 'rass_empty'),
    Question("with > without the encoder's features", 'rass', 'rass_noshortcut'),
    Question('LoRA > all of the UNet trained, same rate', 'rass', 'rass_full'),
    Question('LoRA > all of the UNet trained at 3e-4', 'rass', 'rass_full_slow'),
    Question('ground-truth tags > class tokens', 'rass_tags', 'rass'),
    Question('RASS > RASS trained clean', 'rass', 'rass_clean'),
    Question('RASS trained clean > RASS, on clean images', 'rass_clean', 'rass', 'clean'),
    Question('RASS > base without SCR, 3600 steps', 'rass_long', 'base_long'),
    Question('base without SCR > FT, 3600 steps', 'base_long', 'ft_long'),
    Question('RASS > FT, 3600 steps', 'rass_long', 'ft_long'),
    Question('base without SCR > R2S, 3600 steps', 'base_long', 'r2s_long'),
    Question('FT > DT, 3600 steps', 'ft_long', 'dt_long'),
    Question('R2S > DT, 3600 steps', 'r2s_long', 'dt_long'),
    Question('R2S > FT, 3600 steps', 'r2s_long', 'ft_long'),
    Question('RASS > R2S, 3600 steps', 'rass_long', 'r2s_long'),
    Question('RASS > base without SCR, 10800 steps', 'rass_longer', 'base_longer'),
    Question('base without SCR > FT, 10800 steps', 'base_longer', 'ft_longer'),
    Question('FT > DT, crops of 128x128', 'ft_crop', 'dt_crop'),
    Question('FT > DT, group norm', 'ft_gn', 'dt_gn'),
    Question('base without SCR > FT with group norm', 'base', 'ft_gn'),
    Question('FT > DT, photometric distortion', 'ft_photo', 'dt_photo'),
    Question('base without SCR > FT, photometric distortion', 'base_photo', 'ft_photo'),
    Question('RASS > base without SCR, photometric distortion', 'rass_photo', 'base_photo'),
    Question('lambda 1 > lambda 0 (RASS)', 'rass_l1', 'rass_l0'),
    Question('lambda 1 > lambda 0.1 (RASS)', 'rass_l1', 'rass'),
    Question("RASS > base without SCR, longer by SCR's cost", 'rass', 'base_equal'),
    Question("RASS > base without SCR, both without the encoder's features", 'rass_noshortcut', 'base_noshortcut'),
    Question('RASS > base without SCR, base of 300 steps', 'rass_short', 'base_short'),
    Question('RASS > base without SCR, timestep 200', 'rass_t200', 'base_t200'),
    Question('timestep 1 > timestep 200 (RASS)', 'rass', 'rass_t200'),
    Question('RASS > base without SCR, 2000 labelled images', 'rass_more', 'base_more'),
    Question('base without SCR > FT, 2000 labelled images', 'base_more', 'ft_more'),
    Question('base of its own domain > base of scenes', 'base', 'base_scenes'),
    Question('base from scenes > base of CamVid only', 'base', 'base_alone'),
)


def questions_of(setting: str) -> list[Question]:
    """Returns the questions whose two systems are planned on a data set."""
    planned = {system.name for system in systems_of(setting)}
    return [question for question in QUESTIONS if {question.better, question.worse} <= planned]


def answers(rows: Sequence[Row]) -> dict[Question, Comparison]:
    """Returns the answer to every question whose two systems have records with the same seed."""
    known = {row.system.name: row for row in rows}
    found = {
        question: compare(known[question.better], known[question.worse], miou(question.split))
        for question in QUESTIONS
        if question.better in known and question.worse in known
    }
    return {question: comparison for question, comparison in found.items() if comparison.seeds}
