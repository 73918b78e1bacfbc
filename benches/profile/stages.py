#!/usr/bin/env python3
"""Says which stage of an issuance the samples of a loaded server were in.

    perf script -F comm,ip,sym --no-inline | benches/profile/stages.py --cpu-us MICROSECONDS

A sample is of the first stage that a frame of its stack is of, from the innermost one out; one that no frame says is of its thread's. MICROSECONDS
is what the process took for one issuance in the same seconds (`server_cpu_us_per_issue` of `mayfly bench --json`): stages are told in parts of it.
"""

import argparse
import collections
import re
import sys

# In the order of the table in docs/performance.md. A thread's name, a stage, and what its frames are called.
STAGES = [
    ("mayfly-workload", "signature (ES256, of a digest)", r"EcdsaKeyPair::sign|ECDSA_do_sign|pkey_ec_sign"),
    ("mayfly-workload", "TLS: assembling the output, and reads and writes in the kernel", r"rustls|api::write_coalescing|poll_write_vectored|poll_read|writev|recv|sock_"),
    ("mayfly-workload", "waiting for sockets and for other threads, in the kernel", r"epoll_wait|futex|schedule|Context::park|eventfd|mio::"),
    ("mayfly-workload", "admission: reading and checking a request, and the digest of its fields", r"policy::fast_decode|policy::exchange_request|grpc::exchange::fast::decode|StreamExchangeRequest|ExchangeRequest"),
    ("mayfly-workload", "task and policy", r"policy::|cedar"),
    ("mayfly-workload", "claims, base64, record; hashing both", r"credential::|ledger::record|ledger::commit|ledger::writer::(?:template|encoded)|exchange::.*make|data_encoding|base64"),
    ("mayfly-workload", "answer: reveal and encode, wiping", r"grpc::exchange::fast::encode|grpc::exchange::fast::stream::Answers|zeroize|ExchangeResponse"),
    ("mayfly-workload", "checking that the caller is still admitted; the lookup of the request id; assembling a batch", r"grpc::exchange|exchange::|identity::|ledger::(?:writer::proposal_queue|reader::view|Ledger)"),
    ("mayfly-workload", "tokio, HTTP/2, tonic", r"tokio|h2::|hyper|tonic|tower|api::connection|api::listener"),
    ("ledger-writer", "writer: the log's write and flush, in the kernel", r"store::"),
    ("ledger-writer", "writer: verdict and effect (fold)", r"ledger::state|WriterHead::apply|verify::"),
    ("ledger-writer", "writer: Merkle tree, record templates and bytes of a commit", r"ledger::(?:commit|tree|writer::(?:packed|template|encoded))"),
]
# What a thread does that no frame said.
THREADS = [
    ("mayfly-workload", "samples of the threads above with a truncated stack"),
    ("ledger-writer", "writer: queue, answers, freeing memory"),
    ("store-", "moving to redb, on a thread of its own"),
    ("ledger-derive", "index of history, on a thread of low priority"),
    ("", "all other threads"),
]


def stage(thread, frames):
    own = [(name, re.compile(calls)) for of, name, calls in STAGES if thread.startswith(of)]
    for frame in frames:
        for name, calls in own:
            if calls.search(frame):
                return name
    return next(name for of, name in THREADS if thread.startswith(of))


def samples(lines):
    """The thread and the frames of each sample, the innermost first."""
    thread, frames = None, []
    for line in lines:
        if not line.strip():
            if thread is not None:
                yield thread, frames
            thread, frames = None, []
        elif not line[0].isspace():
            thread = line.split()[0]
        else:
            frames.append(line.split(None, 1)[1].strip() if len(line.split(None, 1)) > 1 else "")
    if thread is not None:
        yield thread, frames


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-us", type=float, required=True)
    parser.add_argument("--unsaid", action="store_true", help="which frames the samples have that no stage is of")
    args = parser.parse_args()
    seen, unsaid = collections.Counter(), collections.Counter()
    rest = {name for _, name in THREADS}
    for thread, frames in samples(sys.stdin):
        name = stage(thread, frames)
        seen[name] += 1
        if name in rest:
            unsaid[thread + ": " + " < ".join(frames[:12])] += 1
    total = sum(seen.values())
    if not total:
        sys.exit("no samples: was the server under load while perf ran?")
    names = list(dict.fromkeys([name for _, name, _ in STAGES] + [name for _, name in THREADS]))
    print(f"{total} samples, {args.cpu_us:.1f} µs for each issuance")
    for name in names:
        share = seen[name] / total
        # What one sample more or less would change is not worth a digit: the spread of a count is its root.
        print(f"| {name} | {share * args.cpu_us:.2f} | {args.cpu_us * seen[name] ** 0.5 / total:.2f} |")
    if args.unsaid:
        for frames, times in unsaid.most_common(25):
            print(f"{times:6} {frames}")


if __name__ == "__main__":
    main()
