#!/usr/bin/env python3
"""Crash images from a recording.

  replay.py dump    LOG                        list the records
  replay.py verify  LOG DIR [--base DIR0]      is the fully applied log the real directory?
  replay.py image   LOG OUT --at INDEX [...]   one crash image
  replay.py acks    LOG --at INDEX             acknowledgements before a record
  replay.py run     LOG --check 'CMD {dir} {expect}' --n 300 --work W --out R.jsonl [...]
  replay.py summary R.jsonl...                 a table, what failed, and exit 1 when anything did

The model is described in world.py; how to drive it all in README.md.
"""
import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

from recording import ACK, NAMES, SBEGIN, SEND, SK, WARN, Log
from world import World, expectation


def treehash(d):
    found = {}
    for path, dirs, files in os.walk(d):
        for name in dirs:
            found[os.path.relpath(os.path.join(path, name), d)] = 'dir'
        for name in files:
            full = os.path.join(path, name)
            h = hashlib.sha256()
            with open(full, 'rb') as f:
                while block := f.read(1 << 20):
                    h.update(block)
            found[os.path.relpath(full, d)] = (os.path.getsize(full), h.hexdigest()[:16])
    return found


def cmd_dump(a):
    log = Log(a.log)
    for r in log.recs:
        extra = SK[r.kind] if r.type in (SBEGIN, SEND) else ''
        body = repr(bytes(log.data(r)[:60])) if r.type in (ACK, WARN) else ''
        print(r.idx, NAMES[r.type - 1], extra, f'ino={r.ino} off={r.off} len={r.len} aux={r.aux:x}/{r.aux2:x}', r.path, r.path2, body)


def cmd_verify(a):
    log = Log(a.log)
    w = World(log, base=a.base)
    for r in log.recs:
        w.step(r)
    out = a.log + '.verify'
    shutil.rmtree(out, ignore_errors=True)
    w.image(out, random.Random(0), 1, 1, 1, 4096, 'ordered')
    logged, real = treehash(out), treehash(a.dir)
    shutil.rmtree(out)
    bad = [k for k in sorted(logged.keys() | real.keys()) if logged.get(k) != real.get(k)]
    kinds = collections.Counter(NAMES[r.type - 1] + (':' + SK[r.kind] if r.type == SEND else '') for r in log.recs)
    print('records', dict(kinds))
    if w.warns:
        print('warnings', dict(w.warns))
    for k in bad[:20]:
        print('DIFFERS', k, 'log:', logged.get(k), 'real:', real.get(k))
    print('VERIFY', 'OK' if not bad else f'{len(bad)} of {len(real)} DIFFER', f'({len(real)} entries)')
    return 1 if bad else 0


def cmd_image(a):
    log = Log(a.log)
    w = World(log, a.mode, a.base)
    for r in log.recs[:a.at]:
        w.step(r)
    sizes, names = a.ps if a.ps is not None else a.p, a.pd if a.pd is not None else a.p
    w.image(a.out, random.Random(a.seed), a.p, sizes, names, a.unit, a.dirmode)


def cmd_acks(a):
    log = Log(a.log)
    for r in log.recs[:a.at]:
        if r.type == ACK:
            sys.stdout.write(bytes(log.data(r)).decode())


