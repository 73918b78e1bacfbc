/* Recorder of file operations, preloaded into a server for the power-failure test (run.py builds and uses it).
 *
 *   CRASH_DIR=<dir>   record operations on files below this directory
 *   CRASH_LOG=<file>  binary log, appended to (must be outside CRASH_DIR)
 *   CRASH_ACK=<file>  acknowledgement file (default <CRASH_DIR>.ack): every
 *                     write to it becomes an ACK record holding the bytes.
 *   CRASH_SFR=enosys  sync_file_range fails with ENOSYS
 *
 * Design
 *  - No fd table: every call asks the kernel (fstat + readlink of
 *    /proc/self/fd/N) what the descriptor is, so dup, dup2, fcntl, SCM_RIGHTS,
 *    inherited descriptors and two opens of one file need no bookkeeping; the
 *    log identifies a file by st_dev/st_ino.
 *  - A mutating call is made and logged under one mutex, so the log order is
 *    the order of effects. The sync calls are logged as BEGIN .. END and run
 *    outside the mutex: a sync covers only what was logged before its BEGIN,
 *    and holds only from its END.
 *  - One O_APPEND writev per record: a killed process leaves a whole log, and
 *    several processes (server + acknowledging client) may share one log.
 *  - Raw system calls inside, signals blocked while the mutex is held, mutex
 *    re-made in fork children. syscall(2) is interposed too.
 *  - copy_file_range, sendfile and splice into a tracked file are refused with
 *    ENOSYS/EINVAL, so that std falls back to read+write.
 * Not seen: stdio (fwrite), raw syscall instructions (rustix's linux_raw
 * backend: build with its `use-libc` feature), io_uring (warned about), stores
 * through MAP_SHARED mappings (warned about). `replay.py verify` compares the
 * fully applied log with the real directory and so finds any such hole.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

static inline long raw6(long n, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "port raw6"
#endif
}
#define RAW(n, ...) RAW_(n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define RAW_(n, a, b, c, d, e, f, ...) raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static inline long fin(long r)
{
    if (r < 0 && r > -4096) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

enum { R_OPEN = 1, R_WRITE, R_TRUNC, R_FALLOC, R_SBEGIN, R_SEND, R_RENAME, R_UNLINK, R_MKDIR, R_RMDIR,
       R_LINK, R_SYMLINK, R_ACK, R_WARN, R_START };
enum { S_FSYNC = 0, S_FDATASYNC, S_RANGE, S_SYNCFS };

struct rec {
    uint32_t magic;
    uint16_t type, kind;
    uint32_t pid, tid;
    uint64_t t_ns, dev, ino, off, len, aux, aux2;
    uint32_t plen, p2len;
    uint64_t dlen;
} __attribute__((packed));

static char root[PATH_MAX], ackp[PATH_MAX];
static size_t rootlen;
static int logfd = -1;
static volatile int active;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside __attribute__((tls_model("initial-exec")));
static uint64_t token;
static int sfr_enosys;

struct guard { uint64_t old; };
static void lock(struct guard *g)
{
    uint64_t all = ~0ULL;
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &all, &g->old, 8);
    pthread_mutex_lock(&mu);
    inside++;
}
static void unlock(struct guard *g)
{
    inside--;
    pthread_mutex_unlock(&mu);
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &g->old, 0, 8);
}

/* call with the mutex held */
static void emit(struct rec *r, const char *p, const char *p2, const struct iovec *iov, int n, size_t dlen)
{
    struct timespec ts;
    struct iovec v[1024];
    int k = 0;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    r->magic = 0x48535243;
    r->pid = (uint32_t)RAW(SYS_getpid);
    r->tid = (uint32_t)RAW(SYS_gettid);
    r->t_ns = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
    r->plen = p ? (uint32_t)strlen(p) : 0;
    r->p2len = p2 ? (uint32_t)strlen(p2) : 0;
    r->dlen = dlen;
    v[k++] = (struct iovec){r, sizeof *r};
    if (r->plen) v[k++] = (struct iovec){(void *)p, r->plen};
    if (r->p2len) v[k++] = (struct iovec){(void *)p2, r->p2len};
    char *flat = NULL;
    if (n > 1000) { /* cannot fit beside the header: flatten */
        flat = malloc(dlen ? dlen : 1);
        size_t at = 0;
        for (int i = 0; i < n && at < dlen; i++) {
            size_t l = iov[i].iov_len;
            if (l > dlen - at) l = dlen - at;
            memcpy(flat + at, iov[i].iov_base, l);
            at += l;
        }
        v[k++] = (struct iovec){flat, dlen};
    } else {
        size_t left = dlen;
        for (int i = 0; i < n && left; i++) {
            size_t l = iov[i].iov_len < left ? iov[i].iov_len : left;
            if (l) v[k++] = (struct iovec){iov[i].iov_base, l};
            left -= l;
        }
    }
    int i = 0;
    while (i < k) {
        long w = RAW(SYS_writev, logfd, v + i, k - i);
        if (w == -EINTR) continue;
        if (w <= 0) {
            static const char m[] = "recorder: cannot write its log\n";
            RAW(SYS_write, 2, m, sizeof m - 1);
            abort();
        }
        while (i < k && (size_t)w >= v[i].iov_len) w -= (long)v[i++].iov_len;
        if (i < k) {
            v[i].iov_base = (char *)v[i].iov_base + w;
            v[i].iov_len -= (size_t)w;
        }
    }
    free(flat);
}

