"""An export checked by hand, with hashlib and an ECDSA library: what docs/audit.md says is enough. Nothing of ours is used."""
import base64
import hashlib
import json
import pathlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from test_ledger import fields

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / 'vectors/audit'


def sample(name):
    return (SAMPLES / name).read_text()


def sha256(data):
    return hashlib.sha256(data).digest()


def unbase64(text):
    return base64.b64decode(text, validate=True)


def keys():
    """The keys of checkpoints, by what a note's signature names them by."""
    found = {}
    for jwk in json.loads(sample('keys.json'))['keys']:
        x, y = (int.from_bytes(base64.urlsafe_b64decode(jwk[c] + '=='), 'big') for c in 'xy')
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        found[sha256(spki)[:4]] = key
    return found


def opened(note):
    """The text of a signed note (c2sp.org/signed-note), once a known key is found to have signed it."""
    text, signatures = note.rsplit('\n\n', 1)
    text += '\n'
    for line in signatures.splitlines():
        dash, _, value = line.split(' ')
        assert dash == '\u2014'
        value = unbase64(value)
        if value[:4] in keys():
            keys()[value[:4]].verify(value[4:], text.encode(), ec.ECDSA(hashes.SHA256()))
            return text.splitlines()
    raise AssertionError('no known key signed it')


class Tree:
    """RFC 6962, section 2.1, as a stack of complete subtrees: (leaves, hash), the largest first."""

    def __init__(self):
        self.stack, self.size = [], 0

    def push(self, node, leaves=1):
        assert self.size % leaves == 0, 'not the next place of its size'
        self.size += leaves
        while self.stack and self.stack[-1][0] == leaves:
            node, leaves = sha256(b'\1' + self.stack.pop()[1] + node), leaves * 2
        self.stack.append((leaves, node))

    def push_gap(self, gap):
        """Subtrees that cover the places from one to another, as few as there are."""
        assert gap['from'] == self.size + 1 <= gap['to'], 'something is missing'
        nodes = iter(gap['nodes'])
        while self.size < gap['to']:
            leaves = 1
            while (self.size == 0 or self.size % (leaves * 2) == 0) and self.size + leaves * 2 <= gap['to']:
                leaves *= 2
            self.push(unbase64(next(nodes)), leaves)
        assert next(nodes, None) is None

    def root(self):
        nodes = [node for _, node in self.stack]
        root = nodes.pop() if nodes else sha256(b'')
        while nodes:
            root = sha256(b'\1' + nodes.pop() + root)
        return root


def check(export):
    """The records of an export, by seq, and its checkpoint. Raises where something is wrong."""
    lines = export.splitlines(keepends=True)
    kinds = [next(iter(json.loads(line).items())) for line in lines]
    assert kinds[0][0] == 'export' and kinds[-1][0] == 'end' and kinds[0][1]['format'] == 1
    tree, records, commit = Tree(), {}, None

    def close():
        if commit:
            assert commit['tree'].size == commit['header'][7], 'a record is missing'
            assert commit['tree'].root() == commit['header'][6], 'a record was changed'

    for kind, told in kinds[1:-1]:
        if kind in ('gap', 'commit'):
            close()
            commit = None
        if kind == 'gap':
            tree.push_gap(told)
        elif kind == 'commit':
            assert told['commit'] == tree.size + 1, 'a commit is missing'
            header = unbase64(told['header'])
            tree.push(sha256(b'\0' + header))
            commit = {'header': dict(fields(header)), 'tree': Tree(), 'first': told['first']}
        elif kind == 'leaves':
            commit['tree'].push_gap(told)
        elif kind == 'record':
            assert told['seq'] == commit['first'] + commit['tree'].size, 'a record is missing'
            record = unbase64(told['bytes'])
            commit['tree'].push(sha256(b'\0' + record))
            records[told['seq']] = record
        else:
            raise AssertionError(kind)
    close()
    end = kinds[-1][1]
    origin, size, root, *_ = opened(end['checkpoint'])
    assert origin == kinds[0][1]['origin'] and int(size) == tree.size
    assert unbase64(root) == tree.root(), 'a commit was changed'
    digest = base64.b64encode(sha256(''.join(lines[:-1]).encode())).decode()
    said = [f'{origin}/export', size, root, f"commits {kinds[0][1]['from']} {size}", f'records {len(records)}', f'sha256 {digest}']
    assert opened(end['statement']) == said, 'records are missing, or a line was changed'
    return records, (int(size), unbase64(root)), end


def consistent(old_size, old_root, new_size, new_root, proof):
    """RFC 9162, section 2.1.4.2."""
    if old_size == new_size:
        return not proof and old_root == new_root
    if old_size & (old_size - 1) == 0:
        proof = [old_root] + proof
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = proof[0]
    for node in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = sha256(b'\1' + node + first), sha256(b'\1' + node + second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = sha256(b'\1' + second + node)
        fn, sn = fn >> 1, sn >> 1
    return (first, second, sn) == (old_root, new_root, 0)


def test_an_export_leads_to_its_checkpoint_and_is_all_that_the_server_says():
    records, _, _ = check(sample('export.jsonl'))
    assert len(records) == 12
    # Event 24, a refusal, whose reason is its second field.
    assert all(dict(fields(dict(fields(record))[24]))[2] == b'LOCKED' for record in records.values())


def test_an_older_checkpoint_stands_for_a_beginning():
    _, (size, root), end = check(sample('export.jsonl'))
    _, old_size, old_root, *_ = opened(sample('checkpoint.txt'))
    proof = [unbase64(node) for node in end['since']['nodes']]
    old_size, old_root = int(old_size), unbase64(old_root)
    assert 0 < old_size == end['since']['size'] < size
    assert consistent(old_size, old_root, size, root, proof)
    assert not consistent(old_size, root, size, root, proof)
    assert not consistent(old_size, old_root, size, root, proof[:-1] + [bytes(32)])


def test_what_is_flipped_removed_or_swapped_is_found():
    lines = sample('export.jsonl').splitlines(keepends=True)
    for n in range(len(lines)):
        with pytest.raises((AssertionError, ValueError, KeyError, InvalidSignature, StopIteration, TypeError, IndexError)):
            check(''.join(lines[:n] + lines[n + 1:]))
    told = [n for n, line in enumerate(lines) if line.startswith('{"record"')]
    swapped = list(lines)
    swapped[told[0]], swapped[told[1]] = lines[told[1]], lines[told[0]]
    with pytest.raises(AssertionError):
        check(''.join(swapped))
    for n in told:
        at = lines[n].index('"bytes":"') + 15
        flipped = lines[n][:at] + ('A' if lines[n][at] != 'A' else 'B') + lines[n][at + 1:]
        with pytest.raises((AssertionError, ValueError)):
            check(''.join(lines[:n] + [flipped] + lines[n + 1:]))
