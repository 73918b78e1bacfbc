"""The recorder's log, record by record. The layout is `struct rec` in recorder.c."""
import mmap
import os
import struct

HDR = struct.Struct('<IHHIIQQQQQQQIIQ')
(OPEN, WRITE, TRUNC, FALLOC, SBEGIN, SEND, RENAME, UNLINK, MKDIR, RMDIR, LINK, SYMLINK, ACK, WARN, START) = range(1, 16)
NAMES = 'OPEN WRITE TRUNC FALLOC SBEGIN SEND RENAME UNLINK MKDIR RMDIR LINK SYMLINK ACK WARN START'.split()
SK = ['fsync', 'fdatasync', 'sync_file_range', 'syncfs']


class Rec:
    __slots__ = 'idx type kind pid tid t dev ino off len aux aux2 path path2 dpos dlen'.split()


class Log:
    def __init__(self, fn):
        self.f = open(fn, 'rb')
        self.m = mmap.mmap(self.f.fileno(), 0, access=mmap.ACCESS_READ)
        self.mv = memoryview(self.m)
        self.recs = []
        p, n = 0, len(self.m)
        while p + HDR.size <= n:
            r = Rec()
            (magic, r.type, r.kind, r.pid, r.tid, r.t, r.dev, r.ino, r.off, r.len, r.aux, r.aux2, pl, p2l, r.dlen) = HDR.unpack_from(self.m, p)
            if magic != 0x48535243:
                raise SystemExit(f'bad log record at byte {p}')
            p += HDR.size
            r.path = os.fsdecode(self.m[p:p + pl]); p += pl
            r.path2 = os.fsdecode(self.m[p:p + p2l]); p += p2l
            r.dpos = p; p += r.dlen
            if p > n:
                break
            r.idx = len(self.recs)
            self.recs.append(r)
        starts = [r for r in self.recs if r.type == START]
        self.root = starts[0].path
        self.rootkey = (starts[0].dev, starts[0].ino)

    def data(self, r):
        return self.mv[r.dpos:r.dpos + r.dlen]