static void warn(const char *what, const char *path)
{
    struct guard g;
    struct rec r = {.type = R_WARN};
    struct iovec v = {(void *)what, strlen(what)};
    lock(&g);
    emit(&r, path, NULL, &v, 1, v.iov_len);
    unlock(&g);
}

static int below(const char *p)
{
    if (strncmp(p, root, rootlen) == 0 && (p[rootlen] == '/' || p[rootlen] == 0)) return 1;
    return strcmp(p, ackp) == 0 ? 2 : 0;
}

static int fdpath(int fd, char *out)
{
    char ln[40];
    snprintf(ln, sizeof ln, "/proc/self/fd/%d", fd);
    long n = RAW(SYS_readlinkat, AT_FDCWD, ln, out, PATH_MAX - 1);
    if (n < 0) return -1;
    out[n] = 0;
    return 0;
}

/* 0 not ours, 1 below the directory, 2 the ack file */
static int tracked(int fd, struct stat *st, char *path)
{
    if (!active || inside || fd < 0) return 0;
#if defined(SYS_fstat)
    if (RAW(SYS_fstat, fd, st) < 0) return 0;
#else
    if (RAW(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH) < 0) return 0;
#endif
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) return 0;
    if (st->st_nlink == 0) return 0; /* orphan: no name, no crash image */
    if (fdpath(fd, path) < 0) return 0;
    return below(path);
}

