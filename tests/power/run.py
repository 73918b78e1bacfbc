#!/usr/bin/env python3
"""The power-failure test: records every file operation of a server and checks what a power failure could have left of them.

  run.py --work DIR --server CMD --check CMD [--load CMD] [--images 300] [--creation-images 30] [--control 6] [--seed 1]

Builds the recorder with cc and tests it on itself, runs the server (and its load) under it, makes sure that the recording is complete,
makes the images in strict mode and has each judged by the checker. Exit 0 only when every image is fine, and when of the control images,
which are made as if every fdatasync (--control-mode reckless: and every fsync of a file) had been left out, at least one is not.
With --must-fail it is the other way round: exit 0 only when an image has lost something or does not open.

In CMD, {dir} is the data directory, {acks} the file of acknowledgements, {expect} the checker's expectation. Without --load the server ends by
itself. With it, the server is ended by SIGTERM when the load has ended. README.md says what a load acknowledges and what a checker prints.
"""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPLAY = [sys.executable, str(HERE / 'replay.py')]


def build(bin_dir):
    cc = os.environ.get('CC', 'cc')
    flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-fPIC']
    run([cc, *flags, '-fvisibility=hidden', '-shared', '-o', bin_dir / 'recorder.so', HERE / 'recorder.c', '-lpthread'])
    run([cc, *flags, '-shared', '-o', bin_dir / 'nosync.so', HERE / 'nosync.c'])
    run([cc, '-o', bin_dir / 'recorder_test', HERE / 'recorder_test.c', '-lpthread'])


def run(cmd, **kw):
    done = subprocess.run([str(c) for c in cmd], **kw)
    if done.returncode:
        sys.exit(f'failed ({done.returncode}): {" ".join(map(str, cmd))}')


def recording(bin_dir, data, log, acks):
    return dict(os.environ, CRASH_DIR=str(data), CRASH_LOG=str(log), CRASH_ACK=str(acks), LD_PRELOAD=str(bin_dir / 'recorder.so'))


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def self_test(bin_dir, work):
    work = fresh(work)
    data = fresh(work / 'data')
    run([bin_dir / 'recorder_test', data], env=recording(bin_dir, data, work / 'log', f'{data}.ack'))
    run([*REPLAY, 'verify', work / 'log', data], stdout=subprocess.DEVNULL)
    print('the recorder sees what it must see')


def record(a, bin_dir, work):
    data = fresh(work / 'data')
    log, acks = work / 'log', work / 'acks'
    for old in (log, acks):
        old.unlink(missing_ok=True)
    env = recording(bin_dir, data, log, acks)
    fill = dict(dir=data, acks=acks)
    # `exec`, so that the signal reaches the server and not a shell.
    server = subprocess.Popen('exec ' + a.server.format(**fill), shell=True, env=env)
    try:
        if a.load:
            run(['sh', '-c', 'exec ' + a.load.format(**fill)], env=env)
            server.send_signal(signal.SIGTERM)
        code = server.wait(a.seconds)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    if code not in (0, -signal.SIGTERM):
        sys.exit(f'the server ended with {code}')
    run([*REPLAY, 'verify', log, data])
    return log


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--work', type=pathlib.Path, required=True, help='for everything that is made; images come and go here')
    ap.add_argument('--server', required=True)
    ap.add_argument('--load')
    ap.add_argument('--check', required=True)
    ap.add_argument('--images', type=int, default=300)
    ap.add_argument('--creation-images', type=int, default=30, help='before the first acknowledgement')
    ap.add_argument('--control', type=int, default=6, help='images that must fail')
    ap.add_argument('--control-mode', default='careless', choices=('careless', 'reckless'))
    ap.add_argument('--must-fail', action='store_true', help='the server is a control itself')
    ap.add_argument('--seed', type=int, default=1)
    ap.add_argument('--jobs', type=int, default=os.cpu_count() or 2)
    ap.add_argument('--seconds', type=float, default=600, help='longest time that the server may take to end')
    ap.add_argument('--limit', type=float, default=60, help='longest time that one check may take')
    a = ap.parse_args()
    os.umask(0o077)
    work = a.work.resolve()
    bin_dir = fresh(work / 'bin')
    build(bin_dir)
    self_test(bin_dir, work / 'self')
    log = record(a, bin_dir, work)
    kept = fresh(work / 'kept')
    judge = [*REPLAY, 'run', log, '--check', a.check.replace('{acks}', str(work / 'acks')), '--work', work / 'images', '--seed', a.seed,
             '--jobs', a.jobs, '--limit', a.limit, '--preload', bin_dir / 'nosync.so']
    results, control = work / 'results.jsonl', work / 'control.jsonl'
    for old in (results, control):
        old.unlink(missing_ok=True)
    if a.control:
        run([*judge, '--out', control, '--n', a.control, '--label', 'control', '--mode', a.control_mode])
        if not subprocess.run([*REPLAY, 'summary', str(control)], stdout=subprocess.DEVNULL).returncode:
            sys.exit('every image is fine although no flush made anything durable: this test cannot fail')
        print('control: without its flushes it fails')
    for label, n, more in (('under load', a.images, []), ('creation', a.creation_images, ['--creation'])):
        run([*judge, '--out', results, '--n', n, '--label', label, '--keep', kept, *more])
    summary = subprocess.run([*REPLAY, 'summary', str(results), '--expect', str(a.images + a.creation_images)])
    if a.must_fail:
        if not summary.returncode:
            sys.exit('every image is fine, and one at least had to fail')
        print('as it must, it fails')
    elif summary.returncode:
        sys.exit(f'images that failed are kept in {kept}')


if __name__ == '__main__':
    main()
