"""Checks the forms of uploads while they arrive: files only, and not too many of them."""

from rass_mm.app.toolkit import MultipartParseError, MultipartParser, parse_options_header

LARGEST_HEADER = 8192
"""Bytes of the headers of a file."""


class FormError(Exception):
    """Raised if a form is not accepted. The message says why."""


class FormWatch:
    """Parser of a form that keeps no content, with the same library as Gradio.

    Gradio writes files to the disk, but holds the text of all other fields in memory. The page needs no such fields.

    Args:
        content_type: the Content-Type of the request.
        most: largest number of files.

    Raises:
        FormError: the request is not a form.
    """

    def __init__(self, content_type: str, most: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b'multipart/form-data' or not options.get(b'boundary'):
            raise FormError('The upload is not a form with files (multipart/form-data with a boundary).')
        self.most, self.files, self.size, self.ended = most, 0, 0, False
        self.close = b'\r\n--' + options[b'boundary'] + b'--'
        self.last = b''
        self.name, self.value, self.disposition = b'', b'', b''
        callbacks = {
            'on_part_begin': self._begin,
            'on_header_field': self._add_name,
            'on_header_value': self._add_value,
            'on_header_end': self._end_header,
            'on_headers_finished': self._check,
            'on_end': self._end,
        }
        self.parser = MultipartParser(options[b'boundary'], callbacks)

    def feed(self, data: bytes) -> None:
        """Checks the next bytes of a form.

        Raises:
            FormError: the form is damaged, has a field that is not a file, or too many files, or continues after its
                end.
        """
        rest = data
        if not self.ended:
            try:
                self.parser.write(data)
            except MultipartParseError as error:
                raise FormError(f'The form is damaged ({error}).') from error
            rest = (self.last + data).partition(self.close)[2] if self.ended else b''
            self.last = (self.last + data[-len(self.close) :])[-len(self.close) :]
        if rest.strip(b'\r\n'):
            raise FormError('The form continues after its end.')

    def finish(self) -> None:
        """Checks the form after its last byte.

        Raises:
            FormError: the form has no end or no file.
        """
        if not self.ended:
            raise FormError('The form is incomplete.')
        if not self.files:
            raise FormError('The form has no file.')

    def _end(self) -> None:
        self.ended = True

    def _begin(self) -> None:
        self.name, self.value, self.disposition, self.size = b'', b'', b'', 0

    def _grow(self, data: bytes) -> bytes:
        self.size += len(data)
        if self.size > LARGEST_HEADER:
            raise FormError(f'The headers of a file have more than {LARGEST_HEADER} bytes.')
        return data

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self.name += self._grow(data[start:end])

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self.value += self._grow(data[start:end])

    def _end_header(self) -> None:
        if self.name.lower() == b'content-disposition':
            self.disposition = self.value
        self.name, self.value = b'', b''

    def _check(self) -> None:
        _, options = parse_options_header(self.disposition)
        if b'filename' not in options:
            raise FormError('The form has a field that is not a file. Send files only.')
        self.files += 1
        if self.files > self.most:
            raise FormError(f'The form has more than {self.most} files.')
