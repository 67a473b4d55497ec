"""Questions that the experiments answer, and their answers on a data set."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.results import FAMILIES, GROUPS, Comparison, Row, compare_miou
from experiments.statistics import corrected
from experiments.system import FEW
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


SECOND_QUESTIONS = (
    Question('RASS > base without SCR', 'rass', 'base'),
    Question('base without SCR > FT', 'base', 'ft'),
    Question('RASS > FT', 'rass', 'ft'),
    Question('FT > DT', 'ft', 'dt'),
    Question('R2S > DT', 'r2s', 'dt'),
    Question('R2S > FT', 'r2s', 'ft'),
    Question('RASS > R2S', 'rass', 'r2s'),
    Question('base without SCR > R2S', 'base', 'r2s'),
    Question('RASS > base without SCR, equal cost', 'rass', 'base_equal'),
    Question('RASS > FT, equal cost without the base', 'rass', 'ft_equal'),
    Question('base without SCR > FT, equal cost without the base', 'base_equal', 'ft_equal'),
    Question('FT > DT, pretrained trunk', 'lite_ft', 'lite_dt'),
    Question('R2S > DT, pretrained trunk', 'lite_r2s', 'lite_dt'),
    Question('FT with > without pretrained trunk', 'lite_ft', 'ft'),
    Question('base without SCR > FT with pretrained trunk', 'base', 'lite_ft'),
    Question('RASS > FT with pretrained trunk', 'rass', 'lite_ft'),
    Question('RASS > R2S with pretrained trunk', 'rass', 'lite_r2s'),
    *(
        Question(f'{text}, {count} labelled images', f'{better}_{count}', f'{worse}_{count}')
        for count in FEW
        for text, better, worse in (
            ('RASS > base without SCR', 'rass', 'base'),
            ('base without SCR > FT', 'base', 'ft'),
            ('RASS > FT', 'rass', 'ft'),
        )
    ),
    Question('RASS > base without SCR, base of another seed', 'rass_b1', 'base_b1'),
    Question('base without SCR > FT, base of another seed', 'base_b1', 'ft'),
    Question('RASS > FT, base of another seed', 'rass_b1', 'ft'),
    Question('base without SCR: base of seed 0 > of another seed', 'base', 'base_b1'),
    Question('RASS: base of seed 0 > of another seed', 'rass', 'rass_b1'),
    Question('FT started from DT > FT', 'ft_from_dt', 'ft'),
    Question('RASS > FT started from DT', 'rass', 'ft_from_dt'),
    Question('FT > DT, group norm', 'ft_gn', 'dt_gn'),
    Question('FT with group norm > with batch norm', 'ft_gn', 'ft'),
    Question('RASS > FT with group norm', 'rass', 'ft_gn'),
    *(
        Question(f'{text}{where}', better, worse, split)
        for split, where in (('degraded', ''), ('clean', ', on clean images'))
        for text, better, worse in (
            ('RASS with > without twins', 'rass_twins', 'rass'),
            ('FT with > without twins', 'ft_twins', 'ft'),
            ('RASS, all severities > the hardest', 'rass_mid', 'rass'),
        )
    ),
    *(Question(f'RASS > base without SCR, timestep {time}', f'rass_t{time}', f'base_t{time}') for time in (200, 273)),
    *(
        Question(f'timestep {time} > timestep 1 ({title})', f'{name}_t{time}', name)
        for time in (200, 273)
        for title, name in (('RASS', 'rass'), ('base without SCR', 'base'))
    ),
)
"""Questions of the data sets with pixel counts."""


def questions_of(group: str) -> list[Question]:
    """Returns the questions whose two systems are planned on a data set, given by its name in `GROUPS`."""
    planned = {system.name for system in systems_of(GROUPS[group][0])}
    asked = QUESTIONS if group in FAMILIES['first'] else SECOND_QUESTIONS
    return [question for question in asked if {question.better, question.worse} <= planned]


def answers(group: str, rows: Sequence[Row]) -> dict[Question, Comparison]:
    """Returns the answer to every question whose two systems have records with the same seed."""
    known = {row.system.name: row for row in rows}
    found = {
        question: compare_miou(known[question.better], known[question.worse], question.split)
        for question in questions_of(group)
        if question.better in known and question.worse in known
    }
    return {question: comparison for question, comparison in found.items() if comparison.seeds}


class Answer(NamedTuple):
    """Answer to a question on a data set, with the p-value after the correction for its family."""

    question: Question
    comparison: Comparison
    corrected: float | None

    @property
    def verdict(self) -> str:
        """'yes', 'no, reversed' or 'unclear', with a reason if the question is not in the family."""
        return self.comparison.verdict(self.corrected)


Groups = Mapping[str, Sequence[Row]]
"""Rows by data set."""
Answers = Mapping[str, Sequence[Answer]]
"""Answers by data set."""


def all_answers(groups: Groups) -> dict[str, list[Answer]]:
    """Returns the answers to all questions by data set, with the p-values corrected within each of `FAMILIES`.

    A family consists of the answers with complete seeds, and is corrected by Benjamini and Hochberg's method.
    """
    answered: dict[str, list[Answer]] = {}
    for family in FAMILIES.values():
        found = [(name, *answer) for name in family for answer in answers(name, groups.get(name, ())).items()]
        adjusted = iter(corrected([comparison.p_value for _, _, comparison in found if comparison.whole]))
        for name, question, comparison in found:
            answer = Answer(question, comparison, next(adjusted) if comparison.whole else None)
            answered.setdefault(name, []).append(answer)
    return answered
