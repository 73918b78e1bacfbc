"""A commit checked by hand, with hashlib and protobuf's own rules: what docs/ledger.md says is enough."""
import hashlib
import pathlib

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / 'vectors/records/v1'


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7f) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """The fields of a message: numbers for varints, bytes for all else."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        found.append((key >> 3, value))
    return found


def root(leaves):
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b'\0' + leaves[0]).digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b'\1' + root(leaves[:half]) + root(leaves[half:])).digest()


def read(commit):
    packed = fields(commit)
    headers = [value for tag, value in packed if tag == 1]
    assert len(headers) == 1
    return dict(fields(headers[0])), [value for tag, value in packed if tag == 2], hashlib.sha256(headers[0]).hexdigest()


def sample(name):
    return bytes.fromhex((SAMPLES / name).read_text())


def test_a_commit_names_its_records_its_writer_and_the_header_before():
    header, records, digest = read(sample('commit.hex'))
    assert header[1] == 1 and (header[2], header[3]) == (3, 7)
    assert header[4] == 1_700_000_000_123 and header[5] == b'\x5e' * 32
    assert header[7] == len(records) == 3 and header[6] == root(records)
    assert records[1] == sample('11-task-opened.hex')
    assert len(digest) == 64


def test_a_changed_dropped_or_moved_record_changes_the_root():
    header, records, _ = read(sample('commit.hex'))
    changed = bytes([records[1][0] ^ 1]) + records[1][1:]
    for other in ([records[0], changed, records[2]], records[:2], [records[1], records[0], records[2]]):
        assert root(other) != header[6]


def test_no_sample_holds_more_than_its_fields():
    for path in sorted(SAMPLES.glob('[0-9]*.hex')):
        tags = [tag for tag, _ in fields(sample(path.name))]
        assert set(tags) <= {1, 2, 3, 4, int(path.name[:2])} and len(tags) == len(set(tags)), path.name
