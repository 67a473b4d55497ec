"""Description of an installation: a bill of materials in the format of CycloneDX, and a licence report."""

import json

from release.steps import ReleaseError, call

UNKNOWN = 'UNKNOWN'
STATED = {
    'cuda-toolkit': 'none stated. It has no files and requires libraries of NVIDIA, which state their licences',
}
"""Package -> what is known of its licence, for packages whose metadata state none."""


def bill(tools, environment, target):
    """Writes the bill of materials of an environment and returns the number of its components."""
    program = [tools / 'bin' / 'cyclonedx-py', 'environment', environment / 'bin' / 'python']
    call(*program, '--of', 'JSON', '--output-reproducible', '--validate', '-o', target)
    found = json.loads(target.read_text(encoding='utf-8'))['components']
    names = {component['name'].lower().replace('_', '-') for component in found}
    if not {'rass-mm', 'torch', 'diffusers'} <= names:
        raise ReleaseError(f'{target.name} lacks packages of the environment. It has {len(names)} components.')
    return len(found)


def licence_report(tools, environment, target):
    """Writes a table of the packages of an environment with their licences. Returns their number.

    Raises:
        ReleaseError: a package states no licence.
    """
    program = [tools / 'bin' / 'pip-licenses', '--python', environment / 'bin' / 'python', '--with-urls']
    rows = json.loads(call(*program, '--format', 'json', '--with-system'))
    faults = undeclared(rows)
    if faults:
        raise ReleaseError('\n'.join(faults))
    call(*program, '--format', 'markdown', '--output-file', target)
    notes = [f'\n{name}: {licence}.\n' for name, licence in STATED.items() if any(row['Name'] == name for row in rows)]
    with target.open('a', encoding='utf-8') as stream:
        stream.writelines(notes)
    return len(rows)


def undeclared(rows):
    """Returns a fault for each package of a licence report that states no licence."""
    return [
        f'{row["Name"]} {row["Version"]} states no licence. Look it up and add it to release.reports.STATED.'
        for row in rows
        if UNKNOWN in row['License'].upper() and row['Name'] not in STATED
    ]