/* canonical path of a name to be changed: the parent is resolved by the kernel */
static int canon(int dfd, const char *p, char *out)
{
    char tmp[PATH_MAX], par[PATH_MAX];
    if (!active || inside || !p) return 0;
    size_t n = strlen(p);
    if (n == 0 || n >= PATH_MAX) return 0;
    memcpy(tmp, p, n + 1);
    while (n > 1 && tmp[n - 1] == '/') tmp[--n] = 0;
    char *s = strrchr(tmp, '/');
    const char *base = s ? s + 1 : tmp;
    const char *dir = !s ? "." : s == tmp ? "/" : (*s = 0, tmp);
    long fd = RAW(SYS_openat, dfd, dir, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    int ok = fdpath((int)fd, par);
    RAW(SYS_close, fd);
    if (ok < 0) return 0;
    if ((size_t)snprintf(out, PATH_MAX, "%s/%s", strcmp(par, "/") ? par : "", base) >= PATH_MAX) return 0;
    return below(out);
}

static int lstat_at(const char *p, struct stat *st) { return (int)RAW(SYS_newfstatat, AT_FDCWD, p, st, AT_SYMLINK_NOFOLLOW); }

static void at_prepare(void) { pthread_mutex_lock(&mu); }
static void at_parent(void) { pthread_mutex_unlock(&mu); }
static void at_child(void) { pthread_mutex_init(&mu, NULL); inside = 0; }

__attribute__((constructor)) static void init(void)
{
    const char *d = getenv("CRASH_DIR"), *l = getenv("CRASH_LOG"), *a = getenv("CRASH_ACK");
    if (!d || !l || active) return;
    if (!realpath(d, root)) {
        fprintf(stderr, "recorder: CRASH_DIR %s: %s\n", d, strerror(errno));
        abort();
    }
    rootlen = strlen(root);
    if (a) snprintf(ackp, sizeof ackp, "%s", a);
    else snprintf(ackp, sizeof ackp, "%.*s.ack", (int)(PATH_MAX - 8), root);
    long fd = RAW(SYS_openat, AT_FDCWD, l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        fprintf(stderr, "recorder: CRASH_LOG %s: %s\n", l, strerror((int)-fd));
        abort();
    }
    for (int want = 1000; want >= 100; want -= 300) { /* out of the way of low-fd reuse */
        long hi = RAW(SYS_fcntl, fd, F_DUPFD_CLOEXEC, want);
        if (hi >= 0) { RAW(SYS_close, fd); fd = hi; break; }
    }
    logfd = (int)fd;
    pthread_atfork(at_prepare, at_parent, at_child);
    struct stat st;
    struct rec r = {.type = R_START};
    if (lstat_at(root, &st) == 0) { r.dev = st.st_dev; r.ino = st.st_ino; }
    emit(&r, root, ackp, NULL, 0, 0);
    sfr_enosys = getenv("CRASH_SFR") != NULL;
    active = 1;
}

/* ---------------------------------------------------------------- open */
static long do_open(int dfd, const char *p, int fl, mode_t mode)
{
    if (!active || inside) return RAW(SYS_openat, dfd, p, fl, mode);
    struct guard g;
    struct stat st, pre;
    char path[PATH_MAX];
    int chg = (fl & (O_CREAT | O_TRUNC)) != 0 || (fl & O_TMPFILE) == O_TMPFILE, existed = 1;
    uint64_t presize = 0;
    if (!chg && (fl & O_PATH)) return RAW(SYS_openat, dfd, p, fl, mode);
    if (chg) lock(&g);
    if (chg) {
        existed = RAW(SYS_newfstatat, dfd, p, &pre, 0) == 0;
        presize = existed ? (uint64_t)pre.st_size : 0;
    }
    long fd = RAW(SYS_openat, dfd, p, fl, mode);
    if (fd >= 0) {
        int was = inside;
        inside = 0;
        int t = tracked((int)fd, &st, path);
        inside = was;
        if (t == 1) {
            struct rec r = {.type = R_OPEN, .dev = st.st_dev, .ino = st.st_ino, .off = (uint64_t)st.st_size, .aux = (uint64_t)(unsigned)fl};
            r.aux2 = (!existed ? 1 : 0) | (S_ISDIR(st.st_mode) ? 2 : 0) | ((fl & O_TRUNC) && existed && presize ? 4 : 0);
            if (!chg) lock(&g);
            emit(&r, path, NULL, NULL, 0, 0);
            if (!chg) unlock(&g);
        }
    }
    if (chg) unlock(&g);
    if (fd >= 0 && (fl & O_TMPFILE) == O_TMPFILE && fdpath((int)fd, path) == 0 && below(path) == 1)
        warn("O_TMPFILE below CRASH_DIR is not tracked", path);
    return fd;
}
#define MODE(fl, last) mode_t m = 0; if (((fl) & O_CREAT) || ((fl) & O_TMPFILE) == O_TMPFILE) { va_list ap; va_start(ap, last); m = va_arg(ap, mode_t); va_end(ap); }
API int open(const char *p, int fl, ...) { MODE(fl, fl) return (int)fin(do_open(AT_FDCWD, p, fl, m)); }
API int open64(const char *p, int fl, ...) { MODE(fl, fl) return (int)fin(do_open(AT_FDCWD, p, fl | O_LARGEFILE, m)); }
API int openat(int d, const char *p, int fl, ...) { MODE(fl, fl) return (int)fin(do_open(d, p, fl, m)); }
API int openat64(int d, const char *p, int fl, ...) { MODE(fl, fl) return (int)fin(do_open(d, p, fl | O_LARGEFILE, m)); }
API int creat(const char *p, mode_t m) { return (int)fin(do_open(AT_FDCWD, p, O_CREAT | O_WRONLY | O_TRUNC, m)); }
API int creat64(const char *p, mode_t m) { return creat(p, m); }
API int __open_2(const char *p, int fl) { return (int)fin(do_open(AT_FDCWD, p, fl, 0)); }
API int __open64_2(const char *p, int fl) { return (int)fin(do_open(AT_FDCWD, p, fl, 0)); }
API int __openat_2(int d, const char *p, int fl) { return (int)fin(do_open(d, p, fl, 0)); }
API int __openat64_2(int d, const char *p, int fl) { return (int)fin(do_open(d, p, fl, 0)); }

/* --------------------------------------------------------------- write */
/* off < 0: at the descriptor's position */
static long do_write(int fd, const struct iovec *iov, int n, int64_t off, int rwf, int plain)
{
    struct stat st;
    char path[PATH_MAX];
    int t = tracked(fd, &st, path);
    struct guard g;
    long w;
    if (t) lock(&g);
    if (t == 1) {
        /* size under the lock: an O_APPEND write goes there */
        RAW(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH);
    }
    if (plain) w = off < 0 ? RAW(SYS_write, fd, iov->iov_base, iov->iov_len) : RAW(SYS_pwrite64, fd, iov->iov_base, iov->iov_len, off);
    else if (rwf) w = RAW(SYS_pwritev2, fd, iov, n, off, 0, rwf); /* 64-bit: pos_l holds it all */
    else w = off < 0 ? RAW(SYS_writev, fd, iov, n) : RAW(SYS_pwritev, fd, iov, n, off, 0);
    if (t && w > 0) {
        struct rec r = {.type = t == 2 ? R_ACK : R_WRITE, .dev = st.st_dev, .ino = st.st_ino, .len = (uint64_t)w};
        if (t == 1) {
            long fl = RAW(SYS_fcntl, fd, F_GETFL);
            if ((fl & O_APPEND) || (rwf & 0x10 /* RWF_APPEND */)) r.off = (uint64_t)st.st_size;
            else if (off < 0) r.off = (uint64_t)(RAW(SYS_lseek, fd, 0, SEEK_CUR) - w);
            else r.off = (uint64_t)off;
            r.kind = (fl & O_DSYNC) || (rwf & 6 /* RWF_DSYNC|SYNC */) ? 1 : 0;
        }
        emit(&r, NULL, NULL, iov, n, (size_t)w);
    }
    if (t) unlock(&g);
    return fin(w);
}
API ssize_t write(int fd, const void *b, size_t n) { struct iovec v = {(void *)b, n}; return do_write(fd, &v, 1, -1, 0, 1); }
API ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { struct iovec v = {(void *)b, n}; if (o < 0) { errno = EINVAL; return -1; } return do_write(fd, &v, 1, o, 0, 1); }
API ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return pwrite(fd, b, n, o); }
API ssize_t writev(int fd, const struct iovec *v, int n) { return do_write(fd, v, n, -1, 0, 0); }
API ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { if (o < 0) { errno = EINVAL; return -1; } return do_write(fd, v, n, o, 0, 0); }
API ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) { return pwritev(fd, v, n, o); }
API ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t o, int f) { return do_write(fd, v, n, o, f, 0); }
API ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t o, int f) { return do_write(fd, v, n, o, f, 0); }

