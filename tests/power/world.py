"""What a power failure may leave of the files in a log.

Model
  File: durable content and size, plus pending writes and size changes.
  fsync/fdatasync that returned: all operations on that inode logged before the
  call began are durable (both: data and size). sync_file_range: nothing
  (--mode strict) or the data in its range, not the size (--mode lenient).
  Two modes are controls: in careless, fdatasync makes nothing durable, as if
  the program had left it out; in reckless, neither does fsync of a file.
  Images must fail then, or the test cannot.
  sync/syncfs: everything logged before it began. O_DSYNC writes: at once.
  At a crash, each unit (4096-byte page, or 512-byte sector) of a file holds,
  independently of all others, some version between its durable one and the
  newest (a prefix of the pieces written to that unit: a page or sector is
  written whole, so 'newer piece without the older one beside it in the same
  sector' cannot happen). The size is a prefix of the pending size changes,
  independent of the data: data beyond it is lost, holes below it read as 0.
  A shrink is ordered with the data as a file system's journal would do it.
  p=0: durable only; p=1: all; p=0.5: random version per unit and file.
  Names: create/rename/unlink/link/mkdir become durable by fsync of their
  directory; a create also by fsync (not fdatasync) of the file, with its
  parents'. Otherwise: dirmode ordered = a prefix of all pending name
  operations (a journal); random = each on its own with probability p.
  p is drawn from {0, .5, 1} separately for data, sizes and names.
"""
import bisect
import collections
import os

from recording import (ACK, FALLOC, LINK, MKDIR, OPEN, RENAME, RMDIR, SBEGIN, SEND, TRUNC, UNLINK, WARN, WRITE)

BIG = 1 << 62


class Op:
    """pending change of one file"""
    __slots__ = ('idx', 'kind', 'off', 'len', 'data', 'dur')

    def __init__(self, idx, kind, off, ln, data=None):
        self.idx, self.kind, self.off, self.len, self.data, self.dur = idx, kind, off, ln, data, None


class Inode:
    __slots__ = ('key', 'isdir', 'content', 'size', 'pend', 'ents', 'synced')

    def __init__(self, key, isdir):
        self.key, self.isdir = key, isdir
        self.content = bytearray()   # durable; never longer than size
        self.size = 0
        self.pend = []
        self.ents = {}               # durable entries (directories)
        self.synced = False


def apply_op(buf, size, op):
    """whole op onto buf (len(buf) <= size); returns the new size"""
    if op.kind == 'w':
        end = op.off + op.len
        if len(buf) < op.off:
            buf.extend(bytes(op.off - len(buf)))
        buf[op.off:end] = op.data
        return max(size, end)
    if op.kind == 't':
        if op.off < len(buf):
            del buf[op.off:]
        return op.off
    if op.kind == 'x':               # size extension (fallocate)
        return max(size, op.off + op.len)
    if op.kind == 'z':               # punch/zero a range within the file
        end = min(op.off + op.len, len(buf))
        if op.off < end:
            buf[op.off:end] = bytes(end - op.off)
        return size
    raise ValueError(op.kind)


class NameOp:
    __slots__ = ('idx', 'kind', 'd', 'name', 'ino', 'd2', 'name2', 'must', 'touch')

    def __init__(self, idx, kind, d, name, ino, d2=None, name2=None):
        self.idx, self.kind, self.d, self.name, self.ino, self.d2, self.name2, self.must = idx, kind, d, name, ino, d2, name2, False

    def apply(self, ents):
        """ents: function dir-inode -> its dict"""
        if self.kind == 'add':
            ents(self.d)[self.name] = self.ino
        elif self.kind == 'del':
            e = ents(self.d)
            if e.get(self.name) is self.ino:
                del e[self.name]
        elif self.kind == 'ren':
            e = ents(self.d)
            if e.get(self.name) is self.ino:
                del e[self.name]
            ents(self.d2)[self.name2] = self.ino
        elif self.kind == 'xchg':
            a, b = ents(self.d), ents(self.d2)
            x, y = a.get(self.name), b.get(self.name2)
            if x and y:
                a[self.name], b[self.name2] = y, x