def points(log, n, rng, creation):
    """Where the power fails: half right after acknowledgements, half anywhere; or before the first acknowledgement."""
    acks = [r.idx + 1 for r in log.recs if r.type == ACK and bytes(log.data(r)[:1]) in (b'W', b'D')]
    if creation:
        return sorted(rng.randint(1, acks[0] if acks else len(log.recs)) for _ in range(n))
    first = acks[0] if acks else 1
    pts = [rng.choice(acks) for _ in range(n // 2)] if acks else []
    syncs = [r.idx for r in log.recs if r.type in (SBEGIN, SEND) and r.idx > first]
    while len(pts) < n:
        if rng.random() < .5 or not syncs:
            pts.append(rng.randint(first, len(log.recs)))
        else:
            pts.append(rng.choice(syncs) + rng.randint(-1, 1))
    return sorted(pts)


def plainly(text):
    """A message without the parts that differ from image to image."""
    text = re.sub(r'0x[0-9a-f]+', 'X', text)
    text = re.sub(r'/\S*/(src|img\d*)/', '.../', text)
    return re.sub(r'\d+', '#', text)[:200]


def judge(cmd, img, exp, limit, env):
    """Runs the checker on one image and returns its output as a row of the results."""
    began = time.time()
    try:
        p = subprocess.run(cmd.format(dir=img, expect=exp), shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit, env=env)
        out, err, rc = p.stdout.decode(errors='replace'), p.stderr.decode(errors='replace'), p.returncode
    except subprocess.TimeoutExpired as e:
        out, err, rc = (e.stdout or b'').decode(errors='replace'), (e.stderr or b'').decode(errors='replace'), 'timeout'
    row = {'rc': rc, 'wall': round(time.time() - began, 2), 'stage': (re.findall(r'^STAGE (\w+)', out, re.M) or ['start'])[-1]}
    m = re.search(r'^OPEN ms=(\d+)', out, re.M)
    row['open_ms'] = int(m.group(1)) if m else None
    for tag in ('READ', 'REREAD'):
        m = re.search(rf'^{tag} lost=(\[.*?\]) wrong=(\[.*?\]) back=(\[.*?\])', out, re.M)
        row[tag] = [json.loads(m.group(i)) for i in (1, 2, 3)] if m else None
    if row['stage'] != 'done':
        m = re.search(r'^ERROR (.*)', out, re.M)
        msg = m.group(1) if m else err.strip()[-200:]
        row['msg'] = plainly(msg + (' [timeout]' if rc == 'timeout' else f' [rc {rc}]'))
    return row


def is_bad(row):
    """Whether the checker failed, or reported lost, wrong or resurrected values."""
    reads = [row['READ'], row['REREAD'] or [[], [], []]]
    return row['rc'] != 0 or row['stage'] != 'done' or any(r is None or any(r) for r in reads)


def cmd_run(a):
    rng = random.Random(a.seed)
    log = Log(a.log)
    pts = points(log, a.n, rng, a.creation)
    os.makedirs(a.work, exist_ok=True)
    env = dict(os.environ, RUST_BACKTRACE='0')
    if a.preload:
        env['LD_PRELOAD'] = a.preload
    w = World(log, a.mode, a.base)
    acks, at = [], 0
    pool = concurrent.futures.ThreadPoolExecutor(a.jobs)
    gate = threading.Semaphore(a.jobs + 2)
    results, lock, jobs = open(a.out, 'a'), threading.Lock(), []

    def job(i, img, exp, meta):
        try:
            row = judge(a.check, img, exp, a.limit, env)
            row.update(meta)
            with lock:
                results.write(json.dumps(row) + '\n')
                results.flush()
            if a.keep and (a.only is not None or is_bad(row)):
                shutil.copytree(img, os.path.join(a.keep, f'img{i}'), dirs_exist_ok=True)
                shutil.copy(exp, os.path.join(a.keep, f'exp{i}'))
        finally:
            shutil.rmtree(img, ignore_errors=True)
            os.path.exists(exp) and os.remove(exp)
            gate.release()

    for i, pt in enumerate(pts):
        while at < min(pt, len(log.recs)):
            r = log.recs[at]
            if r.type == ACK:
                acks += bytes(log.data(r)).decode().split('\n')[:-1]
            w.step(r)
            at += 1
        if a.only is not None and i != a.only:
            continue
        rng = random.Random(f'{a.seed}:{i}')    # so that --only makes the same image again
        p, ps, pd = (rng.choice([0, .5, 1]) for _ in range(3))
        if i % 3 == 0:
            p = ps = pd = rng.choice([0, 0, .5, 1])    # the extreme cases
        unit, dirmode = rng.choice([4096, 512]), rng.choice(['ordered', 'random'])
        gate.acquire()
        img, exp = os.path.join(a.work, f'img{i}'), os.path.join(a.work, f'exp{i}')
        shutil.rmtree(img, ignore_errors=True)
        size = w.image(img, rng, p, ps, pd, unit, dirmode)
        e = expectation(acks)
        with open(exp, 'w') as f:
            f.write('\n'.join(','.join(map(str, l)) for l in e))
        meta = {'label': a.label, 'mode': a.mode, 'i': i, 'at': pt, 'p': p, 'ps': ps, 'pd': pd, 'unit': unit,
                'dirmode': dirmode, 'bytes': size, 'required': len(e[0])}
        jobs.append(pool.submit(job, i, img, exp, meta))
    pool.shutdown()
    if w.warns:
        print('warnings', dict(w.warns))
    for j in jobs:
        j.result()    # raises if the image could not be judged: such an image must not count as fine
    print(f'{a.label} {a.mode}: {len(jobs)} images')


def cmd_summary(a):
    groups, bad = collections.OrderedDict(), []
    for fn in a.results:
        for line in open(fn):
            row = json.loads(line)
            groups.setdefault((row['label'], row['mode']), []).append(row)
    print('| what | mode | images | fine | not opened or read | with something lost | wrong | brought back | most required | slowest open, ms |')
    print('|---|---|---|---|---|---|---|---|---|---|')
    for (label, mode), rows in groups.items():
        read = [r for r in rows if r['READ']]
        count = [sum(bool(r['READ'][k] or (r['REREAD'] or [[], [], []])[k]) for r in read) for k in range(3)]
        fine = sum(not is_bad(r) for r in rows)
        slowest = max((r['open_ms'] for r in rows if r['open_ms'] is not None), default=0)
        required = max((r['required'] for r in rows), default=0)
        print(f'| {label} | {mode} | {len(rows)} | {fine} | {len(rows) - len(read)} | {count[0]} | {count[1]} | {count[2]} | {required} | {slowest} |')
        bad += [r for r in rows if is_bad(r)]
    for (label, stage, msg), n in collections.Counter((r['label'], r['stage'], r.get('msg', '')) for r in bad).most_common(12):
        print(f'- {label}: {n} at stage {stage}: {msg}')
    for r in bad[:5]:
        read = [f'{len(l)} {what} {l[:5]}' for what, l in zip(('lost', 'wrong', 'back'), r['READ'] or []) if l]
        print(f'- again: --label "{r["label"]}" --only {r["i"]}: {", ".join(read)}')
    total = sum(len(rows) for rows in groups.values())
    if a.expect is not None and total != a.expect:
        print(f'{total} images were judged, not {a.expect}')
        return 1
    return 1 if bad else 0


def main():
    # Servers refuse a data directory that is not private.
    os.umask(0o077)
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sp = ap.add_subparsers(dest='c', required=True)
    p = sp.add_parser('dump')
    p.add_argument('log')
    p = sp.add_parser('verify')
    p.add_argument('log')
    p.add_argument('dir')
    p.add_argument('--base')
    p = sp.add_parser('image')
    p.add_argument('log')
    p.add_argument('out')
    p.add_argument('--at', type=int, required=True)
    p.add_argument('--base')
    p.add_argument('--mode', default='strict')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--p', type=float, default=0, help='how much of the unsynced data is there: 0, 1, or a mixture')
    p.add_argument('--ps', type=float, help='the same for sizes')
    p.add_argument('--pd', type=float, help='the same for names')
    p.add_argument('--unit', type=int, default=4096)
    p.add_argument('--dirmode', default='ordered')
    p = sp.add_parser('run')
    p.add_argument('log')
    p.add_argument('--check', required=True)
    p.add_argument('--n', type=int, default=300)
    p.add_argument('--work', required=True)
    p.add_argument('--out', required=True)
    p.add_argument('--mode', default='strict', help='lenient: sync_file_range makes its range durable; careless: fdatasync does nothing; reckless: nor does fsync of a file')
    p.add_argument('--label', default='x')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--limit', type=float, default=60, help='seconds for one check')
    p.add_argument('--base', help='a copy of the directory as it was before the recording')
    p.add_argument('--preload')
    p.add_argument('--keep', help='where images that failed are kept')
    p.add_argument('--creation', action='store_true', help='only before the first acknowledgement')
    p.add_argument('--only', type=int, help='image i of this run only')
    p = sp.add_parser('acks')
    p.add_argument('log')
    p.add_argument('--at', type=int, required=True)
    p = sp.add_parser('summary')
    p.add_argument('results', nargs='+')
    p.add_argument('--expect', type=int, help='how many images there must be')
    a = ap.parse_args()
    sys.exit(globals()['cmd_' + a.c](a) or 0)


if __name__ == '__main__':
    main()