static int out_tracked(int fd) { struct stat st; char p[PATH_MAX]; return tracked(fd, &st, p); }
API ssize_t copy_file_range(int in, off64_t *io, int out, off64_t *oo, size_t n, unsigned f)
{
    if (out_tracked(out)) { errno = ENOSYS; return -1; }
    return fin(RAW(SYS_copy_file_range, in, io, out, oo, n, f));
}
API ssize_t sendfile(int out, int in, off_t *o, size_t n)
{
    if (out_tracked(out)) { errno = EINVAL; return -1; }
    return fin(RAW(SYS_sendfile, out, in, o, n));
}
API ssize_t sendfile64(int out, int in, off64_t *o, size_t n) { return sendfile(out, in, o, n); }
API ssize_t splice(int in, off64_t *io, int out, off64_t *oo, size_t n, unsigned f)
{
    if (out_tracked(out)) { errno = EINVAL; return -1; }
    return fin(RAW(SYS_splice, in, io, out, oo, n, f));
}

/* ---------------------------------------------------------- size, sync */
API int ftruncate(int fd, off_t len)
{
    struct stat st; char p[PATH_MAX]; struct guard g;
    if (tracked(fd, &st, p) != 1) return (int)fin(RAW(SYS_ftruncate, fd, len));
    lock(&g);
    long r = RAW(SYS_ftruncate, fd, len);
    if (r == 0) {
        struct rec x = {.type = R_TRUNC, .dev = st.st_dev, .ino = st.st_ino, .off = (uint64_t)len};
        emit(&x, NULL, NULL, NULL, 0, 0);
    }
    unlock(&g);
    return (int)fin(r);
}
API int ftruncate64(int fd, off64_t len) { return ftruncate(fd, len); }
API int truncate(const char *path, off_t len)
{
    int fd = (int)do_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) { errno = -fd; return -1; }
    int r = ftruncate(fd, len), e = errno;
    RAW(SYS_close, fd);
    errno = e;
    return r;
}
API int truncate64(const char *path, off64_t len) { return truncate(path, len); }
static long do_falloc(int fd, int mode, off_t off, off_t len)
{
    struct stat st; char p[PATH_MAX]; struct guard g;
    if (tracked(fd, &st, p) != 1) return RAW(SYS_fallocate, fd, mode, off, len);
    lock(&g);
    long r = RAW(SYS_fallocate, fd, mode, off, len);
    if (r == 0) {
        struct rec x = {.type = R_FALLOC, .dev = st.st_dev, .ino = st.st_ino, .off = (uint64_t)off, .len = (uint64_t)len, .aux = (uint64_t)mode};
        emit(&x, NULL, NULL, NULL, 0, 0);
    }
    unlock(&g);
    return r;
}
API int fallocate(int fd, int mode, off_t off, off_t len) { return (int)fin(do_falloc(fd, mode, off, len)); }
API int fallocate64(int fd, int mode, off64_t off, off64_t len) { return (int)fin(do_falloc(fd, mode, off, len)); }
API int posix_fallocate(int fd, off_t off, off_t len) { long r = do_falloc(fd, 0, off, len); return r < 0 ? (int)-r : 0; }
API int posix_fallocate64(int fd, off64_t off, off64_t len) { return posix_fallocate(fd, off, len); }