class World:
    def __init__(self, log, mode='strict', base=None):
        self.log, self.mode = log, mode
        self.ino = {}
        self.names = []              # pending NameOps, in order
        self.root = Inode(log.rootkey, True)
        self.ino[log.rootkey] = self.root
        self.live = {log.root: self.root}   # path -> inode, as the program sees it
        self.begun = {}
        self.warns = collections.Counter()
        if base:
            self.load(base, log.root, self.root)
        self.preloaded = bool(base)

    def load(self, d, lp, dnode):
        for n in os.listdir(d):
            p = os.path.join(d, n)
            x = Inode(None, os.path.isdir(p))
            dnode.ents[n] = x
            self.live[lp + '/' + n] = x
            if x.isdir:
                self.load(p, lp + '/' + n, x)
            else:
                x.content = bytearray(open(p, 'rb').read())
                x.size = len(x.content)

    def parent(self, path):
        d, n = os.path.split(path)
        return self.live.get(d), n

    def get(self, r):
        return self.ino.get((r.dev, r.ino))

    def nameop(self, *a, **k):
        self.names.append(NameOp(*a, **k))

    # ---- one record
    def step(self, r):
        t = r.type
        if t == WRITE:
            x = self.get(r)
            if x is None:
                self.warns['write to unknown inode'] += 1
                return
            op = Op(r.idx, 'w', r.off, r.len, self.log.data(r))
            x.pend.append(op)
            if r.kind:
                self.harden(x, r.idx + 1)
        elif t == TRUNC:
            x = self.get(r)
            if x: x.pend.append(Op(r.idx, 't', r.off, 0))
        elif t == FALLOC:
            x = self.get(r)
            if x:
                if r.aux & ~0x13: self.warns['fallocate mode %x' % r.aux] += 1
                if r.aux & 0x12: x.pend.append(Op(r.idx, 'z', r.off, r.len))
                if not r.aux & 1: x.pend.append(Op(r.idx, 'x', r.off, r.len))
        elif t == OPEN:
            key = (r.dev, r.ino)
            if r.aux2 & 1 or (key not in self.ino):
                x = self.live.get(r.path)
                if r.aux2 & 1 or x is None:
                    x = Inode(key, bool(r.aux2 & 2))
                    d, n = self.parent(r.path)
                    if d is None:
                        self.warns['open below unknown directory'] += 1
                        return
                    if not (r.aux2 & 1) :
                        self.warns['file not seen being created: ' + n] += 1
                    self.live[r.path] = x
                    self.nameop(r.idx, 'add', d, n, x)
                x.key = key
                self.ino[key] = x
            elif r.aux2 & 4:
                pass
            if r.aux2 & 4:
                self.ino[key].pend.append(Op(r.idx, 't', 0, 0))
        elif t == SBEGIN:
            self.begun[r.aux2] = r.idx
        elif t == SEND:
            b = self.begun.pop(r.aux2, None)
            if b is None:
                return
            if r.kind == 3:
                for x in list(self.ino.values()):
                    self.harden(x, b)
                for o in self.names:
                    if o.idx < b: o.must = True
                self.compact()
                return
            x = self.get(r)
            if x is None:
                return
            if r.kind == 1 and self.mode in ('careless', 'reckless'):
                return
            if r.kind == 0 and self.mode == 'reckless' and not x.isdir:
                return
            if r.kind == 2:
                if self.mode == 'lenient':
                    lo, hi = r.off // 4096 * 4096, (r.off + r.len + 4095) // 4096 * 4096 if r.len else BIG
                    for o in x.pend:
                        if o.idx < b and o.kind == 'w' and o.off < hi and o.off + o.len > lo:
                            o.dur = (o.dur or []) + [(lo, hi)]
                return
            if x.isdir:
                for o in self.names:
                    if o.idx < b and (o.d is x or o.d2 is x): o.must = True
                self.compact()
            else:
                self.harden(x, b)
                if r.kind == 0 and not x.synced:
                    x.synced = True
                    self.pin(x, b)
                    self.compact()
        elif t == MKDIR:
            x = Inode((r.dev, r.ino), True)
            self.ino[x.key] = x
            d, n = self.parent(r.path)
            self.live[r.path] = x
            self.nameop(r.idx, 'add', d, n, x)
        elif t in (UNLINK, RMDIR):
            x = self.live.pop(r.path, None)
            d, n = self.parent(r.path)
            if x and d: self.nameop(r.idx, 'del', d, n, x)
            else: self.warns['unlink of unknown path'] += 1
        elif t == RENAME:
            if r.path not in self.live: # a name from outside
                self.warns['rename of unknown path'] += 1
                return
            d, n = self.parent(r.path)
            d2, n2 = self.parent(r.path2)
            if r.aux & 2:
                a, b = self.live[r.path], self.live[r.path2]
                self.live[r.path], self.live[r.path2] = b, a
                self.nameop(r.idx, 'xchg', d, n, a, d2, n2)
                return
            x = self.live.pop(r.path)
            self.live[r.path2] = x
            if x.isdir:
                for p in [p for p in self.live if p.startswith(r.path + '/')]:
                    self.live[r.path2 + p[len(r.path):]] = self.live.pop(p)
            self.nameop(r.idx, 'ren', d, n, x, d2, n2)
        elif t == LINK:
            x = self.get(r)
            d, n = self.parent(r.path)
            if x:
                self.live[r.path] = x
                self.nameop(r.idx, 'add', d, n, x)
        elif t == WARN:
            self.warns[bytes(self.log.data(r)).decode() + ' ' + r.path] += 1

    def pin(self, x, b):
        """fsync of a file: its create, and its parents', are durable"""
        for o in self.names:
            if o.idx < b and o.kind == 'add' and o.ino is x and not o.must:
                o.must = True
                self.pin(o.d, b)

    def harden(self, x, b):
        k = 0
        for o in x.pend:
            if o.idx >= b: break
            x.size = apply_op(x.content, x.size, o)
            k += 1
        del x.pend[:k]

    def compact(self):
        k = 0
        for o in self.names:
            if not o.must: break
            o.apply(lambda d: d.ents)
            k += 1
        del self.names[:k]

    # ---- a crash
    def namespace(self, rng, p, dirmode):
        over = {}
        def ents(d):
            if d not in over: over[d] = dict(d.ents)
            return over[d]
        if dirmode == 'ordered':
            lo = max((i + 1 for i, o in enumerate(self.names) if o.must), default=0)
            hi = len(self.names)
            k = lo if p == 0 else hi if p == 1 else rng.randint(lo, hi)
            take = self.names[:k]
        else:
            take = [o for o in self.names if o.must or rng.random() < p]
        for o in take:
            o.apply(ents)
        return lambda d: over.get(d, d.ents)

    def content(self, x, rng, p, ps, unit):
        if not x.pend:
            return x.content, x.size
        ops = x.pend
        # sizes after each prefix of ops
        sizes, meta, s = [], [], x.size
        for i, o in enumerate(ops):
            n = s
            if o.kind in 'wx': n = max(s, o.off + o.len)
            elif o.kind == 't': n = o.off
            if n != s: meta.append(i)
            s = n
            sizes.append(s)
        k = 0 if ps == 0 else len(meta) if ps == 1 else rng.choice([0, len(meta), rng.randint(0, len(meta))])
        size = sizes[meta[k - 1]] if k else x.size
        # no data newer than the first shrink left out
        limit = len(ops)
        prev = x.size
        shrinks = []
        for i, o in enumerate(ops):
            if o.kind == 't' and o.off < prev:
                shrinks.append(i)
            prev = sizes[i]
        cutop = meta[k] if k < len(meta) else len(ops)
        for i in shrinks:
            if i >= cutop:
                limit = i
                break
        done = [i for i in shrinks if i < cutop]
        last = done[-1] if done else -1   # data before it is below its size or gone
        buf = bytearray(x.content)
        if p == 1:
            for i, o in enumerate(ops[:limit]):
                if o.kind == 't' and i > last and i not in shrinks: continue
                apply_op(buf, 0, o) if o.kind != 'x' else None
        else:
            # pieces per unit
            units = collections.defaultdict(list)
            floor = {}
            for i, o in enumerate(ops[:limit]):
                if o.kind not in 'wz': continue
                for u in range(o.off // unit, (o.off + o.len - 1) // unit + 1):
                    units[u].append(i)
                if o.dur:
                    for lo, hi in o.dur:
                        a, b = max(lo, o.off), min(hi, o.off + o.len)
                        for u in range(a // unit, (b - 1) // unit + 1):
                            floor[u] = i
            pick = {}
            for u, l in units.items():
                lo = 0
                if u in floor: lo = bisect.bisect_right(l, floor[u])
                if p == 0: v = lo
                else:
                    q = rng.random()
                    v = len(l) if q < .45 else lo if q < .8 else rng.randint(lo, len(l))
                if v: pick[u] = l[v - 1]     # newest op index applied to this unit
            for i, o in enumerate(ops[:limit]):
                if o.kind == 't':
                    if i <= last and o.off < len(buf): del buf[o.off:]
                    continue
                if o.kind == 'x': continue
                end = o.off + o.len
                u0, u1 = o.off // unit, (end - 1) // unit
                run = None
                for u in range(u0, u1 + 2):
                    ok = u <= u1 and pick.get(u, -1) >= i
                    if ok and run is None: run = u
                    elif not ok and run is not None:
                        a, b = max(o.off, run * unit), min(end, u * unit)
                        if len(buf) < a: buf.extend(bytes(a - len(buf)))
                        if o.kind == 'w': buf[a:b] = o.data[a - o.off:b - o.off]
                        else:
                            b = min(b, len(buf))
                            if a < b: buf[a:b] = bytes(b - a)
                        run = None
        if len(buf) > size: del buf[size:]
        return buf, size

    def image(self, out, rng, p, ps, pd, unit, dirmode):
        ents = self.namespace(rng, pd, dirmode)
        os.makedirs(out)
        total = 0
        stack = [(self.root, out, 0)]
        while stack:
            d, path, depth = stack.pop()
            if depth > 64: continue
            for n, x in ents(d).items():
                q = os.path.join(path, n)
                if x.isdir:
                    os.mkdir(q)
                    stack.append((x, q, depth + 1))
                else:
                    buf, size = self.content(x, rng, p, ps, unit)
                    with open(q, 'wb') as f:
                        f.write(buf)
                        if size > len(buf): f.truncate(size)
                    total += size
        return total


def expectation(acks):
    """acks: lines 'w n' begun, 'W n' acknowledged, 'd a b' delete begun, 'D a b' done"""
    begun, acked, going, gone = set(), set(), set(), set()
    for l in acks:
        a = l.split()
        if a[0] == 'w': begun.add(int(a[1]))
        elif a[0] == 'W': acked.add(int(a[1]))
        elif a[0] == 'd': going.update(range(int(a[1]), int(a[2]) + 1))
        elif a[0] == 'D': gone.update(range(int(a[1]), int(a[2]) + 1))
    return sorted(acked - going), sorted(gone), sorted((begun | going) - gone - (acked - going))