static long do_sync(int kind, int fd, off64_t off, off64_t len, unsigned fl)
{
    struct stat st; char p[PATH_MAX]; struct guard g;
    int t = kind == S_SYNCFS ? (memset(&st, 0, sizeof st), active && !inside) : tracked(fd, &st, p) == 1;
    struct rec x = {.type = R_SBEGIN, .kind = (uint16_t)kind, .dev = st.st_dev, .ino = st.st_ino, .off = (uint64_t)off, .len = (uint64_t)len, .aux = fl};
    if (t) {
        lock(&g);
        x.aux2 = ((uint64_t)RAW(SYS_getpid) << 32) | ++token;
        emit(&x, NULL, NULL, NULL, 0, 0);
        unlock(&g);
    }
    long r = kind == S_FSYNC ? RAW(SYS_fsync, fd) : kind == S_FDATASYNC ? RAW(SYS_fdatasync, fd)
           : kind == S_RANGE ? RAW(SYS_sync_file_range, fd, off, len, fl)
           : fd < 0 ? RAW(SYS_sync) : RAW(SYS_syncfs, fd);
    if (t && r == 0) {
        x.type = R_SEND;
        lock(&g);
        emit(&x, NULL, NULL, NULL, 0, 0);
        unlock(&g);
    }
    return r;
}
API int fsync(int fd) { return (int)fin(do_sync(S_FSYNC, fd, 0, 0, 0)); }
API int fdatasync(int fd) { return (int)fin(do_sync(S_FDATASYNC, fd, 0, 0, 0)); }
/* CRASH_SFR=enosys: as on a kernel without the call (sled then calls fsync) */
API int sync_file_range(int fd, off64_t o, off64_t l, unsigned f)
{
    if (sfr_enosys) { errno = ENOSYS; return -1; }
    return (int)fin(do_sync(S_RANGE, fd, o, l, f)); }
API int syncfs(int fd) { return (int)fin(do_sync(S_SYNCFS, fd, 0, 0, 0)); }
API void sync(void) { do_sync(S_SYNCFS, -1, 0, 0, 0); }

/* --------------------------------------------------------------- names */
static long do_rename(int d1, const char *a, int d2, const char *b, unsigned f)
{
    char p1[PATH_MAX], p2[PATH_MAX]; struct stat st; struct guard g;
    int t1 = canon(d1, a, p1), t2 = canon(d2, b, p2);
    if (t1 != 1 && t2 != 1) return RAW(SYS_renameat2, d1, a, d2, b, f);
    if (t1 != 1 || t2 != 1) warn("rename across the border of CRASH_DIR", a);
    lock(&g);
    int have = lstat_at(p1, &st) == 0;
    long r = RAW(SYS_renameat2, d1, a, d2, b, f);
    if (r == 0 && have) {
        struct rec x = {.type = R_RENAME, .dev = st.st_dev, .ino = st.st_ino, .aux = f};
        emit(&x, p1, p2, NULL, 0, 0);
    }
    unlock(&g);
    return r;
}
API int rename(const char *a, const char *b) { return (int)fin(do_rename(AT_FDCWD, a, AT_FDCWD, b, 0)); }
API int renameat(int d1, const char *a, int d2, const char *b) { return (int)fin(do_rename(d1, a, d2, b, 0)); }
API int renameat2(int d1, const char *a, int d2, const char *b, unsigned f) { return (int)fin(do_rename(d1, a, d2, b, f)); }

static long do_name(int type, long nr, int d, const char *a, long arg)
{
    char p[PATH_MAX]; struct stat st; struct guard g;
    if (canon(d, a, p) != 1) return RAW(nr, d, a, arg);
    lock(&g);
    int have = type == R_MKDIR || lstat_at(p, &st) == 0;
    long r = RAW(nr, d, a, arg);
    if (r == 0 && type == R_MKDIR) have = lstat_at(p, &st) == 0;
    if (r == 0 && have) {
        struct rec x = {.type = (uint16_t)type, .dev = st.st_dev, .ino = st.st_ino, .aux = st.st_nlink};
        emit(&x, p, NULL, NULL, 0, 0);
    }
    unlock(&g);
    return r;
}
API int unlink(const char *a) { return (int)fin(do_name(R_UNLINK, SYS_unlinkat, AT_FDCWD, a, 0)); }
API int unlinkat(int d, const char *a, int f) { return (int)fin(do_name(f & AT_REMOVEDIR ? R_RMDIR : R_UNLINK, SYS_unlinkat, d, a, f)); }
API int rmdir(const char *a) { return (int)fin(do_name(R_RMDIR, SYS_unlinkat, AT_FDCWD, a, AT_REMOVEDIR)); }
API int remove(const char *a) { int r = unlink(a); return r < 0 && errno == EISDIR ? rmdir(a) : r; }
API int mkdir(const char *a, mode_t m) { return (int)fin(do_name(R_MKDIR, SYS_mkdirat, AT_FDCWD, a, m)); }
API int mkdirat(int d, const char *a, mode_t m) { return (int)fin(do_name(R_MKDIR, SYS_mkdirat, d, a, m)); }
static long do_link(int d1, const char *a, int d2, const char *b, int f)
{
    char p2[PATH_MAX]; struct stat st; struct guard g;
    if (canon(d2, b, p2) != 1) return RAW(SYS_linkat, d1, a, d2, b, f);
    lock(&g);
    long r = RAW(SYS_linkat, d1, a, d2, b, f);
    if (r == 0 && lstat_at(p2, &st) == 0) {
        struct rec x = {.type = R_LINK, .dev = st.st_dev, .ino = st.st_ino};
        emit(&x, p2, NULL, NULL, 0, 0);
    }
    unlock(&g);
    return r;
}
API int link(const char *a, const char *b) { return (int)fin(do_link(AT_FDCWD, a, AT_FDCWD, b, 0)); }
API int linkat(int d1, const char *a, int d2, const char *b, int f) { return (int)fin(do_link(d1, a, d2, b, f)); }
API int symlinkat(const char *to, int d, const char *a)
{
    char p[PATH_MAX];
    if (canon(d, a, p) == 1) warn("symlink below CRASH_DIR is not replayed", p);
    return (int)fin(RAW(SYS_symlinkat, to, d, a));
}
API int symlink(const char *to, const char *a) { return symlinkat(to, AT_FDCWD, a); }

/* ------------------------------------------------------ warn-only calls */
API void *mmap(void *a, size_t n, int prot, int fl, int fd, off_t o)
{
    struct stat st; char p[PATH_MAX];
    if (fd >= 0 && active && (prot & PROT_WRITE) && (fl & 0xf) != MAP_PRIVATE && tracked(fd, &st, p) == 1)
        warn("mmap(MAP_SHARED|PROT_WRITE): stores cannot be tracked", p);
    return (void *)fin(RAW(SYS_mmap, a, n, prot, fl, fd, o));
}
API void *mmap64(void *a, size_t n, int prot, int fl, int fd, off64_t o) { return mmap(a, n, prot, fl, fd, o); }

API long syscall(long nr, ...)
{
    long a[6];
    va_list ap;
    va_start(ap, nr);
    for (int i = 0; i < 6; i++) a[i] = va_arg(ap, long);
    va_end(ap);
    if (active && !inside) switch (nr) {
    case SYS_write: return write((int)a[0], (void *)a[1], (size_t)a[2]);
    case SYS_pwrite64: return pwrite((int)a[0], (void *)a[1], (size_t)a[2], a[3]);
    case SYS_writev: return writev((int)a[0], (void *)a[1], (int)a[2]);
    case SYS_pwritev: return pwritev((int)a[0], (void *)a[1], (int)a[2], a[3]);
    case SYS_pwritev2: return pwritev2((int)a[0], (void *)a[1], (int)a[2], a[3], (int)a[5]);
    case SYS_fsync: return fsync((int)a[0]);
    case SYS_fdatasync: return fdatasync((int)a[0]);
    case SYS_sync_file_range: return sync_file_range((int)a[0], a[1], a[2], (unsigned)a[3]);
    case SYS_syncfs: return syncfs((int)a[0]);
    case SYS_ftruncate: return ftruncate((int)a[0], a[1]);
    case SYS_fallocate: return fallocate((int)a[0], (int)a[1], a[2], a[3]);
    case SYS_openat: return (int)fin(do_open((int)a[0], (char *)a[1], (int)a[2], (mode_t)a[3]));
    case SYS_renameat2: return renameat2((int)a[0], (char *)a[1], (int)a[2], (char *)a[3], (unsigned)a[4]);
    case SYS_unlinkat: return unlinkat((int)a[0], (char *)a[1], (int)a[2]);
    case SYS_mkdirat: return mkdirat((int)a[0], (char *)a[1], (mode_t)a[2]);
    case SYS_linkat: return linkat((int)a[0], (char *)a[1], (int)a[2], (char *)a[3], (int)a[4]);
    case SYS_copy_file_range: return copy_file_range((int)a[0], (void *)a[1], (int)a[2], (void *)a[3], (size_t)a[4], (unsigned)a[5]);
#ifdef SYS_open
    case SYS_open: return (int)fin(do_open(AT_FDCWD, (char *)a[0], (int)a[1], (mode_t)a[2]));
    case SYS_rename: return rename((char *)a[0], (char *)a[1]);
    case SYS_unlink: return unlink((char *)a[0]);
    case SYS_mkdir: return mkdir((char *)a[0], (mode_t)a[1]);
#endif
    case 425: warn("io_uring_setup: operations through the ring are not tracked", NULL); break;
    case 437: warn("openat2: not tracked if it creates or truncates", (char *)a[1]); break;
    }
    return fin(raw6(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
}
